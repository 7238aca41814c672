"""Vectors in one contiguous matrix, searched by reading all of it: the path for small sets, the oracle."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from lte_runtime.errors import Damaged
from lte_runtime.types import Vectors

_FILE = "exact.npz"
_LEAST = 64
_SLICE = 1000


class Exportable(Protocol):
    """Rows that can be read: live ids, and copies of their vectors."""

    def ids(self) -> list[int]: ...

    def export(self, ids: Sequence[int]) -> tuple[list[int], Vectors]: ...


def scan(rows: Exportable, vector: Vectors, k: int) -> tuple[list[int], list[float]]:
    """The best `k` by reading every live vector in slices, whatever holds them: slow, and right."""
    ids = rows.ids()
    parts = [rows.export(ids[start : start + _SLICE]) for start in range(0, len(ids), _SLICE)]
    keys = np.concatenate([np.asarray(part_ids, np.int64) for part_ids, _ in parts])
    scores = np.concatenate([np.vecdot(vectors, vector[0]) for _, vectors in parts])
    order = np.lexsort((keys, -scores))[:k]
    return [int(key) for key in keys[order]], [float(score) for score in scores[order]]


class ExactRows:
    """Live vectors by id, without locks: `VectorIndex` brings the discipline. Holds no dead rows."""

    path = "exact"
    dead = 0

    def __init__(self, dimension: int) -> None:
        self._matrix: Vectors = np.empty((0, dimension), np.float32)
        self._ids: npt.NDArray[np.int64] = np.empty(0, np.int64)
        self._row_of: dict[int, int] = {}

    @property
    def live(self) -> int:
        return len(self._row_of)

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays and, as an estimate, 100 for each entry of the dictionary."""
        return self._matrix.nbytes + self._ids.nbytes + 100 * self.live

    def ids(self) -> list[int]:
        return list(self._row_of)

    def put(self, ids: Sequence[int], vectors: Vectors, threads: int = 1) -> None:
        """Store each vector under its id, in place of an earlier one. `threads` is taken and not needed."""
        del threads
        self._reserve(self.live + len(ids))
        for key, vector in zip(ids, vectors, strict=True):
            row = self._row_of.setdefault(key, len(self._row_of))
            self._matrix[row] = vector
            self._ids[row] = key

    def drop(self, ids: Sequence[int]) -> None:
        """Remove the ids that are there; the last row moves into the hole."""
        for key in ids:
            row = self._row_of.pop(key, None)
            if row is None:
                continue
            last = self.live
            if row != last:
                self._matrix[row] = self._matrix[last]
                self._ids[row] = self._ids[last]
                self._row_of[int(self._ids[row])] = row

    def search(self, vector: Vectors, k: int) -> tuple[list[int], list[float]]:
        """The best `k` of the live rows for `vector` [1, dimension], best first; equal scores by id."""
        count = self.live
        # Not `@`: BLAS spreads even this little over all cores, and waits for the one that is busy.
        scores = np.vecdot(self._matrix[:count], vector[0])
        best = np.argpartition(-scores, k - 1)[:k] if k < count else np.arange(count)
        order = best[np.lexsort((self._ids[best], -scores[best]))]
        return [int(key) for key in self._ids[order]], [float(score) for score in scores[order]]

    def export(self, ids: Sequence[int]) -> tuple[list[int], Vectors]:
        """Copies of the vectors of those ids that are live: (ids, [n, dimension])."""
        live_ids = [key for key in ids if key in self._row_of]
        return live_ids, self._matrix[[self._row_of[key] for key in live_ids]]

    def save(self, directory: Path) -> None:
        with (directory / _FILE).open("wb") as out:
            np.savez(out, ids=self._ids[: self.live], matrix=self._matrix[: self.live])

    @classmethod
    def load(cls, directory: Path, dimension: int) -> ExactRows:
        """Read what `save` wrote; raises `Damaged` when shapes do not fit."""
        with np.load(directory / _FILE, allow_pickle=False) as stored:
            ids, matrix = stored["ids"], stored["matrix"]
        if matrix.shape != (len(ids), dimension) or matrix.dtype != np.float32:
            raise Damaged(f"stored vectors have shape {matrix.shape}, expected ({len(ids)}, {dimension})")
        rows = cls(dimension)
        rows.put([int(key) for key in ids], matrix)
        return rows

    def _reserve(self, rows: int) -> None:
        if rows <= len(self._ids):
            return
        size = max(_LEAST, rows, len(self._ids) * 3 // 2)
        matrix = np.empty((size, self._matrix.shape[1]), np.float32)
        ids = np.empty(size, np.int64)
        matrix[: self.live] = self._matrix[: self.live]
        ids[: self.live] = self._ids[: self.live]
        self._matrix, self._ids = matrix, ids
