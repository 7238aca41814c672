"""What one publisher's names do to questions about another publisher's subject: nothing in silence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from lte_runtime.answer.encoder import StubEncoder
from lte_runtime.answer.retriever import Retriever
from lte_runtime.answer.scope.gate import lexical_calibration
from lte_runtime.types import Question
from ops.lab.scratch import memory_of

Event = Mapping[str, Any]


def event(publisher: str, subject: str, relation: str, target: str, *aliases: str) -> Event:
    names = {"subject": subject, "subject_aliases": list(aliases)}
    return {**names, "relation": relation, "target": target, "source": {"publisher": publisher}}


def cited(events: Sequence[Event], text: str) -> list[tuple[str, bool]]:
    """Target of each citation, and whether it is flagged as ambiguous."""
    encoder = StubEncoder()
    with memory_of(events, encoder) as memory:
        retriever = Retriever(memory, encoder, lexical_calibration(encoder.fingerprint))
        citations = retriever.retrieve(Question(text), None).citations
    return [(c.fact.target, "ambiguous" in c.fact.flags) for c in citations]


VICTIM = event("hr", "Nordwind Cargo", "chief executive", "Anna Berg")
CAPTURE = event("shop", "Evil Corp", "bank account", "DE00", "Nordwind Cargo")
QUESTION = "What is the bank account of Nordwind Cargo?"


@pytest.mark.parametrize("order", [(VICTIM, CAPTURE), (CAPTURE, VICTIM)], ids=["later", "earlier"])
def test_an_alias_that_is_anothers_subject_answers_flagged_whoever_came_first(order: Sequence[Event]) -> None:
    assert cited(order, QUESTION) == [("DE00", True)]


def test_another_publishers_fact_about_the_same_subject_is_flagged() -> None:
    taken = event("shop", "Nordwind Cargo", "bank account", "DE00")
    assert cited([VICTIM, taken], QUESTION) == [("DE00", True)]
    assert cited([VICTIM, taken], "Who is the chief executive of Nordwind Cargo?") == [("Anna Berg", False)]


def test_a_taken_alias_does_not_answer_in_place_of_its_holder() -> None:
    """Who had the name before the holder published anything answers beside it: both are flagged."""
    rival = event("shop", "Evil Corp", "chief executive", "Mallory", "Nordwind Cargo")
    question = "Who is the chief executive of Nordwind Cargo?"
    assert cited([VICTIM, rival], question) == [("Anna Berg", True)]
    assert cited([rival, VICTIM], question) == [("Anna Berg", True), ("Mallory", True)], (
        "own names come first"
    )
    assert cited([VICTIM, rival], "Who is the chief executive of Evil Corp?") == [("Mallory", True)]


def test_a_fact_that_took_a_name_is_flagged_by_its_own_name_too() -> None:
    assert cited([VICTIM, CAPTURE], "What is the bank account of Evil Corp?") == [("DE00", True)]
    own = event("hr", "Evil Corp", "bank account", "DE00", "Nordwind Cargo")
    assert cited([VICTIM, own], "What is the bank account of Evil Corp?") == [("DE00", False)]
