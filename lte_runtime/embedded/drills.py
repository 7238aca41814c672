"""Drills over random tokens: every token of the vocabulary gets copied, looked up and ended.

A tied vocabulary learns to write a token from rows in which it is the answer. Names and texts hold most of
them too seldom for that: what was read right was then written as another rare token.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from lte_runtime.embedded import names
from lte_runtime.embedded.matching import ask, grid
from lte_runtime.embedded.relations import NOUN_KINDS, QUESTIONS, STATEMENTS
from lte_runtime.embedded.rows import FIRST_ID, PLACE, VOCABULARY, Statement, TextRow
from lte_runtime.embedded.sources import Sources

Place = Callable[[tuple[int, ...]], str]
"""Keeps ids for a row and gives the character that stands for them in its texts."""

GAPS = (" ", "\n", ". ", "; ", " | ", ", ", " and ")


def piece(rng: random.Random) -> tuple[int, ...]:
    """Some ids: any of the vocabulary, or a few that repeat as digits do."""
    if rng.random() < 0.3:
        few = [rng.randrange(FIRST_ID, VOCABULARY) for _ in range(rng.randint(1, 3))]
        return tuple(rng.choice(few) for _ in range(rng.randint(2, 8)))
    length = rng.choices((1, 2, 3, 4, 5, 6, 8), (0.24, 0.24, 0.2, 0.12, 0.08, 0.07, 0.05))[0]
    return tuple(rng.randrange(FIRST_ID, VOCABULARY) for _ in range(length))


def near(rng: random.Random, known: Sequence[int]) -> tuple[int, ...]:
    """The piece with one id exchanged."""
    place = rng.randrange(len(known))
    return (*known[:place], rng.randrange(FIRST_ID, VOCABULARY), *known[place + 1 :])


def copy_row(_: Sources, rng: random.Random) -> TextRow:
    """Pieces told again in another order, once or twice."""
    pieces = [piece(rng) for _ in range(rng.randint(2, 7))]
    marks = [chr(PLACE + index) for index in range(len(pieces))]
    gap = rng.choice(GAPS)
    again = [mark for _ in range(rng.randint(1, 2)) for mark in rng.sample(marks, len(marks))]
    return TextRow(lead=gap.join(marks), text=gap + gap.join(again), pieces=tuple(pieces), kind="copy")


def drill_row(_: Sources, rng: random.Random) -> TextRow:
    """One to four facts in the generic wordings whose subjects, nouns and targets are random pieces."""
    cells = grid(rng, rng.choices((1, 2, 3, 4), (0.3, 0.3, 0.25, 0.15))[0])
    drawn: list[tuple[int, ...]] = []

    def place(ids: tuple[int, ...]) -> str:
        drawn.append(ids)
        return chr(PLACE + len(drawn) - 1)

    subjects = _subjects(rng, 1 + max(row for row, _ in cells), place, drawn)
    nouns = [_noun(rng, place) for _ in range(1 + max(column for _, column in cells))]
    items = []
    for row, column in cells:
        s, n, t = subjects[row], nouns[column], place(piece(rng))
        text = rng.choice(STATEMENTS).format(s=s, n=n, t=t)
        asked = tuple(form.format(s=s, n=n) for form in rng.sample(QUESTIONS, 3))
        items.append(Statement(s, t, text, asked, n))
    row_ = ask(rng, items, items, rng.randint(1, len(items)), "drill")
    return TextRow(row_.turns, row_.facts, pieces=tuple(drawn), kind="drill")


def _noun(rng: random.Random, place: Place) -> str:
    if rng.random() < 0.5:
        return rng.choice(NOUN_KINDS)[0]
    return place(piece(rng)[:3])


def _subjects(rng: random.Random, count: int, place: Place, drawn: Sequence[tuple[int, ...]]) -> list[str]:
    """Subjects of one row: pieces or invented names, now and then nearly the one before."""
    made: list[str] = []
    while len(made) < count:
        if rng.random() < 0.35:
            made.append(names.value(rng.choice(("product", "org", "person", "code")), rng))
        elif drawn and rng.random() < 0.4:
            made.append(place(near(rng, drawn[-1])))
        else:
            made.append(place(piece(rng)[:5]))
    return made
