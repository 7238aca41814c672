"""How much of the truth an index finds: recall@k against reading every row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from lte_runtime.types import Vectors

_SLICE = 1000


class Searchable(Protocol):
    """What is needed of an index; `vectors` gives copies of live rows."""

    def ids(self) -> list[int]: ...

    def vectors(self, ids: Sequence[int]) -> tuple[list[int], Vectors]: ...

    def search(self, vector: Vectors, k: int) -> tuple[list[int], list[float], str]: ...


def recall(index: Searchable, sample: Vectors, k: int) -> float:
    """Share of the best `k` that search finds for the sample [n, dimension]; 1.0 when there is nothing.

    A hit has a score of at least the exact k-th less 1e-6: ties are nobody's fault. Rows are read in slices,
    so that the check of a large index stops no change; what changes meanwhile blurs the figure.
    """
    exact = _exact_scores(index, sample, k)
    if not exact.size:
        return 1.0
    count = int(exact.shape[1])
    score_lists = [index.search(row[None], count)[1] for row in sample]
    hits = sum(
        bool(score >= bar - 1e-6)
        for bar, scores in zip(exact[:, -1], score_lists, strict=True)
        for score in scores
    )
    return hits / (count * len(sample))


def _exact_scores(index: Searchable, sample: Vectors, k: int) -> Vectors:
    """The best `k` scores of each row of the sample [n, min(k, live)], descending."""
    best = np.empty((len(sample), 0), np.float32)
    ids = index.ids()
    for start in range(0, len(ids), _SLICE):
        scores = sample @ index.vectors(ids[start : start + _SLICE])[1].T
        best = -np.sort(-np.concatenate([best, scores], axis=1), axis=1)[:, :k]
    return best
