"""Rows of a HNSW graph by hnswlib, the only place that imports it; `index` keeps the library's rules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import hnswlib
import numpy as np

from lte_runtime.index.hnsw_file import check_head
from lte_runtime.types import Vectors

_GRAPH, _LABELS = "hnsw.bin", "labels.npy"


@dataclass(frozen=True, slots=True)
class GraphShape:
    """Links per row (M), and how many rows a walk keeps while building and while searching.

    Chosen by measurement (docs/decisions/001-vector-index.md): groups of near-copies need them this high.
    """

    links: int = 32
    ef_construction: int = 200
    ef_search: int = 256


class HnswRows:
    """Live vectors by id in a HNSW graph, without locks. `put` takes new labels; old ones stay as dead."""

    path = "hnsw"

    def __init__(self, dimension: int, capacity: int, shape: GraphShape) -> None:
        self._dimension = dimension
        self._graph = hnswlib.Index(space="ip", dim=dimension)
        self._graph.init_index(
            max_elements=max(capacity, 1), M=shape.links, ef_construction=shape.ef_construction
        )
        self._adopt([], shape)

    def _adopt(self, ids: Sequence[int], shape: GraphShape) -> None:
        # Also after a load: hnswlib falls back to 10.
        self._graph.set_ef(shape.ef_search)
        self._id_of = np.full(self._graph.get_max_elements(), -1, np.int64)
        self._id_of[: len(ids)] = ids
        self._label_of = {int(key): label for label, key in enumerate(ids) if key >= 0}

    @property
    def live(self) -> int:
        return len(self._label_of)

    @property
    def dead(self) -> int:
        return int(self._graph.get_current_count()) - self.live

    @property
    def nbytes(self) -> int:
        """Bytes of the graph and of the maps between ids and labels, for the capacity that is reserved.

        Beside the rows and links that hnswlib stores, each element has a mutex, a pointer, a level and an
        entry in its label table: 40 + 8 + 4 + 56 bytes.
        """
        return (
            int(self._graph.index_file_size()) + self._id_of.nbytes + len(self._id_of) * 108 + 116 * self.live
        )

    def ids(self) -> list[int]:
        return list(self._label_of)

    def put(self, ids: Sequence[int], vectors: Vectors, threads: int = 1) -> None:
        """Add each vector under a fresh label, then mark the label that the id had before as dead."""
        first = int(self._graph.get_current_count())
        self._reserve(first + len(ids))
        labels = np.arange(first, first + len(ids))
        self._graph.add_items(vectors, labels, num_threads=threads)
        self._id_of[labels] = ids
        for key, label in zip(ids, labels.tolist(), strict=True):
            self._bury(self._label_of.get(key))
            self._label_of[key] = label

    def drop(self, ids: Sequence[int]) -> None:
        for key in ids:
            self._bury(self._label_of.pop(key, None))

    def _bury(self, label: int | None) -> None:
        if label is not None:
            self._graph.mark_deleted(label)
            self._id_of[label] = -1

    def search(self, vector: Vectors, k: int) -> tuple[list[int], list[float]]:
        """The best `k` (<= live) for `vector` [1, dimension]; raises RuntimeError if fewer are reached."""
        labels, distances = self._graph.knn_query(vector, k=k, num_threads=1)
        scores = 1.0 - distances[0]
        ids = self._id_of[labels[0].astype(np.int64)]
        order = np.lexsort((ids, -scores))
        return [int(key) for key in ids[order]], [float(score) for score in scores[order]]

    def export(self, ids: Sequence[int]) -> tuple[list[int], Vectors]:
        """Copies of the vectors of those ids that are live: (ids, [n, dimension])."""
        live_ids = [key for key in ids if key in self._label_of]
        if not live_ids:
            return [], np.empty((0, self._dimension), np.float32)
        return live_ids, np.asarray(
            self._graph.get_items([self._label_of[key] for key in live_ids]), np.float32
        )

    def save(self, directory: Path) -> None:
        """Write graph and labels; raises OSError for a file cut short, which hnswlib does not report."""
        target = directory / _GRAPH
        self._graph.save_index(str(target))
        if target.stat().st_size != self._graph.index_file_size():
            raise OSError(f"{target.name} was only partly written")
        np.save(directory / _LABELS, self._id_of[: self._graph.get_current_count()], allow_pickle=False)

    @classmethod
    def load(cls, directory: Path, dimension: int, shape: GraphShape) -> HnswRows:
        """Read what `save` wrote. The caller has verified the bytes; checked here is that they fit."""
        ids = np.load(directory / _LABELS, allow_pickle=False)
        check_head(directory / _GRAPH, dimension, len(ids))
        rows = cls.__new__(cls)
        rows._dimension = dimension
        rows._graph = hnswlib.Index(space="ip", dim=dimension)
        rows._graph.load_index(str(directory / _GRAPH), max_elements=max(len(ids), 1))
        rows._adopt(ids, shape)
        return rows

    def _reserve(self, count: int) -> None:
        capacity = int(self._graph.get_max_elements())
        if count <= capacity:
            return
        self._graph.resize_index(max(count, capacity + capacity // 4, 1024))
        ids = np.full(self._graph.get_max_elements(), -1, np.int64)
        ids[:capacity] = self._id_of
        self._id_of = ids
