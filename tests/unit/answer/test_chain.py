"""Chains: which paths exist, and how they are said in words."""

from __future__ import annotations

from lte_runtime.answer import chain
from lte_runtime.types import Candidate, Cardinality, Fact, FactKey, Position


def fact(subject: str, relation: str, target: str, prompt: str = "") -> Fact:
    key = FactKey("default", prompt.casefold() or subject.casefold(), relation.casefold())
    return Fact(
        edit_id=f"{subject}/{relation}/{target}",
        key=key,
        key_id=0,
        subject=subject,
        relation=relation,
        prompt=prompt,
        target=target,
        statement=f"The {relation} of {subject} is {target}.",
        subject_aliases=(),
        target_aliases=(),
        position=Position("t", 0, 0),
        valid_from=None,
        valid_until=None,
        cardinality=Cardinality.ONE,
        source_uri="",
        publisher="",
    )


MAKER = fact("Zephyr", "maker", "Acme")
LEADER = fact("Acme", "leader", "Ida Krog")
HOME = fact("Ida Krog", "home town", "Oslo")
LOOP = fact("Oslo", "gift", "Zephyr")
STORED = (MAKER, LEADER, HOME, LOOP)


def facts_of(name: str) -> list[Fact]:
    return [f for f in STORED if f.subject == name]


def paths(start: Fact, **limits: int) -> list[tuple[str, ...]]:
    found = chain.expand([Candidate(start, 1.0)], facts_of, **limits)
    return [tuple(f.relation for f in path.facts) for path in found]


def test_chains_follow_targets_up_to_the_limit() -> None:
    assert paths(MAKER) == [("maker", "leader"), ("maker", "leader", "home town")]
    assert paths(MAKER, max_hops=2) == [("maker", "leader")]
    assert paths(MAKER, max_hops=1) == []
    assert paths(MAKER, max_paths=1) == [("maker", "leader")]


def test_a_loop_of_facts_ends() -> None:
    assert paths(LEADER, max_hops=9)[-1] == ("leader", "home town", "gift", "maker")


def test_views_say_what_the_path_answers() -> None:
    found = chain.Path(Candidate(MAKER, 1.0), (MAKER, LEADER, HOME))
    assert found.view == "The home town of the leader of the maker of it"


def test_views_of_prompts_take_the_place_of_the_name() -> None:
    first = fact("Zephyr", "", "Acme", prompt="The maker of Zephyr is")
    second = fact("Acme", "", "Ida Krog", prompt="Who leads Acme?")
    assert chain.compose((first, second)) == "Who leads the maker of it is?"
