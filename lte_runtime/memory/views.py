"""Views to vectors: in batches, and text by text where a batch fails, so that one bad text stops no other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lte_runtime.types import Encoder, Vectors


@dataclass(frozen=True, slots=True)
class Encoded:
    """Vectors [dimension] and failures by the hash of the view."""

    vectors: Mapping[bytes, Vectors]
    failed: Mapping[bytes, str]


def encode_views(views: Mapping[bytes, str], encoder: Encoder, batch: int) -> Encoded:
    """Encode every view once; `failed` tells which the encoder refuses."""
    vectors: dict[bytes, Vectors] = {}
    failed: dict[bytes, str] = {}
    names = list(views)
    for start in range(0, len(names), batch):
        part = names[start : start + batch]
        rows = _encode([views[name] for name in part], encoder)
        for name, row in zip(part, rows, strict=True):
            if isinstance(row, str):
                failed[name] = row
            else:
                vectors[name] = row
    return Encoded(vectors, failed)


def _encode(texts: Sequence[str], encoder: Encoder) -> list[Vectors | str]:
    try:
        made = encoder.encode(texts)
    except ValueError as error:
        if len(texts) == 1:
            return [f"the encoder refuses the text: {str(error)[:200]}"]
        return [row for text in texts for row in _encode([text], encoder)]
    return [row if _usable(row) else "the encoder made no unit vector" for row in made]


def _usable(row: Vectors) -> bool:
    return bool(np.isfinite(row).all() and abs(float(row @ row) - 1.0) < 1e-2)
