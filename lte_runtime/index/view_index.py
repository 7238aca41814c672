"""Nearest keys of one namespace, over a `VectorIndex` that knows no keys: a long view has several vectors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from lte_runtime.index.vector_index import VectorIndex
from lte_runtime.types import Vectors

MOST_WINDOWS = 16
"""Vectors of one view: a prompt of 8,192 letters needs about ten, and one event must not cost more than that
many. What stands behind them is not searched."""
_WINDOW = 1 << 48
"""The label of a key's first vector is the key's number; each further window adds this much to it."""


class ViewIndex:
    """A key is found by any window of its view, with its best score. Thread-safe as `VectorIndex` is."""

    def __init__(self, rows: VectorIndex) -> None:
        self.rows = rows
        self._windows: dict[int, int] = {}
        """How many windows a key has beyond the first, for the few keys that have more."""

    @property
    def live(self) -> int:
        """Vectors, not keys."""
        return self.rows.live

    @property
    def dead(self) -> int:
        return self.rows.dead

    @property
    def path(self) -> str:
        return self.rows.path

    def ids(self) -> list[int]:
        """Keys, each once."""
        return [label for label in self.rows.ids() if label < _WINDOW]

    def add(self, views: Mapping[int, Vectors]) -> None:
        """Store the vectors [windows, dimension] of each key; one that is there gets the new ones."""
        self.remove([key_id for key_id in views if key_id in self._windows])
        long = {key_id: len(view) - 1 for key_id, view in views.items() if len(view) > 1}
        labels = [label for key_id, view in views.items() for label in _labels(key_id, len(view) - 1)]
        self.rows.add(labels, np.concatenate(list(views.values())))
        self._windows |= long

    def remove(self, key_ids: Sequence[int]) -> None:
        """Forget keys; those that are not there are ignored."""
        if key_ids:
            self.rows.remove(self._labels_of(key_ids))
        for key_id in key_ids:
            self._windows.pop(key_id, None)

    def search(self, vector: Vectors, k: int) -> tuple[list[int], list[float], str]:
        """Keys and their best scores, best first, at most `k`; less only when there are no more."""
        wide = k
        while True:
            labels, scores, path = self.rows.search(vector, wide)
            best: dict[int, float] = {}
            for label, score in zip(labels, scores, strict=True):
                best.setdefault(label % _WINDOW, score)
            if len(best) >= k or len(labels) < wide or wide >= k * MOST_WINDOWS:
                return list(best)[:k], list(best.values())[:k], path
            wide *= 2

    def views(self, key_ids: Sequence[int]) -> dict[int, Vectors]:
        """The vectors [windows, dimension] of those keys that are live."""
        labels, vectors = self.rows.vectors(self._labels_of(key_ids))
        order = np.argsort(np.asarray(labels, np.int64), kind="stable")
        rows: dict[int, list[Vectors]] = {}
        for place in order:
            rows.setdefault(labels[place] % _WINDOW, []).append(vectors[place])
        return {key_id: np.stack(parts) for key_id, parts in rows.items()}

    def scores(self, key_ids: Sequence[int], vector: Vectors) -> dict[int, float]:
        """The best score of those keys that are live, for `vector` [dimension]."""
        labels, vectors = self.rows.vectors(self._labels_of(key_ids))
        cosines: list[float] = np.vecdot(vectors, vector).tolist()
        pairs = list(zip(cosines, labels, strict=True))
        if self._windows:
            pairs.sort()  # of a key's several scores the last one stays: the best
        return {label % _WINDOW: cosine for cosine, label in pairs}

    def recall(self, sample: Vectors, k: int) -> float:
        return self.rows.recall(sample, k)

    def needs_rebuild(self) -> bool:
        return self.rows.needs_rebuild()

    def rebuild(self) -> None:
        self.rows.rebuild()

    def save(self, directory: Path) -> None:
        self.rows.save(directory)

    def load(self, directory: Path) -> None:
        """As `VectorIndex.load`."""
        self.rows.load(directory)
        self._windows = {}
        for label in self.rows.ids():
            if label >= _WINDOW:
                self._windows[label % _WINDOW] = self._windows.get(label % _WINDOW, 0) + 1

    def _labels_of(self, key_ids: Iterable[int]) -> list[int]:
        more = self._windows
        if not more:
            return list(key_ids)
        return [label for key_id in key_ids for label in _labels(key_id, more.get(key_id, 0))]


def _labels(key_id: int, more: int) -> range:
    """One label for each window; `more` counts those beyond the first."""
    return range(key_id, key_id + more * _WINDOW + 1, _WINDOW)
