"""Asking many probes through the real answerer, from several threads so that the engine can batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from lte_runtime.answer.answerer import Answerer
from lte_runtime.progress import Progress
from lte_runtime.types import Answer, Question, ScopeMode

ANSWER_TOKENS = 64
"""Of each answer: of ten first sentences of SmolLM2 32 tokens cut two, 64 none."""


@dataclass(frozen=True, slots=True)
class Arms:
    """The answerer under test, and how many threads ask at once."""

    answerer: Answerer
    threads: int = 8
    max_new_tokens: int = ANSWER_TOKENS


def ask_all(
    arms: Arms, questions: Sequence[str], progress: Progress, what: str, *, scope: ScopeMode = ScopeMode.AUTO
) -> Mapping[str, Answer]:
    """The answer to each distinct question."""
    distinct = list(dict.fromkeys(questions))

    def ask(text: str) -> Answer:
        return arms.answerer.answer(Question(text, max_new_tokens=arms.max_new_tokens, scope=scope))

    answers: dict[str, Answer] = {}
    with ThreadPoolExecutor(arms.threads) as pool:
        for done, (text, answer) in enumerate(zip(distinct, pool.map(ask, distinct), strict=True), start=1):
            answers[text] = answer
            progress(what, done, len(distinct))
    return answers
