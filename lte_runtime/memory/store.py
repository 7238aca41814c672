"""The SQLite store, written: one transaction per batch holds edits, facts, vectors, quarantine and offsets.

One writer, under the caller's lock. After an exception nothing of the batch is in the store.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from lte_runtime.memory import reads
from lte_runtime.memory.batch_writer import BatchWriter, StoreResult
from lte_runtime.memory.db import Connection, faults, open_writer, transaction
from lte_runtime.memory.keywork import view_hash, view_text
from lte_runtime.memory.rows import row_crc
from lte_runtime.types import Edit, FactKey, Op, Rejected, TopicPartition, Vectors

SEQUENCE = "sequence"  # how many batches were committed


class Store:
    """The writing side. Raises `Retry` when full or busy, `Damaged`, or `Fatal` when the disk fails."""

    def __init__(self, path: Path, busy_timeout_ms: int = 5000) -> None:
        self.connection: Connection = open_writer(path, busy_timeout_ms)
        with faults():
            self._load()

    def _load(self) -> None:
        rows = self.connection.execute("SELECT no, topic_id FROM topics").fetchall()
        self.topics: dict[int, str] = dict(rows)
        self._numbers = {topic_id: number for number, topic_id in rows}
        named = self.connection.execute("SELECT namespace, retracts FROM edits WHERE retracts IS NOT NULL")
        self.retracted: set[tuple[str, str]] = set(named)
        self.sequence = int(self.meta_get(SEQUENCE) or 0)

    def close(self) -> None:
        with faults():
            self.connection.close()

    def missing_views(self, edits: Iterable[Edit]) -> dict[bytes, str]:
        """Hash and text of the views that keys of these edits need and the store has no vector for."""
        wanted: dict[bytes, str] = {}
        seen: set[FactKey] = set()
        with faults():
            for edit in edits:
                if edit.op is not Op.ASSERT or edit.key is None or edit.key in seen:
                    continue
                seen.add(edit.key)
                if not self._has_view(edit.key):
                    text = view_text(edit, edit.key)
                    wanted[view_hash(text)] = text
            return {name: text for name, text in wanted.items() if not self._has_vector(name)}

    def _has_view(self, key: FactKey) -> bool:
        row = self.connection.execute("SELECT view_hash FROM keys WHERE key=?", (key.text,)).fetchone()
        return row is not None and row[0] is not None

    def _has_vector(self, name: bytes) -> bool:
        return self.connection.execute("SELECT 1 FROM vectors WHERE hash=?", (name,)).fetchone() is not None

    def apply(
        self,
        edits: Sequence[Edit],
        rejected: Sequence[Rejected],
        vectors: Callable[[], Mapping[bytes, Vectors]],
        next_offsets: Mapping[TopicPartition, int],
        now_ms: int,
    ) -> StoreResult:
        """Everything that one batch brings, in one transaction; `vectors` is asked at its end."""
        known_topics = dict(self._numbers)
        writer = BatchWriter(self, now_ms)
        try:
            with transaction(self.connection):
                result = writer.write(edits, rejected)
                self.put_vectors(vectors())
                self._move_offsets(next_offsets)
                self.meta_set(SEQUENCE, str(self.sequence + 1))
        except BaseException:
            self._numbers = known_topics
            self.topics = {number: topic for topic, number in known_topics.items()}
            raise
        self.retracted |= writer.retracted
        self.sequence += 1
        return result

    def topic_number(self, topic_id: str) -> int:
        """The short number of a topic id; a new one is added in the caller's transaction."""
        number = self._numbers.get(topic_id)
        if number is None:
            self.connection.execute("INSERT INTO topics(topic_id) VALUES(?)", (topic_id,))
            number = int(self.connection.last_insert_rowid())
            self._numbers[topic_id], self.topics = number, {**self.topics, number: topic_id}
        return number

    def _move_offsets(self, next_offsets: Mapping[TopicPartition, int]) -> None:
        """Forward only: a batch that was read twice does not take a watermark back."""
        have = reads.offsets(self.connection, self.topics)
        for place, next_ in next_offsets.items():
            values = (self.topic_number(place.topic_id), place.partition, max(next_, have.get(place, 0)))
            sql = "INSERT OR REPLACE INTO offsets VALUES(?,?,?,?)"
            self.connection.execute(sql, (*values, row_crc(*values)))

    def put_vectors(self, vectors: Mapping[bytes, Vectors]) -> None:
        """Keep vectors [windows, dimension] by the hash of their view, in the caller's transaction."""
        rows = ((name, np.asarray(vector, np.float32).tobytes()) for name, vector in vectors.items())
        self.connection.executemany(
            "INSERT OR REPLACE INTO vectors VALUES(?,?,?)",
            [(name, data, zlib.crc32(data)) for name, data in rows],
        )

    def meta_get(self, name: str) -> str | None:
        row = self.connection.execute("SELECT value FROM meta WHERE name=?", (name,)).fetchone()
        return None if row is None else str(row[0])

    def meta_set(self, name: str, value: str) -> None:
        self.connection.execute(
            "INSERT INTO meta VALUES(?,?) ON CONFLICT DO UPDATE SET value=excluded.value", (name, value)
        )
