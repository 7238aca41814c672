"""Chains: which paths exist, and how they are said in words."""

from __future__ import annotations

import pytest

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
    assert found.parts == (
        "The home town of the leader of it",
        "The home town of the maker of it",
        "The leader of the maker of it",
    )
    assert chain.Path(Candidate(MAKER, 1.0), (MAKER,)).parts == ()


def test_views_of_prompts_take_the_place_of_the_name() -> None:
    first = fact("Zephyr", "", "Acme", prompt="The maker of Zephyr is")
    second = fact("Acme", "", "Ida Krog", prompt="Who leads Acme?")
    assert chain.compose((first, second)) == "Who leads the maker of it?"


def test_a_description_in_the_question_is_what_the_view_says() -> None:
    view = "The home country of it"
    found = "the home country of it"
    assert chain.described("What is the currency of the home country of it?", view) == found
    assert chain.described("The currency of the home country of it is", view) == found
    assert chain.described("What is the home country of it's currency?", view) == found
    assert chain.described("What is the currency of the home town of it?", view) is None
    assert chain.described("What is the home country of it?", view) is None, "that is the whole question"


def test_a_description_counts_only_where_something_of_it_is_asked_for() -> None:
    assert chain.described("What was ruled out as the cause of it?", "The cause of it") is None
    assert chain.described("What does the guarantee on it not cover?", "The guarantee of it") is None
    assert chain.described("What is the currency of the country of it?", "") is None


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("What is the official language of the home country of it?", True),
        ("Which language is spoken in the home country of it?", True),
        ("What language do they speak in it's home country?", True),
        ("What is the home country of it?", False),
        ("Which country is the home country of it?", False),
        ("I would like to know this. What is the home country of it?", False),
        ("Quick question: The home country of it is", False),
        ("What is it's home country?", False),
        ("Where was it made?", False),
    ],
)
def test_a_question_asks_for_the_fact_or_for_more_of_what_it_tells(question: str, expected: bool) -> None:
    assert chain.asks_beyond(question, "The home country of it") is expected


def test_nothing_is_beyond_a_view_without_words() -> None:
    assert not chain.asks_beyond("What is the currency of the country of it?", "")
