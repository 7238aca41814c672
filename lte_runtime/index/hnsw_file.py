"""The head of a hnswlib 0.8 file: what it says of itself, read before the library parses the rest."""

from __future__ import annotations

import struct
from pathlib import Path

from lte_runtime.errors import Damaged

# Six size_t: base offset, capacity, rows, bytes of a row, place of its label, place of its vector.
_HEAD = struct.Struct("<6Q")


def check_head(file: Path, dimension: int, count: int) -> None:
    """Raises `Damaged` unless the file holds `count` rows of `dimension`; hnswlib itself loads any."""
    with file.open("rb") as stream:
        head = stream.read(_HEAD.size)
    if len(head) < _HEAD.size:
        raise Damaged(f"{file.name} is too short")
    _, _, rows, _, label_at, data_at = _HEAD.unpack(head)
    width = (label_at - data_at) // 4
    if (rows, width) != (count, dimension):
        raise Damaged(f"{file.name} holds {rows} rows of {width}, not {count} of {dimension}")
