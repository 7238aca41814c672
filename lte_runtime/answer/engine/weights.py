"""Tensors of a base model and LoRA halves, read from safetensors into float32 arrays, without torch."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lte_runtime.answer.engine.files import DTYPES, LORA_NAME, Lora, Tensor, means, read_tensor, read_tensors
from lte_runtime.answer.engine.pace import at_once
from lte_runtime.errors import Damaged, Refused

Array = npt.NDArray[np.float32]
Halves = dict[str, tuple[Array, Array]]
"""Module name -> (A [rank, in], B [out, rank])."""
MOST_HEADER_BYTES = 64 << 20


class BaseWeights:
    """The tensors of a directory's safetensors files; nothing is read before `read`. Thread-safe."""

    def __init__(self, directory: Path) -> None:
        """Raises `Damaged` for a file without a header, `Refused` for a dtype that is not read."""
        self._tensors: dict[str, tuple[Path, Tensor]] = {}
        for path in sorted(directory.glob("*.safetensors")):
            self._tensors |= {name: (path, tensor) for name, tensor in _header(path).items()}

    @property
    def names(self) -> frozenset[str]:
        return frozenset(self._tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        return self._tensors[name][1].shape

    def read(self, name: str) -> Array:
        """A tensor; raises `Damaged` unless it is finite and whole."""
        path, tensor = self._tensors[name]
        try:
            with path.open("rb") as file:
                return read_tensor(file, tensor)
        except (Damaged, ValueError) as error:
            raise Damaged(f"tensor {name} of {path.name}: {error}") from error


def _header(path: Path) -> dict[str, Tensor]:
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 0 < length <= min(MOST_HEADER_BYTES, path.stat().st_size - 8):
            raise Damaged(f"{path.name} has no valid header")
        try:
            entries = json.loads(file.read(length))
            entries.pop("__metadata__", None)
            return {name: _tensor(name, entry, 8 + length) for name, entry in entries.items()}
        except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
            raise Damaged(f"the header of {path.name} cannot be read: {error}") from error


def _tensor(name: str, entry: Mapping[str, Any], data: int) -> Tensor:
    dtype, shape, (begin, _end) = entry["dtype"], entry["shape"], entry["data_offsets"]
    if dtype not in DTYPES:
        raise Refused(f"tensor {name} has dtype {dtype}: OpenVINO reads {', '.join(DTYPES)}")
    return Tensor(str(dtype), tuple(map(int, shape)), data + int(begin))


def read_halves(
    lora: Lora, linears: Mapping[str, tuple[int, ...]], pace: Callable[[], None] = at_once
) -> Halves:
    """The adapter's tensors, after `verify_adapter`; `linears` are the modules that an adapter may change,
    with the shapes [out, in] of their weights.

    Raises `Refused` when they do not fit, `Damaged` when they are not finite.
    """
    halves: dict[str, dict[str, Array]] = {}
    for name, array in read_tensors(lora, pace).items():
        if match := LORA_NAME.fullmatch(name):
            halves.setdefault(match["module"], {})[match["half"]] = array
    targets = {module for module in linears if means(lora.targets, module)}
    if halves.keys() != targets:
        odd = sorted(halves.keys() ^ targets)
        raise Refused(f"adapter {lora.ref.id} and the base disagree on {len(odd)} modules, first {odd[0]}")
    for module, pair in halves.items():
        rows, columns = linears[module]
        shapes = {half: array.shape for half, array in pair.items()}
        if shapes != {"A": (lora.rank, columns), "B": (rows, lora.rank)}:
            raise Refused(f"adapter {lora.ref.id} has shapes {shapes} for {module}")
    return {module: (pair["A"], pair["B"]) for module, pair in halves.items()}
