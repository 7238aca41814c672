"""Examples of the first adapter: questions over the stream's facts, and questions out of scope."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence

from lte_runtime.align.data.dataset import Example
from ops.lab.recipes.generator import Generator
from ops.lab.recipes.rows import PLACE

IN_SCOPE = (
    ("single", 0.20),
    ("reading", 0.24),
    ("edit", 0.22),
    ("chain", 0.10),
    ("compose", 0.05),
    ("drill", 0.08),
    ("recall", 0.04),
    ("stock", 0.07),
)

Decode = Callable[[Sequence[int]], str]


def in_scope(generator: Generator, rng: random.Random, count: int, decode: Decode) -> list[Example]:
    """Questions about the given facts: verbatim, in other words, by alias, or over two facts."""
    rows = generator.rows(rng, IN_SCOPE, count)
    examples = []
    for row in rows:
        turn = rng.choice(row.turns)
        texts = [spelled(text, row.pieces, decode) for text in (turn.user, turn.answer, *row.facts)]
        if all(texts):
            examples.append(Example(texts[0], tuple(texts[2:]), texts[1]))
    return examples


def spelled(text: str, pieces: Sequence[tuple[int, ...]], decode: Decode) -> str:
    """The text with its pieces as text; empty where a piece is no text."""
    for index, piece in enumerate(pieces):
        if chr(PLACE + index) in text:
            word = decode(piece).strip()
            if not word or "\ufffd" in word or "\n" in word:
                return ""
            text = text.replace(chr(PLACE + index), word)
    return text


def out_of_scope(
    generator: Generator,
    rng: random.Random,
    base_answers: Mapping[str, str],
    count: int,
    factless_share: float = 0.3,
) -> list[Example]:
    """Questions with unrelated facts, or none: the answer is the base's own, out of `base_answers`."""
    questions = list(base_answers)
    examples: list[Example] = []
    for row in generator.rows(rng, [kind for kind in IN_SCOPE if kind[0] != "drill"], count):
        question = rng.choice(questions)
        facts = () if rng.random() < factless_share else row.facts[: rng.randint(1, 2)]
        examples.append(Example(question, facts, base_answers[question]))
    return examples


def open_questions(generator: Generator, rng: random.Random, count: int) -> list[str]:
    """Questions about the stock. What the base invents about unknown things would be learned as noise."""
    return [rng.choice(fact.questions) for fact in rng.sample(generator.sources.stock, count)]
