"""Rows of an alignment run: prompts in the Learning-to-Edit form, labels on the answer alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lte_runtime.answer import prompt

IGNORED = -100


@dataclass(frozen=True, slots=True)
class Example:
    """A question with the facts given to it (best first, possibly none) and the answer to learn."""

    question: str
    facts: tuple[str, ...]
    answer: str


@dataclass(frozen=True, slots=True)
class Encoded:
    """Ids of prompt and answer; `labels` are IGNORED on the prompt and the ids themselves on the answer."""

    input_ids: tuple[int, ...]
    labels: tuple[int, ...]

    @property
    def answer_length(self) -> int:
        return sum(label != IGNORED for label in self.labels)


def encode(tokenizer: Any, example: Example, max_tokens: int) -> Encoded:
    """The example as ids, its answer closed by an end token; `BadRequest` where the question is too long."""
    asked = prompt.build(tokenizer, example.question, example.facts, max_tokens=max_tokens).token_ids
    given = (*prompt.untrusted(tokenizer, example.answer), closing(tokenizer))
    return Encoded((*asked, *given), (*([IGNORED] * len(asked)), *given))


def closing(tokenizer: Any) -> int:
    """The id that ends an answer: what the chat template puts behind it, else the end-of-sequence token."""
    candidates = prompt.ends(tokenizer) - {tokenizer.eos_token_id}
    return min(candidates) if candidates else int(tokenizer.eos_token_id)


def by_length(rows: Sequence[Encoded], budget: int) -> list[list[int]]:
    """Indices of the rows in batches of like length, each at most `budget` tokens with its padding."""
    order = sorted(range(len(rows)), key=lambda index: len(rows[index].input_ids))
    batches: list[list[int]] = []
    for index in order:
        length = len(rows[index].input_ids)
        if not batches or (len(batches[-1]) + 1) * length > budget:
            batches.append([])
        batches[-1].append(index)
    return batches
