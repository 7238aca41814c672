"""Lessons in matching: short facts under near keys, and how a row asks for its facts."""

from __future__ import annotations

import random
import unicodedata
from collections.abc import Callable, Sequence

from lte_runtime.align.stock import names
from lte_runtime.align.stock.relations import NOUN_KINDS
from lte_runtime.align.stock.sources import Sources
from ops.lab.recipes.rows import Statement, TextRow, Turn


def question_row(
    rng: random.Random, items: Sequence[Statement], context: Sequence[Statement], count: int, kind: str
) -> TextRow:
    """A row over `context` that asks for `count` of `items`, each in one of its wordings."""
    chosen = rng.sample(list(items), min(count, len(items)))
    turns = tuple(Turn(roughen(rng, rng.choice(item.questions)), item.target) for item in chosen)
    return TextRow(turns, tuple(item.text for item in context), kind=kind)


def roughen(rng: random.Random, question: str) -> str:
    """Now and then the way people type: lower case, no question mark, no accents."""
    roll = rng.random()
    if roll < 0.03:
        return question.lower()
    if roll < 0.06:
        return question.rstrip("?.")
    if roll < 0.08:
        return strip_accents(question)
    return question


def strip_accents(text: str) -> str:
    return "".join(char for char in unicodedata.normalize("NFD", text) if not unicodedata.combining(char))


SHORT_FORMS = (
    ("{s} {n}: {t}.", "{s} {n}:"),
    ("{n} {s}: {t}.", "{n} {s}:"),
    ("The {n} of {s} is {t}.", "The {n} of {s} is"),
    ("The {n} of {s} is {t}.", "The {n} of {s} is"),
    ("The {n} of {s} is {t}.", "What is the {n} of {s}?"),
    ("The {n} of {s} is {t}.", "What is {s}'s {n}?"),
    ("{s}'s {n} is {t}.", "What is the {n} of {s}?"),
    ("{t} is the {n} of {s}.", "The {n} of {s} is"),
    ("{s} has {t} as its {n}.", "{n} of {s}?"),
)
SHORT_NOUNS = [noun for noun, _ in NOUN_KINDS if " " not in noun]


def distinct(rng: random.Random, make: Callable[[random.Random], str], count: int) -> list[str]:
    seen: dict[str, None] = {}
    while len(seen) < count:
        seen[make(rng)] = None
    return list(seen)


def _short_subject(rng: random.Random) -> str:
    real_names = [rng.choice(values) for values in (names.THINGS, names.FIRST, names.LAST, names.CITIES)]
    return rng.choice([names.name(rng, 1, 1), *real_names, names.name(rng, 1, 2)])


def grid(rng: random.Random, count: int) -> list[tuple[int, int]]:
    """`count` cells (subject, relation) that share rows and columns, in random order."""
    height = rng.randint(1, count)
    width = max(1, -(-count // height)) + (1 if rng.random() < 0.4 else 0)
    if height == 1:
        width = max(width, count)
    cells = [(row, column) for row in range(height) for column in range(width)]
    return rng.sample(cells, count)


def recall_row(_: Sources, rng: random.Random, most: int = 6) -> TextRow:
    """Very short facts, several questions: teaches to match subject and relation together."""
    items = _short_items(rng, min(most, rng.choices((2, 3, 4, 5, 6), (0.4, 0.25, 0.15, 0.1, 0.1))[0]))
    return question_row(rng, items, items, 6, "recall")


LOOKUP_FORMS = (
    ("{k}: {t}.", "{k}:"),
    ("{k}: {t}.", "{k}?"),
    ("{k} is {t}.", "What is {k}?"),
    ("{k} is {t}.", "{k} is"),
    ("{k} = {t}", "{k}"),
    ("The {k} is {t}.", "What is the {k}?"),
    ("{t} is the {k}.", "The {k} is"),
    ("{k} has {t}.", "What does {k} have?"),
)


def lookup_row(_: Sources, rng: random.Random) -> TextRow:
    """Values with one key each, all of them asked for: the simplest lesson in matching."""
    count = rng.randint(2, 8)
    make = _short_subject if rng.random() < 0.6 else lambda draw: draw.choice(SHORT_NOUNS)
    keys, targets = distinct(rng, make, count), distinct(rng, names.short, count)
    statement, question = rng.choice(LOOKUP_FORMS)
    items = [
        Statement(k, t, statement.format(k=k, t=t), (question.format(k=k),))
        for k, t in zip(keys, targets, strict=True)
    ]
    return question_row(rng, items, items, count, "lookup")


def repeat_row(_: Sources, rng: random.Random) -> TextRow:
    """Short facts repeated twice in other orders: from the second time on every value can be looked up.

    Values stand right behind their key or behind a phrase: the longer distance is learned from the shorter.
    """
    form = rng.choice(REPEAT_FORMS)
    keys, targets = _repeat_values(rng, form, rng.randint(2, 7))
    gap = rng.choice((" ", "\n", ". ", "; "))
    lead = gap.join(form.format(k=k, n=n, t=t) for (k, n), t in zip(keys, targets, strict=True))
    if rng.random() < 0.5:
        form = rng.choice([other for other in QUESTION_FORMS if ("{n}" in other) == ("{n}" in form)])
    order = [index for _ in range(2) for index in rng.sample(range(len(keys)), len(keys))]
    text, spans = "", []
    for index in order:
        text += gap + form.partition("{t}")[0].format(k=keys[index][0], n=keys[index][1])
        spans.append((len(text), len(text) + len(targets[index])))
        text += targets[index]
    return TextRow(lead=lead, text=text, spans=tuple(spans), kind="repeat")


REPEAT_FORMS = (
    *("{k} {t}", "{k}: {t}", "{k} is {t}", "{k} = {t}", "{k} has {t}", "{k} -> {t}", "{k} is now {t}"),
    *("{n} {k}: {t}", "{k} {n}: {t}", "The {n} of {k} is {t}", "{k}'s {n} is {t}", "{n} of {k} is {t}"),
)

QUESTION_FORMS = (
    *("{k}? {t}", "What is {k}? {t}", "Q: {k}? A: {t}", "And {k}? It is {t}", "What about {k}? Answer: {t}"),
    *("The {n} of {k}? {t}", "What is the {n} of {k}? {t}", "What is {k}'s {n}? {t}", "{k} {n}? Answer: {t}"),
    *("Q: {n} of {k}? A: {t}", "Which {n} does {k} have? {t}", "Tell me the {n} of {k}. It is {t}"),
)


def _repeat_values(rng: random.Random, form: str, count: int) -> tuple[list[tuple[str, str]], list[str]]:
    """Keys (a subject, or subject and noun) and their short values."""
    targets = distinct(rng, names.short, count)
    if "{n}" not in form:
        return [(key, "") for key in distinct(rng, _short_subject, count)], targets
    cells = grid(rng, count)
    subjects = distinct(rng, _short_subject, 1 + max(row for row, _ in cells))
    nouns = rng.sample(SHORT_NOUNS, 1 + max(column for _, column in cells))
    return [(subjects[row], nouns[column]) for row, column in cells], targets


def _short_items(rng: random.Random, count: int) -> list[Statement]:
    """Facts of a grid of short subjects and nouns, all in one wording."""
    cells = grid(rng, count)
    subjects = distinct(rng, _short_subject, 1 + max(row for row, _ in cells))
    nouns = rng.sample(SHORT_NOUNS, 1 + max(column for _, column in cells))
    targets = distinct(rng, names.short, count)
    statement, question = rng.choice(SHORT_FORMS)
    return [
        _short_item(subjects[row], nouns[column], target, statement, question)
        for (row, column), target in zip(cells, targets, strict=True)
    ]


def _short_item(s: str, n: str, t: str, statement: str, question: str) -> Statement:
    return Statement(s, t, statement.format(s=s, n=n, t=t), (question.format(s=s, n=n),), n)
