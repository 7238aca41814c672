"""One name in one question: where it stands, how sure that is, and the same answer as the look-up's."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lte_runtime.names.index import NameIndex
from lte_runtime.names.mention import NAMED_FROM, How, Mentions, locate
from lte_runtime.names.reading import MOST_CHARS, MOST_WORDS, Reading
from lte_runtime.names.tokens import folded_name


@pytest.mark.parametrize(
    ("question", "name", "expected"),
    [
        ("Who runs Nordwind Cargo?", "Nordwind Cargo", "Nordwind Cargo"),
        ("who runs nordwind cargo's depot", "Nordwind Cargo", "nordwind cargo"),
        ("Where was Stanislav Rossler born?", "Stanislav Rössler", "Stanislav Rossler"),
        ("What does SKU4711 cost?", "SKU-4711", "SKU4711"),
        ("What does SKU 4712 cost?", "SKU-4711", None),
        ("What does SKU 4171 cost?", "SKU-4711", None),
        ("Who owns Rockwood?", "Rookwood", None),
        ("Who owns Rookwodo?", "Rookwood", "Rookwodo"),
        ("Is C++ older than C#?", "C#", "C#"),
        ("Is C++ old?", "C", None),
        ("Who runs Nordwindcargoes?", "Nordwind Cargo", None),
        ("Wo liegt die STRASSE?", "Straße", "STRASSE"),
        ("the Sa\u0303o Paulo office", "São Paulo", "Sa\u0303o Paulo"),
        ("(Anna\u200b Berg)", "Anna Berg", "Anna\u200b Berg"),
        ("\ufdfa ﬁn Anna!", "Anna", "Anna"),
        ("!!!", "!!!", "!!!"),
        ("What is 🦊🐙?", "🦊🐙", "🦊🐙"),
        ("Where does Team Nova meet?", "Team 🦊 Nova", "Team Nova"),
        ("", "Anna", None),
    ],
)
def test_a_name_stands_where_the_question_names_it(question: str, name: str, expected: str | None) -> None:
    mention = locate(Reading(question), name)
    named = mention is not None and mention.named
    assert (question[mention.start : mention.end] if mention and named else None) == expected


def test_a_slip_that_may_be_another_name_names_nothing() -> None:
    mention = locate(Reading("Who owns Rockwood?"), "Rookwood")
    assert mention is not None
    assert mention.how is How.MISSPELT
    assert mention.score < NAMED_FROM
    assert not mention.named


def test_the_surest_place_is_taken() -> None:
    question = "Sao Paulo, SãoPaulo or São Paulo?"
    mention = locate(Reading(question), "São Paulo")
    assert mention is not None
    assert (question[mention.start : mention.end], mention.how) == ("São Paulo", How.EXACT)


def test_emoji_beside_a_name_are_not_part_of_it() -> None:
    mention = locate(Reading("🦊 Acme Labs 🦊"), "Acme Labs")
    assert mention is not None
    assert (mention.start, mention.end, mention.how) == (2, 11, How.EXACT)


def test_the_longest_of_several_names_is_the_best() -> None:
    mention = Mentions("Who leads Acme Labs?").best(["Acme", "Labs", "Acme Labs"])
    assert mention is not None
    assert mention.name == "acme labs"


def test_a_text_is_read_so_far_and_no_further() -> None:
    assert len(Reading("a" * 10 * MOST_CHARS).text) == MOST_CHARS
    assert len(Reading("a " * MOST_CHARS).words) == MOST_WORDS
    assert len(Reading("\u6771" * MOST_CHARS).words) == MOST_WORDS


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=60))
def test_each_word_has_a_place_in_the_text(text: str) -> None:
    reading = Reading(text)
    places = [(word.start, word.end) for word in reading.words]
    assert places == sorted(places)
    assert all(0 <= start < end <= len(text) for start, end in places)


WORD = st.text("abcdeéüßñÅ日本กั01-' 🦊", min_size=1, max_size=6)


@settings(max_examples=300, deadline=None)
@given(name=WORD, before=WORD, after=WORD)
def test_looking_up_and_looking_for_one_name_agree(name: str, before: str, after: str) -> None:
    index, question = NameIndex(), f"{before} {name} {after}"
    index.add(1, "default", [name])
    hits = index.find(question, "default", 5)
    mention = locate(Reading(question), name) if folded_name(name) else None
    looked_up = hits[0].mention if hits and hits[0].mention.how is not How.PART else None
    assert (looked_up and looked_up.score) == (mention and mention.score)
