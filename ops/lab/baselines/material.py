"""What baselines learn from: the project's generator, its stock of facts, and training halves where given.

Nothing here is from the half of a benchmark that is set aside for judging: the generator's sources leave it
out.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lte_runtime.align.stock import sources
from lte_runtime.align.stock.sources import BenchmarkFact, StockFact
from lte_runtime.errors import BadRequest
from ops.lab.baselines import base as reading
from ops.lab.baselines.base import BaselineModel
from ops.lab.baselines.protocol import EditRequest
from ops.lab.recipes.generator import Generator

TEXT_KINDS = (("stock", 0.5), ("reading", 0.25), ("edit", 0.25))
TEXT_ROWS = 2000


@dataclass(frozen=True, slots=True)
class Lesson:
    """An edit, other wordings of its question, and a question with its answer that must stay as it is."""

    request: EditRequest
    rephrased: tuple[str, ...]
    unrelated: tuple[str, str]


@dataclass(frozen=True)
class LessonMaterial:
    """Seeded lessons and texts. `name` says what they were drawn from and is part of every cache's key."""

    generator: Generator
    name: str
    text_rows: int = TEXT_ROWS
    _edits: tuple[BenchmarkFact, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        rephrasable = tuple(edit for edit in self.generator.sources.edits if len(edit.questions) > 1)
        object.__setattr__(self, "_edits", rephrasable)

    @classmethod
    def load(cls, data: Path | None) -> LessonMaterial:
        """From the stock alone, or also from the training halves in `data` (`knowedit/`, `pararel/`, ...)."""
        training_sources = sources.load(data)
        return cls(
            Generator(training_sources),
            f"lessons-3 stock {len(training_sources.stock)} edits {len(training_sources.edits)}",
        )

    def lessons(self, rng: random.Random, count: int) -> list[Lesson]:
        """Half of the training halves where given, else about the stock with counterfactual targets.

        The rest is generated; with training halves, half of the rest is about the stock.
        """
        return [self._lesson(rng) for _ in range(count)]

    def benchmark_lesson(self, rng: random.Random) -> Lesson:
        """A fact of the benchmark's training half; without data a counterfactual of the stock."""
        return self._of_edits(rng) if self._edits else self._of_stock(rng)

    def _lesson(self, rng: random.Random) -> Lesson:
        roll = rng.random()
        if roll < 0.5:
            return self.benchmark_lesson(rng)
        return self._of_stock(rng) if roll < 0.75 and self._edits else self._invented(rng)

    def _of_stock(self, rng: random.Random) -> Lesson:
        stock = self.generator.sources.stock
        fact = rng.choice(stock)
        others = [
            other.target for other in stock if other.relation == fact.relation and other.target != fact.target
        ]
        questions = rng.sample(fact.questions, min(3, len(fact.questions)))
        target = rng.choice(others or [fact.target])
        return Lesson(
            EditRequest(fact.subject, questions[0], target), tuple(questions[1:]), self._unrelated(rng, fact)
        )

    def _of_edits(self, rng: random.Random) -> Lesson:
        record = rng.choice(self._edits)
        questions = rng.sample(record.questions, min(3, len(record.questions)))
        request = EditRequest(record.subject, questions[0], record.target)
        return Lesson(request, tuple(questions[1:]), self._unrelated(rng))

    def _invented(self, rng: random.Random) -> Lesson:
        """A row of one fact; its subject is not told apart, and no method that learns needs it."""
        row = self.generator.rows(rng, (("single", 1.0),), 1)[0]
        questions = [turn.user for turn in row.turns]
        request = EditRequest("", questions[0], row.turns[0].answer)
        return Lesson(request, tuple(questions[1:]), self._unrelated(rng))

    def _unrelated(self, rng: random.Random, fact: StockFact | None = None) -> tuple[str, str]:
        """A remembered fact: now and then of the same subject or relation, else any."""
        stock = self.generator.sources.stock
        near: Sequence[StockFact] = ()
        if fact is not None and rng.random() < 0.5:
            near = [other for other in stock if other is not fact and _near(other, fact)]
        chosen = rng.choice(near or stock)
        return rng.choice(chosen.questions), chosen.target

    def texts(self, base: BaselineModel) -> Iterator[Sequence[int]]:
        """Questions with their answers as the base is asked, some behind a passage: for key statistics.

        Those that are too long for the model's context are left out.
        """
        rng = random.Random("texts")
        for row in self.generator.rows(rng, TEXT_KINDS, self.text_rows):
            turn = row.turns[0]
            question = f"{' '.join(row.facts)} {turn.user}" if row.facts else turn.user
            try:
                sample = reading.sample(base, question, turn.answer, end=True)
            except BadRequest:
                continue
            yield (*sample.prompt, *sample.target)


def _near(other: StockFact, fact: StockFact) -> bool:
    """Same subject with another relation, or same relation with another subject."""
    return (other.subject == fact.subject) != (other.relation == fact.relation)
