"""Rows: where an answer ends and what of it may be streamed."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from lte_runtime.answer.engine.rows import GenerationRow, first_line
from lte_runtime.types import GenerateRequest

END = 0


def as_bytes(tokens: Sequence[int]) -> str:
    return bytes(token for token in tokens if token != END).decode("utf-8", "replace")


def row(
    limit: int = 100, pieces: list[str] | None = None, *, several_lines: bool = False, **wishes: object
) -> GenerationRow:
    on_text = None if pieces is None else pieces.append
    request = GenerateRequest((1,), adapter=False, max_new_tokens=limit, on_text=on_text, **wishes)  # type: ignore[arg-type]
    return GenerationRow(request, as_bytes, {END}, several_lines=several_lines)


def feed(made: GenerationRow, text: str, *, end: bool = False) -> GenerationRow:
    for token in [*text.encode(), *([END] if end else [])]:
        if made.finish:
            break
        made.push(token)
    return made


@pytest.mark.parametrize(
    ("text", "line", "complete"),
    [
        ("", "", False),
        (" Oslo ", "Oslo", False),
        ("\n\nOslo", "Oslo", False),
        ("Oslo \nBergen", "Oslo", True),
    ],
)
def test_first_line(text: str, line: str, complete: bool) -> None:
    assert first_line(text) == (line, complete)


def test_end_of_sequence_stops_and_is_no_text() -> None:
    made = feed(row(), " Oslo", end=True)
    assert (made.text, made.finish, made.tokens[-1]) == ("Oslo", "stop", END)


def test_line_break_stops_only_after_text() -> None:
    made = feed(row(), "\n Oslo\nand more")
    assert (made.text, made.finish) == ("Oslo", "stop")


def test_limit() -> None:
    made = feed(row(limit=3), "Oslo")
    assert (made.text, made.finish) == ("Osl", "length")


@pytest.mark.parametrize("text", ["New York City", "  Łódź, São Paulo ", "東京 is one"])
def test_streamed_pieces_join_to_the_text(text: str) -> None:
    pieces: list[str] = []
    made = feed(row(pieces=pieces), text, end=True)
    assert "".join(pieces) == made.text == text.strip()
    assert "\ufffd" not in "".join(pieces)


def test_half_a_character_is_held_back_until_the_row_ends() -> None:
    pieces: list[str] = []
    made = row(limit=3, pieces=pieces)
    made.push("é".encode()[0])
    assert pieces == []
    made.push("é".encode()[1])
    assert pieces == ["é"]
    made.push("é".encode()[0])
    assert "".join(pieces) == made.text == "é"


@pytest.mark.parametrize("limit", range(1, 13))
def test_the_limit_never_leaves_half_a_character(limit: int) -> None:
    pieces: list[str] = []
    made = feed(row(limit=limit, pieces=pieces), "东京 🐙是")
    assert "东京 🐙是".startswith(made.text)
    assert "".join(pieces) == made.text
    assert (made.finish, len(made.tokens)) == ("length", limit)


@pytest.mark.parametrize("reason", ["deadline", "cancelled", "stop"])
def test_no_end_of_a_row_leaves_half_a_character(reason: str) -> None:
    made = row(deadline=5.0)
    for token in "东京".encode()[:-1]:
        made.push(token)
    if reason == "stop":
        made.push(END)
    made.abandoned = reason == "cancelled"
    made.interrupt(5.0)
    assert (made.text, made.finish) == ("东", reason)


def test_a_row_of_several_lines_ends_at_the_models_end_token() -> None:
    pieces: list[str] = []
    made = feed(row(pieces=pieces, several_lines=True), "\n Three:\n1. Oslo\n", end=True)
    assert (made.text, made.finish) == ("Three:\n1. Oslo", "stop")
    assert "".join(pieces) == made.text


def test_deadline_and_cancellation() -> None:
    late = row(deadline=5.0)
    late.interrupt(4.9)
    assert late.finish == ""
    late.interrupt(5.0)
    assert late.finish == "deadline"
    gone = row(cancelled=lambda: True)
    gone.interrupt(0.0)
    assert gone.finish == "cancelled"
    left = row()
    left.abandoned = True
    left.interrupt(0.0)
    assert left.finish == "cancelled"


def test_an_ended_row_keeps_its_reason() -> None:
    made = feed(row(deadline=1.0), "Oslo", end=True)
    made.interrupt(2.0)
    assert made.finish == "stop"


@pytest.mark.parametrize(
    ("text", "values", "copied"),
    [
        ("", ["Oslo"], None),
        ("Os", ["Oslo"], "l"),
        ("Os", ["Oslo", "Oslavany"], "l"),
        ("Osl", ["Oslo", "Oslavany"], None),
        ("Oslo", ["Oslo"], None),
        ("in Os", ["Oslo"], None),
    ],
)
def test_an_answer_that_begins_as_a_told_value_may_go_on_as_it(
    text: str, values: list[str], copied: str | None
) -> None:
    made = feed(row(values=tuple(tuple(value.encode()) for value in values)), text)
    assert made.copied == (copied and ord(copied))
