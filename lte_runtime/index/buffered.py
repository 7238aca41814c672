"""A graph with a waiting room: new vectors are searched by reading them until they have gone into the graph.

A graph takes about a millisecond for each row, which an event that wants to be seen need not wait for.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from lte_runtime.index.exact import ExactRows
from lte_runtime.types import Vectors


class Graph(Protocol):
    """Rows that are searched by walking; see `hnsw_rows`."""

    @property
    def path(self) -> str: ...
    @property
    def live(self) -> int: ...
    @property
    def dead(self) -> int: ...
    @property
    def nbytes(self) -> int: ...
    def ids(self) -> list[int]: ...
    def put(self, ids: Sequence[int], vectors: Vectors, threads: int = 1) -> None: ...
    def drop(self, ids: Sequence[int]) -> None: ...
    def search(self, vector: Vectors, k: int) -> tuple[list[int], list[float]]: ...
    def export(self, ids: Sequence[int]) -> tuple[list[int], Vectors]: ...
    def save(self, directory: Path) -> None: ...


class BufferedRows:
    """Live vectors by id, without locks. An id is in the graph or waits, never both."""

    def __init__(self, graph: Graph, dimension: int) -> None:
        self._graph = graph
        self._waiting = ExactRows(dimension)

    @property
    def path(self) -> str:
        return self._graph.path

    @property
    def live(self) -> int:
        return self._graph.live + self._waiting.live

    @property
    def dead(self) -> int:
        return self._graph.dead

    @property
    def waiting(self) -> int:
        """Rows that are not in the graph yet."""
        return self._waiting.live

    @property
    def nbytes(self) -> int:
        return self._graph.nbytes + self._waiting.nbytes

    def ids(self) -> list[int]:
        return self._graph.ids() + self._waiting.ids()

    def put(self, ids: Sequence[int], vectors: Vectors, threads: int = 1) -> None:
        """Into the graph at once."""
        self._waiting.drop(ids)
        self._graph.put(ids, vectors, threads)

    def put_later(self, ids: Sequence[int], vectors: Vectors) -> None:
        """Found from now on; `settle` brings them into the graph."""
        self._graph.drop(ids)
        self._waiting.put(ids, vectors)

    def settle(self, most: int) -> None:
        """Bring up to `most` of the waiting rows into the graph."""
        ids, vectors = self._waiting.export(self._waiting.ids()[:most])
        if ids:
            self.put(ids, vectors)

    def drop(self, ids: Sequence[int]) -> None:
        self._graph.drop(ids)
        self._waiting.drop(ids)

    def search(self, vector: Vectors, k: int) -> tuple[list[int], list[float]]:
        """The best `k` (<= live) for `vector` [1, dimension], best first; raises what the graph raises."""
        walked, read = min(k, self._graph.live), min(k, self._waiting.live)
        hits = list(zip(*self._graph.search(vector, walked), strict=True)) if walked else []
        if read:
            hits += zip(*self._waiting.search(vector, read), strict=True)
            hits = heapq.nsmallest(k, hits, key=lambda hit: (-hit[1], hit[0]))
        return [key for key, _ in hits], [score for _, score in hits]

    def export(self, ids: Sequence[int]) -> tuple[list[int], Vectors]:
        """Copies of the vectors of those ids that are live: (ids, [n, dimension])."""
        if not self._waiting.live:
            return self._graph.export(ids)
        walked, rows = self._graph.export(ids)
        read, more = self._waiting.export(ids)
        return walked + read, np.concatenate([rows, more])

    def save(self, directory: Path) -> None:
        """Write the graph; whoever saves has settled everything before."""
        if self._waiting.live:
            raise ValueError(f"{self._waiting.live} rows are not in the graph yet")
        self._graph.save(directory)
