"""Vector search behind one door: exact scan for small sets, HNSW (Malkov and Yashunin, 2016) for large ones.

hnswlib has rules that its interface does not enforce: adds and queries must not meet, a resize must be alone,
a live label must not be given again, `k` must not pass the live count, a file must be trusted before it is
loaded. They are kept here; `hnsw_rows` alone imports it.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lte_runtime.errors import Damaged
from lte_runtime.index.buffered import BufferedRows
from lte_runtime.index.exact import ExactRows, scan
from lte_runtime.index.hnsw import GraphShape, HnswRows
from lte_runtime.index.recall import recall
from lte_runtime.locks import ReadWriteLock
from lte_runtime.types import Vectors

_KIND = "kind.json"
_SLICE = 32  # vectors added under one hold of the write lock: about 10 ms, which a waiting search can bear
_BULK = 512  # from here on an add goes into the graph at once and uses all cores
_WAITING = 256  # rows that may wait without anybody settling them; reading them takes some microseconds
_MOST_WAITING = 4 * _WAITING  # from here on whoever adds has to settle as many
_SETTLE_S = 0.001  # rows are settled for so long under one hold of the locks; one row at least
_SETTLE_PAUSE_S = 0.001  # between two holds: whoever waits for a lock goes first
_EXPORT = 1000
_LEAST_RECALL, _STREAMED_SHARE = 0.99, 0.05
_HYSTERESIS = 0.8  # the graph is given up only well below the size that brought it
_UNIT_TOLERANCE = 1e-2
# Vectors from which a graph is used: reading fewer takes 0.2 ms and finds every one (decision 001).
HNSW_FROM = 5_000
# Share of dead vectors above which the graph is made anew: they take memory and steps of every search, and a
# rebuild costs as much as all that live.
REBUILD_DEAD_SHARE = 0.2


Rows = ExactRows | BufferedRows
Change = tuple[list[int], Vectors | None]


class VectorIndex:
    """Nearest facts of one namespace by inner product of unit vectors. Safe to call from several threads.

    Searches run side by side; a change waits for them and they for it, for about 10 ms at most. Changes are
    serial. What comes in small numbers to a graph is found at once and goes into it later, by a thread that
    ends when nothing waits any more. `rebuild` copies the live vectors into a fresh graph while searches and
    changes go on, then exchanges the reference. Bad vectors raise ValueError before anything is changed.
    """

    def __init__(
        self,
        dimension: int,
        *,
        mode: str = "auto",
        hnsw_from: int | None = None,
        shape: GraphShape | None = None,
    ) -> None:
        if mode not in ("auto", "exact", "hnsw"):
            raise ValueError(f"index mode {mode!r} is unknown: use auto, exact or hnsw")
        self.dimension = dimension
        self._mode = mode
        self._shape = shape or GraphShape()
        self._hnsw_from = HNSW_FROM if hnsw_from is None else hnsw_from
        self._lock = ReadWriteLock()
        self._changing = threading.Lock()
        self._rebuilding = threading.Lock()
        self._journal: list[Change] | None = None
        self._streamed, self._weak = 0, False
        self._rows: Rows = self._fresh(0)
        self._settler: threading.Thread | None = None

    @property
    def live(self) -> int:
        return self._rows.live

    @property
    def dead(self) -> int:
        return self._rows.dead

    @property
    def path(self) -> str:
        """Which search the next question takes: exact or hnsw."""
        return self._rows.path

    @property
    def nbytes(self) -> int:
        """Memory that the rows take, in bytes."""
        with self._lock.read():
            return self._rows.nbytes

    def ids(self) -> list[int]:
        with self._lock.read():
            return self._rows.ids()

    def add(self, ids: Sequence[int], vectors: Vectors) -> None:
        """Store vectors [len(ids), dimension] under their ids; an id that is there gets the new vector.

        Raises ValueError for a wrong shape, NaN, infinite or non-unit vectors, with nothing changed.
        """
        checked = self._checked(vectors, len(ids))
        if not len(ids):
            return
        last = {int(key): row for row, key in enumerate(ids)}
        keys, checked = list(last), checked[list(last.values())]
        with self._changing:
            if self._journal is None and isinstance(self._rows, ExactRows):
                self._grow(len(keys))
            self._put(keys, checked)

    def remove(self, ids: Sequence[int]) -> None:
        """Forget the ids; those that are not there are ignored."""
        keys = [int(key) for key in ids]
        with self._changing:
            with self._lock.write():
                self._rows.drop(keys)
            if self._journal is not None:
                self._journal.append((keys, None))
            elif isinstance(self._rows, BufferedRows) and not self._wants_graph(self.live / _HYSTERESIS):
                self._exchange(self._copy(self.live))

    def search(self, vector: Vectors, k: int) -> tuple[list[int], list[float], str]:
        """Ids and scores (inner products) best first, at most min(k, live), and the path taken.

        `vector` is [1, dimension] (or [dimension]), of unit length, else ValueError.
        """
        checked = self._checked(vector, 1)
        with self._lock.read():
            rows = self._rows
            count = min(k, rows.live)
            if count <= 0:
                return [], [], rows.path
            if isinstance(rows, ExactRows):
                return *rows.search(checked, count), rows.path
            try:
                return *rows.search(checked, count), rows.path
            except RuntimeError:
                # The walk met fewer live rows than asked for (many dead ones around): read them all instead.
                return *scan(rows, checked, count), "exact"

    def vectors(self, ids: Sequence[int]) -> tuple[list[int], Vectors]:
        """The ids among `ids` that are live, and their vectors [n, dimension]."""
        with self._lock.read():
            return self._rows.export([int(key) for key in ids])

    def recall(self, sample: Vectors, k: int) -> float:
        """Share of the best `k` that search finds for the sample [n, dimension]; see `recall.recall`.

        A poor figure of a graph that has grown since it was built asks for a rebuild.
        """
        share = recall(self, sample, k)
        self._weak = share < _LEAST_RECALL and self._streamed > _STREAMED_SHARE * self.live
        return share

    def needs_rebuild(self) -> bool:
        """Whether dead rows are too many, or the last check of recall was poor for the order of arrival."""
        rows = self._rows
        return self._weak or rows.dead > REBUILD_DEAD_SHARE * (rows.live + rows.dead)

    def rebuild(self, threads: int = 1) -> None:
        """Copy the live vectors into fresh rows and exchange them; searches and changes go on meanwhile.

        A second call while one runs returns at once.
        """
        if not self._rebuilding.acquire(blocking=False):
            return
        try:
            with self._changing:
                self._journal = []
            fresh = self._copy(self.live, threads)
            while not self._caught_up(fresh):
                pass
        finally:
            self._journal = None
            self._rebuilding.release()

    def save(self, directory: Path) -> None:
        """Write the rows as files into `directory`, which exists; searches go on, changes wait."""
        self._settle_all()
        with self._changing:
            self._settle(self._rows)
            self._save(directory)

    def _save(self, directory: Path) -> None:
        with self._lock.read():
            rows = self._rows
            kind = {"kind": rows.path, "dimension": self.dimension, "live": rows.live}
            (directory / _KIND).write_text(json.dumps(kind), encoding="utf-8")
            rows.save(directory)

    def load(self, directory: Path) -> None:
        """Take the rows that `save` wrote. The caller has verified the bytes by hash; never load others.

        Raises `Damaged` when dimension or counts do not fit; the index is then as it was.
        """
        kind = json.loads((directory / _KIND).read_text(encoding="utf-8"))
        if kind["dimension"] != self.dimension:
            raise Damaged(f"the saved index has dimension {kind['dimension']}, not {self.dimension}")
        rows: Rows
        if kind["kind"] == "hnsw":
            rows = BufferedRows(HnswRows.load(directory, self.dimension, self._shape), self.dimension)
        else:
            rows = ExactRows.load(directory, self.dimension)
        if rows.live != kind["live"]:
            raise Damaged(f"the saved index holds {rows.live} live rows, not {kind['live']}")
        with self._rebuilding, self._changing:
            self._exchange(rows)
            if self._wants_graph(rows.live) != isinstance(rows, BufferedRows):
                self._exchange(self._copy(rows.live, os.cpu_count() or 1))

    def _fresh(self, count: int) -> Rows:
        if self._wants_graph(count):
            return BufferedRows(HnswRows(self.dimension, count, self._shape), self.dimension)
        return ExactRows(self.dimension)

    def _wants_graph(self, live: float) -> bool:
        return self._mode == "hnsw" or (self._mode == "auto" and live >= self._hnsw_from)

    def _checked(self, vectors: Vectors, count: int) -> Vectors:
        array = np.ascontiguousarray(vectors, np.float32)
        array = array[None] if array.ndim == 1 else array
        if array.shape != (count, self.dimension):
            raise ValueError(f"vectors have shape {array.shape}, expected ({count}, {self.dimension})")
        # A NaN makes the comparison false, so that it is refused as well.
        if not (np.abs(np.linalg.norm(array, axis=1) - 1.0) <= _UNIT_TOLERANCE).all():
            raise ValueError("vectors must be finite and of unit length")
        return array

    def _grow(self, count: int) -> None:
        if self._wants_graph(self.live + count):
            self._exchange(self._copy(self.live + count, os.cpu_count() or 1))

    def _put(self, keys: list[int], vectors: Vectors) -> None:
        rows = self._rows
        if isinstance(rows, BufferedRows) and self._mode == "auto" and len(keys) < _BULK:
            self._put_later(rows, keys, vectors)
        else:
            self._put_at_once(rows, keys, vectors)
        self._streamed += len(keys)
        if self._journal is not None:
            self._journal.append((keys, vectors))

    def _put_at_once(self, rows: Rows, keys: list[int], vectors: Vectors) -> None:
        step, threads = (_SLICE, 1) if len(keys) < _BULK else (_BULK, os.cpu_count() or 1)
        for start in range(0, len(keys), step):
            part = slice(start, start + step)
            with self._lock.write():
                rows.put(keys[part], vectors[part], threads)

    def _put_later(self, rows: BufferedRows, keys: list[int], vectors: Vectors) -> None:
        """Found at once; a thread of its own brings them into the graph, once there are enough."""
        with self._lock.write():
            rows.put_later(keys, vectors)
        if rows.waiting > _MOST_WAITING:
            self._settle(rows, len(keys))
        if rows.waiting > _WAITING and (self._settler is None or not self._settler.is_alive()):
            self._settler = threading.Thread(target=self._settle_all, name="index-settle", daemon=True)
            self._settler.start()

    def _settle_all(self) -> None:
        waiting = True
        while waiting:
            with self._changing:
                waiting = self._settle(self._rows, 1)
            time.sleep(_SETTLE_PAUSE_S)

    def _settle(self, rows: Rows, least: int | None = None) -> bool:
        """Bring waiting rows into the graph, all or at `least` so many, in slices; whether some are left."""
        if not isinstance(rows, BufferedRows):
            return False
        goal = 0 if least is None else max(0, rows.waiting - least)
        while rows.waiting > goal:
            with self._lock.write():
                until = time.perf_counter() + _SETTLE_S
                rows.settle(1)
                while rows.waiting and time.perf_counter() < until:
                    rows.settle(1)
        return rows.waiting > 0

    def _copy(self, capacity: int, threads: int = 1) -> Rows:
        """The live vectors in fresh rows for `capacity`; the read lock is held for one slice at a time."""
        source, fresh = self._rows, self._fresh(capacity)
        ids = _shuffled(self.ids())
        for start in range(0, len(ids), _EXPORT):
            with self._lock.read():
                live_ids, vectors = source.export(ids[start : start + _EXPORT])
            if live_ids:
                fresh.put(live_ids, vectors, threads)
        return fresh

    def _caught_up(self, fresh: Rows) -> bool:
        """Replay what changed meanwhile on `fresh`; when little was left, exchange and say True."""
        with self._changing:
            changes, self._journal = self._journal or [], []
            if sum(len(keys) for keys, _ in changes) <= _SLICE:
                _replay(fresh, changes)
                self._journal = None
                self._exchange(fresh)
                return True
        _replay(fresh, changes)
        return False

    def _exchange(self, rows: Rows) -> None:
        with self._lock.write():
            self._rows = rows
        self._streamed, self._weak = 0, False


def _shuffled(ids: Sequence[int]) -> list[int]:
    """A fixed random order: a graph that meets groups of near-copies one by one hardly links them."""
    order: list[int] = np.random.default_rng(len(ids)).permutation(np.asarray(ids, np.int64)).tolist()
    return order


def _replay(rows: Rows, changes: Sequence[Change]) -> None:
    for keys, vectors in changes:
        if vectors is None:
            rows.drop(keys)
        else:
            rows.put(keys, vectors)
