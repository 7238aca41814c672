"""Greedy decoding over any Hugging Face causal model, row by row exact or batched with left padding.

`transformers.generate` spends about a fifth of a small model's answer in its own bookkeeping; this loop does
prefill, argmax and the cache, nothing else, and drops a row from the batch when it ends.
"""

from __future__ import annotations

import inspect
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from lte_runtime.answer.engine import lookup
from lte_runtime.answer.engine.rows import GenerationRow

COPY_FROM = math.log(1 / 100)
"""Log of the share of the likeliest token's probability from which the next token of a value is taken.

A small model finds rare signs ("<|im_end|>") a little less likely than common ones, though it copies."""

Forward = Callable[..., Any]
"""The model's forward, with the adapter on or off already chosen."""


def takes_padding(model: torch.nn.Module) -> bool:
    """Whether rows of unlike length can share a batch: positions must be ours to set."""
    return "position_ids" in inspect.signature(model.forward).parameters


def left_pad(prompts: Sequence[Sequence[int]], device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and mask, both [rows, longest]; pads are token 0 and masked out."""
    longest = max(map(len, prompts))
    ids = [[0] * (longest - len(prompt)) + list(prompt) for prompt in prompts]
    mask = [[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts]
    return torch.tensor(ids, device=device), torch.tensor(mask, device=device)


class _Batch:
    """The rows under way with their cache. Without padding no mask is made, as for a prompt alone."""

    def __init__(
        self, forward: Forward, config: Any, rows: Sequence[GenerationRow], device: torch.device
    ) -> None:
        prompts = [row.request.token_ids for row in rows]
        self.rows = list(rows)
        self._forward = forward
        self._cache = DynamicCache(config=config)
        self._inputs, mask = left_pad(prompts, device)
        self._mask = mask if len(set(map(len, prompts))) > 1 else None
        self._positions = None if self._mask is None else (mask.cumsum(-1) - 1).clamp(min=0)

    def step(self) -> list[int]:
        """One token for each row."""
        padding = (
            {} if self._mask is None else {"attention_mask": self._mask, "position_ids": self._positions}
        )
        logits = self._forward(
            input_ids=self._inputs, past_key_values=self._cache, use_cache=True, logits_to_keep=1, **padding
        ).logits[:, -1]
        likeliest = logits.argmax(-1).tolist()
        chosen = [_chosen(*of_row) for of_row in zip(self.rows, logits, likeliest, strict=True)]
        self._inputs = torch.tensor(chosen, device=logits.device)[:, None]
        if self._mask is not None and self._positions is not None:
            self._mask = torch.cat([self._mask, self._mask.new_ones(len(self.rows), 1)], dim=1)
            self._positions = self._positions[:, -1:] + 1
        return chosen

    def keep(self, indices: Sequence[int]) -> None:
        """Drops all other rows."""
        self.rows = [self.rows[index] for index in indices]
        index = torch.tensor(indices, device=self._inputs.device)
        self._cache.batch_select_indices(index)
        self._inputs = self._inputs[index]
        if self._mask is not None and self._positions is not None:
            self._mask, self._positions = self._mask[index], self._positions[index]


def generate(
    forward: Forward,
    config: Any,
    rows: Sequence[GenerationRow],
    device: torch.device,
    settled: Callable[[GenerationRow], None],
) -> None:
    """Generates for all rows at once; calls `settled` as each one ends."""
    batch = _Batch(forward, config, rows, device)
    while batch.rows:
        tokens = batch.step()
        now = time.monotonic()
        for row, token in zip(batch.rows, tokens, strict=True):
            row.push(token)
            row.interrupt(now)
            if row.finish:
                settled(row)
        alive = [index for index, row in enumerate(batch.rows) if not row.finish]
        if len(alive) < len(batch.rows):
            batch.keep(alive) if alive else batch.rows.clear()


def generate_copying(
    forward: Forward,
    config: Any,
    row: GenerationRow,
    device: torch.device,
    settled: Callable[[GenerationRow], None],
    words: Mapping[int, int],
) -> None:
    """Generates for one row, checking guesses from its prompt (`lookup`) several tokens at a time.

    Greedy as ever, but a pass over several tokens rounds its last bits in another way: not for base rows.
    """
    cache = DynamicCache(config=config)
    prompt = list(row.request.token_ids)
    pending, guessed = prompt, list[int]()
    while not row.finish:
        logits = forward(
            input_ids=torch.tensor([pending + guessed], device=device),
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=len(guessed) + 1,
        ).logits[0]
        refuted = _take(row, logits, guessed)
        row.interrupt(time.monotonic())
        if refuted:
            cache.crop(-refuted)
        pending, room = row.tokens[-1:], row.request.max_new_tokens - len(row.tokens) - 1
        copies = room > 0 and all(type(layer) is DynamicLayer for layer in cache.layers)
        guessed = lookup.guess(prompt + row.tokens, words, min(room, lookup.MOST)) if copies else []
    settled(row)


def _take(row: GenerationRow, logits: torch.Tensor, guessed: Sequence[int]) -> int:
    """Gives the row its tokens up to the first that was guessed wrong; returns the guesses left over."""
    for index, (scores, best) in enumerate(zip(logits, logits.argmax(-1).tolist(), strict=True)):
        token = _chosen(row, scores, best)
        row.push(token)
        if row.finish or index == len(guessed) or token != guessed[index]:
            return len(guessed) - index
    return 0


def _chosen(row: GenerationRow, scores: torch.Tensor, best: int) -> int:
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
