"""Greedy decoding over any causal model, row by row exact or batched. Knows no library of models.

`transformers.generate` spends about a fifth of a small model's answer in its own bookkeeping; this loop does
prefill, argmax and the cache, nothing else, and drops a row from the batch when it ends.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from lte_runtime.answer.engine import lookup
from lte_runtime.answer.engine.rows import GenerationRow

COPY_FROM = math.log(1 / 100)
"""Log of the share of the likeliest token's probability from which the next token of a value is taken.

A small model finds rare signs ("<|im_end|>") a little less likely than common ones, though it copies."""


class Session(Protocol):
    """Rows of tokens that a model has read, kept in its cache; used by one thread."""

    @property
    def crops(self) -> bool:
        """Whether `crop` works; known once something was read."""
        ...

    def extend(self, tokens: Sequence[Sequence[int]], scores: int = 1) -> Any:
        """Reads more tokens of each row; first ones of unlike length are padded where the model takes that.

        Returns the logits behind the last `scores` of them, [rows, scores, vocabulary], a tensor or an array.
        """
        ...

    def crop(self, count: int) -> None:
        """Forgets the last `count` tokens of each row."""
        ...

    def keep(self, indices: Sequence[int]) -> None:
        """Drops all other rows."""
        ...


def generate(
    session: Session, rows: Sequence[GenerationRow], settled: Callable[[GenerationRow], None]
) -> None:
    """Generates for all rows at once; calls `settled` as each one ends."""
    rows = list(rows)
    inputs: list[Sequence[int]] = [row.request.token_ids for row in rows]
    while rows:
        logits = session.extend(inputs)[:, -1]
        likeliest = logits.argmax(-1).tolist()
        chosen = [_chosen(*of_row) for of_row in zip(rows, logits, likeliest, strict=True)]
        now = time.monotonic()
        for row, token in zip(rows, chosen, strict=True):
            row.push(token)
            row.interrupt(now)
            if row.finish:
                settled(row)
        alive = [index for index, row in enumerate(rows) if not row.finish]
        if alive and len(alive) < len(rows):
            session.keep(alive)
        rows = [rows[index] for index in alive]
        inputs = [row.tokens[-1:] for row in rows]


def generate_copying(
    session: Session,
    row: GenerationRow,
    settled: Callable[[GenerationRow], None],
    words: Mapping[int, int],
) -> None:
    """Generates for one row, checking guesses from its prompt (`lookup`) several tokens at a time.

    Greedy as ever, but a pass over several tokens rounds its last bits in another way: not for base rows.
    """
    prompt = list(row.request.token_ids)
    pending, guessed = prompt, list[int]()
    while not row.finish:
        logits = session.extend([pending + guessed], len(guessed) + 1)[0]
        refuted = _take(row, logits, guessed)
        row.interrupt(time.monotonic())
        if refuted:
            session.crop(refuted)
        pending, room = row.tokens[-1:], row.request.max_new_tokens - len(row.tokens) - 1
        copies = room > 0 and session.crops
        guessed = lookup.guess(prompt + row.tokens, words, min(room, lookup.MOST)) if copies else []
    settled(row)


def _take(row: GenerationRow, logits: Any, guessed: Sequence[int]) -> int:
    """Gives the row its tokens up to the first that was guessed wrong; returns the guesses left over."""
    for index, (scores, best) in enumerate(zip(logits, logits.argmax(-1).tolist(), strict=True)):
        token = _chosen(row, scores, best)
        row.push(token)
        if row.finish or index == len(guessed) or token != guessed[index]:
            return len(guessed) - index
    return 0


def _chosen(row: GenerationRow, scores: Any, best: int) -> int:
    """The likeliest token, or the next one of the value that the answer has begun to spell (`COPY_FROM`).

    `scores` are the logits [vocabulary] behind the row's tokens.
    """
    copied = row.copied
    if copied is None or float(scores[copied] - scores[best]) < COPY_FROM:
        return best
    return copied


def by_length(rows: Sequence[GenerationRow]) -> list[list[GenerationRow]]:
    """Rows of equal prompt length together: for models whose positions cannot be set."""
    groups: dict[int, list[GenerationRow]] = {}
    for row in rows:
        groups.setdefault(len(row.request.token_ids), []).append(row)
    return list(groups.values())
