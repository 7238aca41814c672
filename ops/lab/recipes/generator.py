"""The training stream: seeded rows that teach to remember, to read, and to choose among near facts."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from lte_runtime.align.stock import names
from lte_runtime.align.stock.relations import SUBJECT_KINDS, withheld
from lte_runtime.align.stock.sources import Sources
from ops.lab.recipes.chains import chain_row, compose_row
from ops.lab.recipes.drills import copy_row, drill_row
from ops.lab.recipes.exclude import Excluded
from ops.lab.recipes.invented import aliased, near_subjects, phrase, reworded, slots_of, target_of
from ops.lab.recipes.matching import grid, lookup_row, question_row, recall_row, repeat_row, roughen
from ops.lab.recipes.rows import Statement, TextRow, Turn


@dataclass(frozen=True)
class Generator:
    """Makes rows from a random stream. Equal seeds give equal rows."""

    sources: Sources
    excluded: Excluded = field(default_factory=Excluded)

    def rows(self, rng: random.Random, mixture: Sequence[tuple[str, float]], count: int) -> list[TextRow]:
        """`count` rows, kinds drawn by weight; withheld relations and excluded facts are drawn again."""
        kinds, weights = zip(*mixture, strict=True)
        rows: list[TextRow] = []
        while len(rows) < count:
            row = MAKERS[rng.choices(kinds, weights)[0]](self.sources, rng)
            text = row_text(row)
            if not withheld(text) and not self.excluded.hit(text):
                rows.append(row)
        return rows


def row_text(row: TextRow) -> str:
    """All that a row says, line by line."""
    return "\n".join([row.lead, row.text, *row.facts, *(f"{turn.user}\n{turn.answer}" for turn in row.turns)])


def echo_row(sources: Sources, rng: random.Random) -> TextRow:
    """Phrases, then the same phrases in another order; only the second time counts: plain copying."""
    passages = [phrase(sources, rng, 8) for _ in range(rng.randint(2, 5))]
    gap = rng.choice((" ", "\n", ". ", "; ", " | ", ", "))
    text, spans = "", []
    for passage in rng.sample(passages, len(passages)):
        text += gap
        spans.append((len(text) + len(passage.split(" ")[0]) // 2, len(text) + len(passage)))
        text += passage
    return TextRow(lead=gap.join(passages), text=text, spans=tuple(spans), kind="echo")


def single_row(sources: Sources, rng: random.Random) -> TextRow:
    """One fact alone: teaches to copy."""
    return reading_row(sources, rng, 1)


def reading_row(sources: Sources, rng: random.Random, count: int = 0) -> TextRow:
    """One to four facts (or `count`) that share subjects and relations, asked in other words."""
    count = count or rng.choices((1, 2, 3, 4), (0.2, 0.35, 0.3, 0.15))[0]
    cells = grid(rng, count)
    kind = rng.choice(SUBJECT_KINDS)
    subjects = near_subjects(rng, kind, 1 + max(row for row, _ in cells), sources)
    slots = slots_of(rng, kind, 1 + max(column for _, column in cells), sources)
    if count == 1 and rng.random() < 0.35:
        slots = [reworded(rng, slot) for slot in slots]
    items, seen = [], set()
    for row, column in cells:
        target = target_of(rng, slots[column].target, sources)
        if target not in seen:
            seen.add(target)
            items.append(aliased(rng, subjects[row], slots[column], target))
    return question_row(rng, items, items, rng.randint(1, 3), "reading")


# Benchmark-like facts, remembered facts, running text.


def edit_row(sources: Sources, rng: random.Random) -> TextRow:
    """Facts of the benchmarks' training halves as the daemon states them, half with another target."""
    if not sources.edits:
        return reading_row(sources, rng)
    count = rng.choices((1, 2, 3), (0.6, 0.25, 0.15))[0]
    items: dict[str, Statement] = {}
    while len(items) < count:
        record = rng.choice(sources.edits)
        roll = rng.random()
        target = rng.choice(sources.objects) if roll < 0.4 else record.target
        if roll > 0.8:
            target = phrase(sources, rng) if roll > 0.88 else names.compound(rng)
        if not withheld(record.text):
            items[target] = Statement(record.subject, target, f"{record.text} {target}.", record.questions)
    chosen = list(items.values())
    return question_row(rng, chosen, chosen, rng.randint(1, count), "edit")


def stock_row(sources: Sources, rng: random.Random) -> TextRow:
    """A remembered fact without a prompt, behind facts about something else, or changed by one."""
    if not sources.stock:
        return recall_row(sources, rng)
    fact = rng.choice(sources.stock)
    question = rng.choice(fact.questions)
    roll = rng.random()
    if roll < 0.82:
        return TextRow((Turn(roughen(rng, question), fact.target),), kind="stock")
    if roll < 0.90:
        beside = reading_row(sources, rng, rng.randint(1, 2)).facts
        return TextRow((Turn(question, fact.target),), beside, kind="beside")
    target = rng.choice(sources.stock).target if rng.random() < 0.4 else target_of(rng, "any", sources)
    text = f"{rng.choice(fact.questions)} {target}."
    return TextRow((Turn(question, target),), (text,), kind="changed")


def text_row(sources: Sources, rng: random.Random) -> TextRow:
    """A stretch of running text."""
    if not sources.texts:
        return recall_row(sources, rng)
    words = rng.choice(sources.texts).split(" ")
    start = rng.randrange(max(1, len(words) - 90))
    return TextRow(text=" ".join(words[start : start + 90]), kind="text")


def open_row(sources: Sources, rng: random.Random) -> TextRow:
    """An open-domain question with its answer: the form of questions that people ask."""
    if not sources.open_questions:
        return recall_row(sources, rng)
    question, answer = rng.choice(sources.open_questions)
    return TextRow((Turn(question, answer),), kind="open")


MAKERS: dict[str, Callable[[Sources, random.Random], TextRow]] = {
    "recall": recall_row,
    "repeat": repeat_row,
    "lookup": lookup_row,
    "echo": echo_row,
    "copy": copy_row,
    "drill": drill_row,
    "single": single_row,
    "reading": reading_row,
    "chain": chain_row,
    "compose": compose_row,
    "edit": edit_row,
    "stock": stock_row,
    "text": text_row,
    "open": open_row,
}
