"""Second moments C = E[k k'] of the keys of a layer, estimated from texts and kept on disk."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from lte_runtime.errors import BadRequest
from lte_runtime.progress import Progress, silent
from ops.lab.baselines import tensor_cache
from ops.lab.baselines.base import ROWS, BaselineModel
from ops.lab.baselines.network import keys, width

Texts = Callable[[], Iterable[Sequence[int]]]
"""Gives the texts from the start, each as token ids."""


def estimate(
    base: BaselineModel, layers: Sequence[int], texts: Iterable[Sequence[int]], progress: Progress
) -> dict[int, Tensor]:
    """Layer to C [width, width] in float32: the mean over all tokens of all texts, summed in float64."""
    sums = {
        layer: torch.zeros(width(base.model, layer), width(base.model, layer)).double() for layer in layers
    }
    tokens = 0
    for done, chunk in enumerate(_batches(texts, base.context), start=1):
        real = torch.cat([torch.arange(len(row)) + at * max(map(len, chunk)) for at, row in enumerate(chunk)])
        for layer, layer_keys in keys(base, chunk, layers).items():
            flat = layer_keys.flatten(0, 1)[real].double()
            sums[layer].addmm_(flat.T, flat)
        tokens += len(real)
        progress("batches of texts for key statistics", done, 0)
    if not tokens:
        raise BadRequest("key statistics need at least one text that is not empty")
    return {layer: (total / tokens).float() for layer, total in sums.items()}


def _batches(texts: Iterable[Sequence[int]], longest: int) -> Iterator[list[Sequence[int]]]:
    rows = (text[:longest] for text in texts if len(text))
    while chunk := list(itertools.islice(rows, ROWS)):
        yield chunk


class Moments:
    """C of each layer, from disk where it is there and sound, else estimated and written.

    Files carry the hash of the base and `source`, a short name of the texts that must change when they do.
    """

    def __init__(
        self, base: BaselineModel, texts: Texts, *, source: str, directory: Path, progress: Progress = silent
    ) -> None:
        self._base = base
        self._texts = texts
        self._source = source
        self._directory = directory
        self._progress = progress

    def get(self, layers: Sequence[int]) -> dict[int, Tensor]:
        """Layer to C; all that are missing are estimated in one pass over the texts."""
        cached = {layer: tensor_cache.read(self._path(layer)) for layer in layers}
        moments = {layer: tensors["moment"] for layer, tensors in cached.items() if tensors}
        missing = [layer for layer in layers if layer not in moments]
        if missing:
            estimated = estimate(self._base, missing, self._texts(), self._progress)
            for layer, moment in estimated.items():
                tensor_cache.write(self._path(layer), {"moment": moment})
            moments.update(estimated)
        return moments

    def _path(self, layer: int) -> Path:
        name = tensor_cache.name_of(self._base.fingerprint, self._source)
        return self._directory / f"moment-{name}-layer{layer:03d}.safetensors"
