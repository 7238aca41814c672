"""The in-memory projection of the store: vectors per namespace, names, and the watermark they reflect.

Searches share the lock, updates own it, so that a watermark read under it is true of what was searched.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from lte_runtime.errors import Cancelled
from lte_runtime.index.vector_index import VectorIndex
from lte_runtime.index.view_index import ViewIndex
from lte_runtime.locks import ReadWriteLock
from lte_runtime.names.index import NameHit, NameIndex, Nearest
from lte_runtime.store.batch_writer import KeyChange
from lte_runtime.store.records import EditMemorySettings
from lte_runtime.types import TopicPartition, Vectors

Watermarks = Mapping[TopicPartition, int]
# Seconds between two looks of a wait at whether its caller is still there.
CALLER_CHECK_S = 0.05


class Projection:
    """Thread-safe. `update` is called by the one writer after its commit."""

    def __init__(self, dimension: int, settings: EditMemorySettings, watermarks: Watermarks) -> None:
        self.dimension, self._settings = dimension, settings
        self.indexes: dict[str, ViewIndex] = {}
        self.names = NameIndex()
        self._lock = ReadWriteLock()
        self._moved = threading.Condition()
        self._watermarks: Watermarks = dict(watermarks)

    @contextmanager
    def reading(self) -> Iterator[Watermarks]:
        """Hold the projection still; gives the watermarks that it reflects."""
        with self._lock.read():
            yield self._watermarks

    @property
    def watermarks(self) -> Watermarks:
        return self._watermarks

    def index_for(self, namespace: str) -> ViewIndex:
        """The index of a namespace, made when first needed (by the writer)."""
        index = self.indexes.get(namespace)
        if index is None:
            settings = self._settings
            rows = VectorIndex(self.dimension, mode=settings.index_mode, hnsw_from=settings.hnsw_from)
            index = ViewIndex(rows)
            self.indexes[namespace] = index
        return index

    def search(self, namespace: str, vector: Vectors, k: int) -> tuple[list[int], list[float], str]:
        """Nearest keys of a namespace; call it inside `reading`."""
        index = self.indexes.get(namespace)
        return index.search(vector, k) if index else ([], [], "exact")

    def find_names(
        self, question: str, namespace: str, limit: int, nearest: Nearest = tuple
    ) -> list[NameHit]:
        """Keys whose names a question mentions, as `NameIndex.find`; call it inside `reading`."""
        return self.names.find(question, namespace, limit, nearest)

    def update(
        self, changes: Sequence[KeyChange], vectors: Mapping[int, Vectors], next_offsets: Watermarks
    ) -> None:
        """Bring in what a commit changed, then move the watermark. `vectors` [windows, dimension] by key."""
        with self._lock.write():
            self._move_vectors(changes, vectors)
            self._move_names(changes)
            self._watermarks = _advanced(self._watermarks, next_offsets)
        with self._moved:
            self._moved.notify_all()

    def rewind(self, next_offsets: Watermarks) -> None:
        """Set watermarks back: what stood above them is not in the log any more."""
        with self._lock.write():
            self._watermarks = {**self._watermarks, **next_offsets}

    def _move_vectors(self, changes: Sequence[KeyChange], vectors: Mapping[int, Vectors]) -> None:
        changes_of: dict[str, list[KeyChange]] = defaultdict(list)
        for change in changes:
            changes_of[change.namespace].append(change)
        for namespace, own_changes in changes_of.items():
            index = self.index_for(namespace)
            removed = [change.key_id for change in own_changes if change.was_present and not change.present]
            added = [change.key_id for change in own_changes if change.present and not change.was_present]
            if removed:
                index.remove(removed)
            if added:
                index.add({key_id: vectors[key_id] for key_id in added})

    def _move_names(self, changes: Sequence[KeyChange]) -> None:
        for change in changes:
            if change.present and change.was_present and change.names == change.old_names:
                continue
            if change.was_present:
                self.names.remove(change.key_id)
            if change.present:
                self.names.add(change.key_id, change.namespace, change.names)

    def empty_copy(self) -> Projection:
        """A projection of nothing with the same settings, to be filled beside this one."""
        return Projection(self.dimension, self._settings, {})

    def take_over(self, fresh: Projection) -> None:
        """Exchange the indexes for those of a freshly filled projection."""
        with self._lock.write():
            self.indexes, self.names = fresh.indexes, fresh.names

    def forget(self, key_id: int, namespace: str) -> None:
        """Take a key out and leave no dead copy of its vector in memory."""
        index = self.indexes.get(namespace)
        with self._lock.write():
            self.names.remove(key_id)
            if index:
                index.remove([key_id])
        if index:
            index.rebuild()

    def wait_for(
        self, at_least: Watermarks, timeout_s: float, cancelled: Callable[[], bool] = lambda: False
    ) -> bool:
        """Block until the watermarks have reached the given next offsets; False when time is up.

        Raises `Cancelled` soon after `cancelled` says that nobody waits for it any more.
        """
        deadline = time.monotonic() + timeout_s
        with self._moved:
            while not reached(self._watermarks, at_least):
                time_left = deadline - time.monotonic()
                if time_left <= 0:
                    return False
                if cancelled():
                    raise Cancelled("the caller went away")
                self._moved.wait(min(time_left, CALLER_CHECK_S))
        return True


def reached(watermarks: Watermarks, at_least: Watermarks) -> bool:
    """Whether every wanted next offset is visible."""
    return all(watermarks.get(topic_partition, 0) >= offset for topic_partition, offset in at_least.items())


def _advanced(old: Watermarks, new: Watermarks) -> Watermarks:
    """No watermark moves back."""
    moved = {partition: max(offset, old.get(partition, 0)) for partition, offset in new.items()}
    return {**old, **moved}
