"""Names that say too little: flagged, never refused."""

from __future__ import annotations

import pytest

from lte_runtime.facts.events import WEAK_NAME, EventLimits, decode, to_json
from lte_runtime.facts.weak_names import function_words, is_weak
from lte_runtime.types import Position, RawRecord


@pytest.mark.parametrize("name", ["the", "The", "it", "Who", "der", "où", "Où", "él", "X", "7", "(b)", "李"])
def test_function_words_and_single_letters_are_weak(name: str) -> None:
    assert is_weak(name)


@pytest.mark.parametrize("name", ["US", "WHO", "IT", "Ed", "X2", "The Who", "Acme", "東京", "die Bahn"])
def test_abbreviations_and_names_are_not(name: str) -> None:
    assert not is_weak(name)


def test_the_words_are_read_from_their_file_in_four_languages() -> None:
    assert {"the", "der", "les", "los"} <= function_words()


@pytest.mark.parametrize(
    ("event", "flagged"),
    [
        ({"subject": "it", "relation": "colour"}, True),
        ({"subject": "Acme", "relation": "boss", "subject_aliases": ["who"]}, True),
        ({"subject": "Acme", "relation": "boss", "subject_aliases": ["AC"]}, False),
        ({"prompt": "The capital of Peru is"}, False),
    ],
)
def test_an_edit_under_a_weak_name_is_applied_and_flagged(event: dict[str, object], flagged: bool) -> None:
    record = RawRecord("lte.edits", Position("T", 0, 0), None, to_json({"target": "x", **event}))
    assert (WEAK_NAME in decode(record, EventLimits(), 0).flags) is flagged
