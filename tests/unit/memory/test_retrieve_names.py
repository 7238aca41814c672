"""Which names of a key lead to it: those of the facts that hold at the time of the question."""

from __future__ import annotations

from typing import Any

from lte_runtime.answer.encoder import StubEncoder
from lte_runtime.memory.edit_memory import EditMemory
from lte_runtime.types import Candidate
from ops.lab.scratch import START_MS, memory_of

DAY_MS = 86_400_000


def fee(subject: str, number: int, **more: Any) -> dict[str, Any]:
    return {"op": "assert", "id": f"{subject} {number}", "subject": subject, "relation": "fee"} | {
        "target": f"{number} EUR",
        **more,
    }


def named(memory: EditMemory, question: str, at_ms: int | None = None) -> dict[str, Candidate]:
    """Candidates whose subject the question names, by the subject's name."""
    items = memory.candidates(question, None, namespace="default", at_ms=at_ms).items
    return {item.fact.subject: item for item in items if item.mention}


def test_an_alias_leaves_with_the_last_current_edit_that_has_it() -> None:
    events = [
        fee("Pelican", 29, subject_aliases=["P4"], revision=1),
        fee("Pelican", 30, subject_aliases=["Seabird Classic"], revision=2),
        fee("Petrel", 35, subject_aliases=["P4"]),
    ]
    with memory_of(events, StubEncoder()) as memory:
        (candidate,) = named(memory, "What is the fee of P4?").values()
        assert (candidate.fact.subject, candidate.ambiguous) == ("Petrel", False)
        assert named(memory, "What is the fee of Seabird Classic?").keys() == {"Pelican"}
        (fact,) = memory.facts_of_subject("P4", namespace="default")
    assert fact.subject == "Petrel"


def test_an_alias_comes_back_when_the_edit_above_is_withdrawn() -> None:
    events = [
        fee("Pelican", 29, subject_aliases=["P4"]),
        fee("Pelican", 31, subject_aliases=["Seabird Classic"]),
        {"op": "retract", "id": "r", "retracts": "Pelican 31"},
    ]
    with memory_of(events, StubEncoder()) as memory:
        assert named(memory, "What is the fee of P4?").keys() == {"Pelican"}
        assert named(memory, "What is the fee of Seabird Classic?") == {}


def test_an_alias_holds_as_long_as_its_fact() -> None:
    now = START_MS
    events = [
        fee("Pelican", 29, subject_aliases=["P4"], valid_from="2000-01-01", valid_until="2000-02-01"),
        fee("Pelican", 31, subject_aliases=["P5"], valid_from="2000-02-01"),
    ]
    with memory_of(events, StubEncoder()) as memory:
        questions = ("What is the fee of P4?", "What is the fee of P5?")
        early, late = ([bool(named(memory, q, now + days * DAY_MS)) for q in questions] for days in (10, 40))
        present = [bool(named(memory, q)) for q in questions]
    assert early == [True, False]
    assert late == present == [False, True]


def test_a_member_of_a_set_gives_its_alias_to_the_key() -> None:
    events = [
        fee("Pelican", 1, subject_aliases=["P4"], cardinality="many"),
        fee("Pelican", 2, cardinality="many"),
    ]
    with memory_of(events, StubEncoder()) as memory:
        items = memory.candidates("What are the fees of P4?", None, namespace="default").items
    assert {item.fact.target for item in items if item.mention} == {"1 EUR", "2 EUR"}


def test_one_name_of_two_subjects_is_ambiguous_and_a_better_match_is_not() -> None:
    events = [
        fee("Antivirus", 1, subject_aliases=["AV"]),
        fee("Voyage", 2, subject_aliases=["AV"]),
        fee("Müller", 3),
        fee("Mùller", 4),
    ]
    with memory_of(events, StubEncoder()) as memory:
        both = named(memory, "What is the fee of AV?")
        accents = named(memory, "What is the fee of Muller?")
        exact = named(memory, "What is the fee of Müller?")
    assert {name: item.ambiguous for name, item in both.items()} == {"Antivirus": True, "Voyage": True}
    assert {name: item.ambiguous for name, item in accents.items()} == {"Müller": True, "Mùller": True}
    assert {name: item.ambiguous for name, item in exact.items()} == {"Müller": False}


def test_several_facts_of_one_subject_are_not_ambiguous() -> None:
    events = [fee("Pelican", 1), fee("Pelican", 2) | {"relation": "price"}]
    with memory_of(events, StubEncoder()) as memory:
        items = memory.candidates("What is the fee of Pelican?", None, namespace="default").items
    assert [item.ambiguous for item in items if item.mention] == [False, False]
