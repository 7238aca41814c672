"""Examples of the first adapter: questions over the stream's facts, and questions out of scope."""

from __future__ import annotations

import random
from collections.abc import Mapping

from lte_runtime.align.dataset import Example
from lte_runtime.embedded.generator import Generator

IN_SCOPE = (
    ("single", 0.24),
    ("reading", 0.28),
    ("edit", 0.24),
    ("two_hop", 0.12),
    ("recall", 0.04),
    ("stock", 0.08),
)


def in_scope(generator: Generator, rng: random.Random, count: int) -> list[Example]:
    """Questions about the given facts: verbatim, in other words, by alias, or over two facts."""
    rows = generator.rows(rng, IN_SCOPE, count)
    examples = []
    for row in rows:
        turn = rng.choice(row.turns)
        examples.append(Example(turn.user, row.facts, turn.answer))
    return examples


def out_of_scope(
    generator: Generator, rng: random.Random, own: Mapping[str, str], count: int, without: float = 0.3
) -> list[Example]:
    """Questions with unrelated facts, or none: the answer is the base's `own`."""
    questions = list(own)
    examples: list[Example] = []
    for row in generator.rows(rng, IN_SCOPE, count):
        question = rng.choice(questions)
        facts = () if rng.random() < without else row.facts[: rng.randint(1, 2)]
        examples.append(Example(question, facts, own[question]))
    return examples


def open_questions(generator: Generator, rng: random.Random, count: int) -> list[str]:
    """Questions about the stock. What the base invents about unknown things would be learned as noise."""
    return [rng.choice(fact.questions) for fact in rng.sample(generator.sources.stock, count)]
