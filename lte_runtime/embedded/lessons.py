"""Examples of the first adapter: questions over the stream's facts, and questions out of scope."""

from __future__ import annotations

import random
from collections.abc import Mapping

from lte_runtime.align.dataset import Example
from lte_runtime.embedded.generator import Generator

IN_SCOPE = (("single", 0.32), ("reading", 0.22), ("edit", 0.30), ("two_hop", 0.13), ("recall", 0.03))


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
    """Questions that need no fact: half about the stock, half about things that the base never heard of."""
    known = [rng.choice(fact.questions) for fact in rng.sample(generator.sources.stock, count // 2)]
    rows = generator.rows(rng, (("reading", 1.0),), count - len(known))
    return known + [row.turns[0].user for row in rows]
