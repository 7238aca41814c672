"""Probes from facts: each kind's question and right answers, what is ambiguous is not asked, the seed."""

from __future__ import annotations

import random

import pytest

from lte_runtime.drift import readings as r
from lte_runtime.drift.probes import QUOTA, READING, BaseAnswer, DriftProbe, ProbeKind, make, right, score
from lte_runtime.facts.keys import fact_key
from lte_runtime.types import Cardinality, Fact, Position


def fact(
    number: int,
    subject: str,
    relation: str,
    target: str,
    *,
    aliases: tuple[str, ...] = (),
    namespace: str = "default",
    prompt: str = "",
) -> Fact:
    return Fact(
        edit_id=f"e{number}",
        key=fact_key(namespace, subject, relation, prompt),
        key_id=number,
        subject=subject,
        relation=relation,
        prompt=prompt,
        target=target,
        statement="",
        subject_aliases=aliases,
        target_aliases=(),
        position=Position("t", 0, number),
        valid_from=None,
        valid_until=None,
        cardinality=Cardinality.ONE,
        source_uri="",
        publisher="",
    )


FERRY = fact(1, "Ferry Osk", "captain", "Mara Lind", aliases=("the Osk",))
MARA = fact(2, "Mara Lind", "home town", "Vesby")
PROMPT = fact(3, "", "", "blue", prompt="The colour of the quay is")


def probes(
    kind: ProbeKind, *facts: Fact, base: tuple[BaseAnswer, ...] = (), cycle: int = 0
) -> list[DriftProbe]:
    return [each for each in make(facts, base, seed=1, cycle=cycle) if each.kind is kind]


def test_verbatim_asks_for_the_fact_or_gives_the_prompt() -> None:
    made = {each.question: each.accepted for each in probes(ProbeKind.VERBATIM, FERRY, PROMPT)}
    assert made == {
        "What is the captain of Ferry Osk?": ("Mara Lind",),
        "The colour of the quay is": ("blue",),
    }


def test_rephrased_is_worded_otherwise_and_keeps_the_names() -> None:
    for cycle in range(8):
        (probe,) = probes(ProbeKind.REPHRASED, FERRY, cycle=cycle)
        assert "captain" in probe.question
        assert "Ferry Osk" in probe.question
        assert probe.question != "What is the captain of Ferry Osk?"


def test_alias_asks_by_the_other_name() -> None:
    (probe,) = probes(ProbeKind.ALIAS, FERRY, MARA, PROMPT)
    assert (probe.question, probe.edit_ids) == ("What is the captain of the Osk?", ("e1",))


def test_a_name_of_two_things_is_not_asked_by() -> None:
    other = fact(4, "Tug Osk", "captain", "Per Holm", aliases=("The OSK",))
    assert not probes(ProbeKind.ALIAS, FERRY, other)
    assert len(probes(ProbeKind.VERBATIM, FERRY, other)) == 2


def test_two_hops_go_through_the_first_target() -> None:
    (probe,) = probes(ProbeKind.TWO_HOP, FERRY, MARA)
    assert probe.question == "What is the home town of the captain of Ferry Osk?"
    assert (probe.accepted, probe.edit_ids) == (("Vesby",), ("e1", "e2"))


def test_two_hops_stay_in_a_namespace_and_leave_sets_out() -> None:
    elsewhere = fact(5, "Mara Lind", "home town", "Dorn", namespace="other")
    assert not probes(ProbeKind.TWO_HOP, FERRY, elsewhere)
    second = fact(6, "Ferry Osk", "captain", "Jon Ek")
    assert not probes(ProbeKind.TWO_HOP, FERRY, second, MARA)


def test_all_members_of_a_set_are_accepted() -> None:
    second = fact(6, "Ferry Osk", "captain", "Jon Ek")
    for probe in probes(ProbeKind.VERBATIM, FERRY, second):
        assert probe.accepted == ("Mara Lind", "Jon Ek")


def test_a_choice_holds_the_answer_and_three_wrong_ones_of_the_relation() -> None:
    others = [fact(10 + i, f"Ship {i}", "captain", name) for i, name in enumerate(("Ada", "Bo", "Cy"))]
    made = probes(ProbeKind.CHOICE, FERRY, *others, MARA)
    assert len(made) == 4
    for probe in made:
        assert all(name in probe.question for name in ("Mara Lind", "Ada", "Bo", "Cy"))
    assert not probes(ProbeKind.CHOICE, FERRY, *others[:2])


def test_locality_compares_with_the_recorded_answer_even_an_empty_one() -> None:
    (probe,) = probes(ProbeKind.LOCALITY, FERRY, base=(BaseAnswer("Where is the sea?", "Out there."),))
    assert right(probe, "out there")
    assert not right(probe, "inland")
    (silent,) = probes(ProbeKind.LOCALITY, base=(BaseAnswer("Where?", ""),))
    assert right(silent, "")
    assert not right(probes(ProbeKind.VERBATIM, FERRY)[0], "")


def many(n: int) -> list[Fact]:
    return [fact(i, f"Ship {i}", "captain", f"Person {i}", aliases=(f"S{i}",)) for i in range(n)]


def test_the_quota_is_kept_and_no_fact_asked_twice() -> None:
    made = make(many(300), (), seed=1, cycle=0)
    for kind in (ProbeKind.VERBATIM, ProbeKind.REPHRASED, ProbeKind.ALIAS, ProbeKind.CHOICE):
        ids = [each.edit_ids for each in made if each.kind is kind]
        assert len(ids) == len(set(ids)) == QUOTA[kind]
    assert len(make(many(5), (), seed=1, cycle=0, quota={ProbeKind.VERBATIM: 9})) == 5


def test_the_sample_hangs_on_seed_and_cycle_alone() -> None:
    facts = many(200)
    first = make(facts, (), seed=1, cycle=7)
    shuffled = random.Random(3).sample(facts, len(facts))
    assert make(shuffled, (), seed=1, cycle=7) == first
    assert make(facts, (), seed=1, cycle=8) != first
    assert make(facts, (), seed=2, cycle=7) != first


def test_no_facts_no_probes() -> None:
    assert make((), (), seed=1, cycle=0) == ()


def test_scores_are_readings_in_batches_in_the_order_asked() -> None:
    probe = probes(ProbeKind.VERBATIM, FERRY)[0]
    asked = [(probe, "mara lind.")] * 16 + [(probe, "Jon")] * 4
    assert [(each.name, each.value, each.n, each.time_ms) for each in score(asked, 9)] == [
        (r.EDIT_SUCCESS, 1.0, 16, 9),
        (r.EDIT_SUCCESS, 0.0, 4, 9),
    ]
    assert score([], 9) == ()


@pytest.mark.parametrize("kind", list(ProbeKind))
def test_each_kind_is_a_reading_of_its_own(kind: ProbeKind) -> None:
    assert READING[kind] in r.NAMES
    assert len(set(READING.values())) == len(ProbeKind)
