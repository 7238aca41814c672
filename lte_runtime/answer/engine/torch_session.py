"""The cache of a Hugging Face causal model: left padding, and a mask only where rows differ in length."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

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


class TorchSession:
    """See `greedy.Session`. Without padding no mask is made, as for a prompt alone."""

    def __init__(self, forward: Forward, config: Any, device: torch.device) -> None:
        self._forward = forward
        self._device = device
        self._cache = DynamicCache(config=config)
        self._mask: torch.Tensor | None = None
        self._started = False

    @property
    def crops(self) -> bool:
        return all(type(layer) is DynamicLayer for layer in self._cache.layers)

    def extend(self, tokens: Sequence[Sequence[int]], scores: int = 1) -> torch.Tensor:
        ids, read = left_pad(tokens, self._device)
        if self._mask is not None:
            self._mask = torch.cat([self._mask, read], dim=1)
        elif not self._started and len(set(map(len, tokens))) > 1:
            self._mask = read
        self._started = True
        output = self._forward(
            input_ids=ids,
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=scores,
            **self._padding(ids.shape[1]),
        )
        logits: torch.Tensor = output.logits
        return logits

    def _padding(self, width: int) -> dict[str, torch.Tensor]:
        """Mask and positions of the last `width` tokens; nothing for rows of one length."""
        if self._mask is None:
            return {}
        positions = (self._mask.cumsum(-1) - 1).clamp(min=0)[:, -width:]
        return {"attention_mask": self._mask, "position_ids": positions}

    def crop(self, count: int) -> None:
        self._cache.crop(-count)
        if self._mask is not None:
            self._mask = self._mask[:, :-count]

    def keep(self, indices: Sequence[int]) -> None:
        index = torch.tensor(indices, device=self._device)
        self._cache.batch_select_indices(index)
        if self._mask is not None:
            self._mask = self._mask[index]
