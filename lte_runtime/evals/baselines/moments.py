"""Second moments C = E[k k'] of the keys of a layer, estimated from texts and kept on disk."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import torch
from safetensors.torch import load, save
from torch import Tensor

from lte_runtime.errors import BadRequest
from lte_runtime.evals.baselines.base import ROWS, Base
from lte_runtime.evals.baselines.network import keys, width

Texts = Callable[[], Iterable[Sequence[int]]]
"""Gives the texts from the start, each as token ids."""
Progress = Callable[[str, int, int], None]
"""Called as `progress(what, done, total)`; a total of 0 is not known."""


def estimate(
    base: Base, layers: Sequence[int], texts: Iterable[Sequence[int]], progress: Progress
) -> dict[int, Tensor]:
    """Layer to C [width, width] in float32: the mean over all tokens of all texts, summed in float64."""
    sums = {
        layer: torch.zeros(width(base.model, layer), width(base.model, layer)).double() for layer in layers
    }
    tokens = 0
    for done, chunk in enumerate(_batches(texts, base.context), start=1):
        real = torch.cat([torch.arange(len(row)) + at * max(map(len, chunk)) for at, row in enumerate(chunk)])
        for layer, found in keys(base, chunk, layers).items():
            flat = found.flatten(0, 1)[real].double()
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


def _silent(_what: str, _done: int, _total: int) -> None:
    """Nobody watches."""


class Moments:
    """C of each layer, from disk where it is there and sound, else estimated and written.

    Files carry the hash of the base and `source`, a short name of the texts that must change when they do.
    """

    def __init__(
        self, base: Base, texts: Texts, *, source: str, directory: Path, progress: Progress | None = None
    ) -> None:
        self._base = base
        self._texts = texts
        self._source = source
        self._directory = directory
        self._progress = progress or _silent

    def get(self, layers: Sequence[int]) -> dict[int, Tensor]:
        """Layer to C; all that are missing are estimated in one pass over the texts."""
        found = {layer: _read(self._path(layer)) for layer in layers}
        missing = [layer for layer, moment in found.items() if moment is None]
        if missing:
            made = estimate(self._base, missing, self._texts(), self._progress)
            for layer, moment in made.items():
                _write(self._path(layer), moment)
            found.update(made)
        return {layer: moment for layer, moment in found.items() if moment is not None}

    def _path(self, layer: int) -> Path:
        name = hashlib.sha256(f"{self._base.fingerprint} {self._source}".encode()).hexdigest()[:24]
        return self._directory / f"moment-{name}-layer{layer:03d}.safetensors"


def _manifest(path: Path) -> Path:
    return path.with_suffix(".json")


def _read(path: Path) -> Tensor | None:
    """None for what is missing and for what is not the bytes that were written: both are made anew."""
    try:
        stated = json.loads(_manifest(path).read_bytes())["sha256"]
        content = path.read_bytes()
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
    if hashlib.sha256(content).hexdigest() != stated:
        return None
    return load(content)["moment"]


def _write(path: Path, moment: Tensor) -> None:
    """The tensor first, the manifest last, each appearing whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = save({"moment": moment.contiguous()})
    _replace(path, content)
    _replace(_manifest(path), json.dumps({"sha256": hashlib.sha256(content).hexdigest()}).encode())


def _replace(path: Path, content: bytes) -> None:
    scratch = path.with_name(f"{path.name}.{os.getpid()}.part")
    scratch.write_bytes(content)
    scratch.replace(path)
