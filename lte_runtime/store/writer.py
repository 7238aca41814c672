"""The SQLite store, written: one transaction per batch holds edits, facts, vectors, quarantine and offsets.

One writer, under the caller's lock. After an exception nothing of the batch is in the store.
"""

from __future__ import annotations

import logging
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from lte_runtime.errors import Refused
from lte_runtime.store import reader, rekey, truncation
from lte_runtime.store.batch_writer import BatchWriter, KeyChange, StoreResult
from lte_runtime.store.db import Connection, Upgrade, faults, open_writer, transaction
from lte_runtime.store.key_update import view_hash, view_text
from lte_runtime.store.rows import row_crc
from lte_runtime.store.truncation import Truncations
from lte_runtime.types import Edit, FactKey, Op, Rejected, TopicPartition, Vectors

log = logging.getLogger(__name__)

REFOLD_LOG_EVERY = 20_000
_FOLD_RULES = 3  # since this schema the rules by which a history is folded are the same
SEQUENCE = "sequence"  # how many batches were committed


class Store:
    """The writing side. Raises `Retry` when full or busy, `Damaged`, or `Fatal` when the disk fails.

    Opening lifts a store of an earlier version. Where keys of different publishers would become one key it
    raises `Refused` instead, unless `join_publishers` is set.
    """

    def __init__(self, path: Path, busy_timeout_ms: int = 5000, *, join_publishers: bool = False) -> None:
        check = _nothing_to_check if join_publishers else check_publishers
        self.connection: Connection = open_writer(path, busy_timeout_ms, Upgrade(check, refold))
        with faults():
            self._load()

    def _load(self) -> None:
        rows = self.connection.execute("SELECT no, topic_id FROM topics").fetchall()
        self.topics: dict[int, str] = dict(rows)
        self._numbers = {topic_id: number for number, topic_id in rows}
        named = self.connection.execute("SELECT namespace, retracts FROM edits WHERE retracts IS NOT NULL")
        self.retracted: set[tuple[str, str]] = set(named)
        self.truncations = Truncations.read(self.connection, self.topics)
        self.sequence = int(self.meta_get(SEQUENCE) or 0)

    def close(self) -> None:
        with faults():
            self.connection.close()

    def missing_views(self, edits: Iterable[Edit]) -> dict[bytes, str]:
        """Hash and text of the views that keys of these edits need and the store has no vector for."""
        views: dict[bytes, str] = {}
        seen: set[FactKey] = set()
        with faults():
            for edit in edits:
                if edit.op is not Op.ASSERT or edit.key is None or edit.key in seen:
                    continue
                seen.add(edit.key)
                if not self._has_view(edit.key):
                    text = view_text(edit, edit.key)
                    views[view_hash(text)] = text
            return {name: text for name, text in views.items() if not self._has_vector(name)}

    def _has_view(self, key: FactKey) -> bool:
        row = self.connection.execute("SELECT view_hash FROM keys WHERE key=?", (key.text,)).fetchone()
        return row is not None and row[0] is not None

    def _has_vector(self, name: bytes) -> bool:
        return self.connection.execute("SELECT 1 FROM vectors WHERE hash=?", (name,)).fetchone() is not None

    def write_batch(
        self,
        edits: Sequence[Edit],
        rejected: Sequence[Rejected],
        vectors: Callable[[], Mapping[bytes, Vectors]],
        next_offsets: Mapping[TopicPartition, int],
        now_ms: int,
        leader_epochs: Mapping[TopicPartition, int] | None = None,
    ) -> StoreResult:
        """Everything that one batch brings, in one transaction; `vectors` is asked at its end."""
        known_topics = set(self._numbers)
        writer = BatchWriter(self, now_ms)
        try:
            with transaction(self.connection):
                result = writer.write(edits, rejected)
                self.put_vectors(vectors())
                self._move_offsets(next_offsets, leader_epochs or {})
                self.meta_set(SEQUENCE, str(self.sequence + 1))
        except BaseException:
            self._forget_topics(self._numbers.keys() - known_topics)
            raise
        self.retracted |= writer.retracted
        self.sequence += 1
        return result

    def accept_truncation(
        self, resume_at: Mapping[TopicPartition, int], now_ms: int, *, withdraw: bool
    ) -> list[KeyChange]:
        """Partitions were cut back to these offsets: go on there, in another log. With `withdraw`, edits that
        only the cut part held are taken out. One transaction."""
        with transaction(self.connection):
            for topic_partition, offset in resume_at.items():
                number = self.topic_number(topic_partition.topic_id)
                truncation.add(self.connection, number, topic_partition.partition, offset, now_ms)
                self.put_offset(topic_partition, offset, -1)
            keys = truncation.take_out(self.connection, self.topics, resume_at, now_ms) if withdraw else []
            changes = BatchWriter(self, now_ms).refold(keys).changes
            self.meta_set(SEQUENCE, str(self.sequence + 1))
        self.truncations = Truncations.read(self.connection, self.topics)
        self.sequence += 1
        return changes

    def topic_number(self, topic_id: str) -> int:
        """The short number of a topic id; a new one is added in the caller's transaction."""
        number = self._numbers.get(topic_id)
        if number is None:
            self.connection.execute("INSERT INTO topics(topic_id) VALUES(?)", (topic_id,))
            number = int(self.connection.last_insert_rowid())
            # In place: a question that began before must read the rows of this topic once they are there.
            self._numbers[topic_id] = number
            self.topics[number] = topic_id
        return number

    def _forget_topics(self, topic_ids: Set[str]) -> None:
        """After a rollback their numbers are free again."""
        for topic_id in topic_ids:
            del self.topics[self._numbers.pop(topic_id)]

    def _move_offsets(
        self, next_offsets: Mapping[TopicPartition, int], leader_epochs: Mapping[TopicPartition, int]
    ) -> None:
        """Forward only: a batch that was read twice does not take a watermark back, nor does one without a
        leader epoch forget the one that is known for the same offset."""
        durable = reader.offsets(self.connection, self.topics)
        for topic_partition, offset in next_offsets.items():
            epoch, known_offset = leader_epochs.get(topic_partition, -1), durable.get(topic_partition, -1)
            if offset > known_offset or (offset == known_offset and epoch >= 0):
                self.put_offset(topic_partition, offset, epoch)

    def put_offset(self, topic_partition: TopicPartition, offset: int, leader_epoch: int) -> None:
        """Set a durable next offset, in the caller's transaction."""
        values = (self.topic_number(topic_partition.topic_id), topic_partition.partition, offset)
        self.connection.execute(
            "INSERT OR REPLACE INTO offsets(topic, partition, next, leader_epoch, crc) VALUES(?,?,?,?,?)",
            (*values, leader_epoch, row_crc(*values)),
        )

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


@dataclass(slots=True)
class _Unopened:
    """What folding needs of a store that is not open yet."""

    connection: Connection
    topics: dict[int, str]
    retracted: set[tuple[str, str]] = field(default_factory=set)

    def topic_number(self, topic_id: str) -> int:
        return next(number for number, known_id in self.topics.items() if known_id == topic_id)


def check_publishers(connection: Connection) -> None:
    """Refuse to join histories of different publishers unless an operator has said so."""
    joined = rekey.joined_keys(connection, rekey.changed_keys(connection))
    across = sum(joined_key.across_publishers for joined_key in joined)
    if across:
        raise Refused(
            "this version takes other spellings of a name for the same name: that would join keys of "
            f"different publishers ({across} in all). `lte index rekey --dry-run` lists them, "
            "`lte index rekey --join-publishers` joins them; until then the earlier version can go on"
        )


def _nothing_to_check(_connection: Connection) -> None:
    """An operator has decided."""


def refold(connection: Connection, version: int) -> None:
    """Bring keys to the form of this version, then fold again what the rules of the fold concern: every key
    of a store before schema 3, else those whose form or texts change."""
    topics = dict(connection.execute("SELECT no, topic_id FROM topics").fetchall())
    concerned = rekey.rekey(connection, topics)
    keys = concerned if version >= _FOLD_RULES else _all_keys(connection)
    for number, key in enumerate(keys):
        BatchWriter(_Unopened(connection, topics), 0).refold([key])
        if number % REFOLD_LOG_EVERY == REFOLD_LOG_EVERY - 1:
            log.info("upgrading the store to this version: %d of %d keys", number + 1, len(keys))


def _all_keys(connection: Connection) -> list[FactKey]:
    named = "subject<>''"  # an erased key has no name, and no facts
    sql = f"SELECT namespace, subject, relation FROM keys WHERE {named} ORDER BY id"
    return [FactKey(*parts) for parts in connection.execute(sql)]
