"""Greedy answers that an alignment recorded, by which a server that hides its weights is recognised. Pure.

A manifest holds them under `greedy_answers`: {"base": [{"prompt": ids, "answer": ids}, ...], "adapter": ...}.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from lte_runtime.errors import Damaged

KEY, BASE, ADAPTER = "greedy_answers", "base", "adapter"
MOST_ANSWERS, MOST_TOKENS = 32, 4096
"""Bounds of what is read of a manifest: each answer is a call at each load."""
LEAST_AGREEMENT = 0.5
"""Share of the recorded tokens that the right model gives at least: other kernels and rounded weights change
some (docs/decisions/018-vllm.md has figures), another model has few in common."""


@dataclass(frozen=True, slots=True)
class GreedyAnswer:
    """Token ids of a prompt, and of what the model says to it."""

    prompt: tuple[int, ...]
    answer: tuple[int, ...]

    def to_json(self) -> dict[str, list[int]]:
        return {"prompt": list(self.prompt), "answer": list(self.answer)}


def recorded(manifest: Mapping[str, Any], arm: str) -> tuple[GreedyAnswer, ...]:
    """Those of `BASE` or `ADAPTER`; empty in manifests of before. Raises `Damaged` for what is none."""
    try:
        entries = manifest.get(KEY, {}).get(arm, ())[:MOST_ANSWERS]
        answers = tuple(GreedyAnswer(_ids(entry["prompt"]), _ids(entry["answer"])) for entry in entries)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise Damaged(f"the manifest's {KEY} are malformed: {error}") from error
    if any(not answer.prompt or not answer.answer for answer in answers):
        raise Damaged(f"the manifest's {KEY} hold an empty prompt or answer")
    return answers


def _ids(values: Sequence[int]) -> tuple[int, ...]:
    if len(values) > MOST_TOKENS or any(type(value) is not int or value < 0 for value in values):
        raise ValueError("token ids are expected")
    return tuple(values)


def agreement(expected: Sequence[GreedyAnswer], answers: Sequence[Sequence[int]]) -> float:
    """Mean share of each expected answer up to its first other token, in [0, 1]."""
    pairs = zip(expected, answers, strict=True)
    return sum(_common(item.answer, answer) / len(item.answer) for item, answer in pairs) / len(expected)


def _common(expected: Sequence[int], answer: Sequence[int]) -> int:
    """How many tokens the two begin with alike."""
    alike = (left == right for left, right in zip(expected, answer, strict=False))
    return sum(1 for _ in takewhile(bool, alike))
