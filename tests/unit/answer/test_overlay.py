"""A dry run looks facts up as serving does, with the facts of one key exchanged."""

from __future__ import annotations

from lte_runtime.answer.encoder import StubEncoder
from lte_runtime.answer.overlay import Overlay
from lte_runtime.facts.keys import fact_key
from ops.lab.scratch import memory_of

EVENTS = [
    {"op": "assert", "id": "boss", "subject": "Acme", "relation": "chief executive", "target": "Ann"},
    {"op": "assert", "id": "seat", "subject": "Acme", "relation": "head office", "target": "Tolm"},
    {"op": "assert", "id": "price", "subject": "Brisk kettle", "relation": "list price", "target": "9 EUR"},
    {"op": "assert", "id": "far", "subject": "Nordhavn", "relation": "harbour master", "target": "Bo"},
]
QUESTIONS = ("What is the list price that Acme asks?", "Who is chief executive of Acme?", "head office")


def test_candidates_stand_in_the_order_of_serving() -> None:
    """A name counts beside the cosine as much as it does in the memory: less than the cosine itself."""
    encoder = StubEncoder()
    with memory_of(EVENTS, encoder) as memory:
        key = fact_key("default", "Acme", "head office")
        facts = [fact for fact in memory.facts_of_subject("Acme", namespace="default") if fact.key == key]
        overlay = Overlay(memory, encoder, key, facts)
        for question in QUESTIONS:
            served = memory.candidates(question, None, namespace="default")
            looked_up = overlay.candidates(question, None, namespace="default")
            orders = [[item.fact.edit_id for item in candidates.items] for candidates in (looked_up, served)]
            assert orders[0] == orders[1], question


def test_a_dry_run_finds_names_as_serving_does() -> None:
    """A code without its class word, and an alias that another subject has."""
    encoder = StubEncoder()
    with memory_of(EVENTS, encoder) as memory:
        key = fact_key("default", "Service Bulletin SB-12", "date")
        event = {"op": "assert", "id": "sb", "subject": "Service Bulletin SB-12", "relation": "date"}
        with memory_of([event | {"target": "May", "subject_aliases": ["Acme"]}], encoder) as other:
            facts = other.facts_of_subject("Acme", namespace="default")
        overlay = Overlay(memory, encoder, key, facts)
        by_code = overlay.candidates("What is the date of SB-12?", None, namespace="default").items
        by_alias = overlay.candidates("Who is chief executive of Acme?", None, namespace="default").items
    assert [item.fact.edit_id for item in by_code if item.mention] == ["sb"]
    assert {item.fact.edit_id: item.ambiguous for item in by_alias if item.mention} == dict.fromkeys(
        ("boss", "seat", "sb"), True
    )
