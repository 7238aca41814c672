"""Drills over random tokens: every token of the vocabulary gets copied, looked up and ended.

A tied vocabulary learns to write a token from rows in which it is the answer. Most tokens are too rare in
names and texts for that: the model read them right and then wrote another rare token.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from lte_runtime.align.stock import names
from lte_runtime.align.stock.relations import NOUN_KINDS, QUESTIONS, STATEMENTS
from lte_runtime.align.stock.sources import Sources
from ops.lab.recipes.matching import grid, question_row
from ops.lab.recipes.rows import FIRST_ID, PLACE, VOCABULARY, Statement, TextRow

Place = Callable[[tuple[int, ...]], str]
"""Adds ids to the row's pieces; returns the character that stands for them in its texts."""

GAPS = (" ", "\n", ". ", "; ", " | ", ", ", " and ")


def piece(rng: random.Random) -> tuple[int, ...]:
    """Some ids: any of the vocabulary, or a few that repeat, as digits do."""
    if rng.random() < 0.3:
        few = [rng.randrange(FIRST_ID, VOCABULARY) for _ in range(rng.randint(1, 3))]
        return tuple(rng.choice(few) for _ in range(rng.randint(2, 8)))
    length = rng.choices((1, 2, 3, 4, 5, 6, 8), (0.24, 0.24, 0.2, 0.12, 0.08, 0.07, 0.05))[0]
    return tuple(rng.randrange(FIRST_ID, VOCABULARY) for _ in range(length))


def near_piece(rng: random.Random, ids: Sequence[int]) -> tuple[int, ...]:
    """The piece with one id exchanged."""
    index = rng.randrange(len(ids))
    return (*ids[:index], rng.randrange(FIRST_ID, VOCABULARY), *ids[index + 1 :])


def copy_row(_: Sources, rng: random.Random) -> TextRow:
    """Pieces, then the same pieces in another order, once or twice."""
    pieces = [piece(rng) for _ in range(rng.randint(2, 7))]
    marks = [chr(PLACE + index) for index in range(len(pieces))]
    gap = rng.choice(GAPS)
    repeats = [mark for _ in range(rng.randint(1, 2)) for mark in rng.sample(marks, len(marks))]
    return TextRow(lead=gap.join(marks), text=gap + gap.join(repeats), pieces=tuple(pieces), kind="copy")


def drill_row(_: Sources, rng: random.Random) -> TextRow:
    """One to four facts in the generic wordings whose subjects, nouns and targets are random pieces."""
    cells = grid(rng, rng.choices((1, 2, 3, 4), (0.3, 0.3, 0.25, 0.15))[0])
    pieces: list[tuple[int, ...]] = []

    def place(ids: tuple[int, ...]) -> str:
        pieces.append(ids)
        return chr(PLACE + len(pieces) - 1)

    subjects = _subjects(rng, 1 + max(row for row, _ in cells), place, pieces)
    nouns = [_noun(rng, place) for _ in range(1 + max(column for _, column in cells))]
    items = []
    for row, column in cells:
        s, n, t = subjects[row], nouns[column], place(piece(rng))
        text = rng.choice(STATEMENTS).format(s=s, n=n, t=t)
        questions = tuple(form.format(s=s, n=n) for form in rng.sample(QUESTIONS, 3))
        items.append(Statement(s, t, text, questions, n))
    drilled = question_row(rng, items, items, rng.randint(1, len(items)), "drill")
    return TextRow(drilled.turns, drilled.facts, pieces=tuple(pieces), kind="drill")


def _noun(rng: random.Random, place: Place) -> str:
    if rng.random() < 0.5:
        return rng.choice(NOUN_KINDS)[0]
    return place(piece(rng)[:3])


def _subjects(rng: random.Random, count: int, place: Place, pieces: Sequence[tuple[int, ...]]) -> list[str]:
    """Subjects of one row: pieces or invented names, sometimes one id away from the piece before."""
    subjects: list[str] = []
    while len(subjects) < count:
        if rng.random() < 0.35:
            subjects.append(names.value(rng.choice(("product", "org", "person", "code")), rng))
        elif pieces and rng.random() < 0.4:
            subjects.append(place(near_piece(rng, pieces[-1])))
        else:
            subjects.append(place(piece(rng)[:5]))
    return subjects
