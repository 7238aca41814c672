"""From token vectors to sentence vectors: the poolings of sentence-transformers, in numpy and float32."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from lte_runtime.types import Vectors

Mask = npt.NDArray[np.float32]


def pool(tokens: Vectors, mask: Mask, modes: Sequence[str]) -> Vectors:
    """Pool `tokens` [n, length, d] where `mask` [n, length] is 1; several modes are put side by side."""
    parts = [_pool(tokens, mask, mode) for mode in modes]
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)


def normalised(rows: Vectors) -> Vectors:
    """Rows scaled to unit length; raises ValueError for one that has none or is not finite."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    if not (np.isfinite(lengths) & (lengths > 0)).all():
        raise ValueError("the encoder gave a zero or infinite vector for a text")
    return np.asarray(rows / lengths, np.float32)


def _pool(tokens: Vectors, mask: Mask, mode: str) -> Vectors:
    if mode == "cls":
        return _at(tokens, mask.argmax(axis=1))
    if mode == "lasttoken":
        return _at(tokens, mask.shape[1] - 1 - mask[:, ::-1].argmax(axis=1))
    if mode == "max":
        return np.asarray(np.where(mask[..., None] > 0, tokens, -np.inf).max(axis=1), np.float32)
    weights = mask * np.arange(1, mask.shape[1] + 1, dtype=np.float32) if mode == "weightedmean" else mask
    totals = (weights[:, None, :] @ tokens)[:, 0]
    counts = weights.sum(axis=1, keepdims=True)
    return np.asarray(totals / (np.sqrt(counts) if mode == "mean_sqrt_len_tokens" else counts), np.float32)


def _at(tokens: Vectors, places: npt.NDArray[np.intp]) -> Vectors:
    return tokens[np.arange(len(tokens)), places]
