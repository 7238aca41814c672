"""A log that lost its end: brokers give its offsets to other records, and what stood there is only here.

After an unclean election, or when a broker was restored from a copy, a partition ends before the position
that was read. Once an operator accepts that, offsets from there on belong to a new log: `Position.log` counts
them, so that a new record on a used offset is no duplicate. What only the lost log held is kept or taken out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lte_runtime.store.db import Connection
from lte_runtime.store.rows import EDIT_COLUMNS, EDIT_WIDTH, edit_from
from lte_runtime.types import Edit, FactKey, RawRecord, TopicPartition

Offsets = Mapping[TopicPartition, int]

# A delivery is lost when its log was cut below its offset since, or is to be cut there (?1: topic, partition,
# resume_at as JSON).
_CUT_SINCE = (
    "p.log<(SELECT count(*) FROM truncations t WHERE t.topic=p.topic AND t.partition=p.partition "
    "AND t.resume_at<=p.offset)"
)
_CUT_NOW = (
    "EXISTS(SELECT 1 FROM json_each(?1) c WHERE c.value->>0=p.topic AND c.value->>1=p.partition "
    "AND p.offset>=c.value->>2)"
)
_LOST = (
    "FROM edits e WHERE e.id IN (SELECT p.edit FROM json_each(?1) r CROSS JOIN positions p "
    "ON p.topic=r.value->>0 AND p.partition=r.value->>1 AND p.offset>=r.value->>2) "
    f"AND NOT EXISTS(SELECT 1 FROM positions p WHERE p.edit=e.id AND NOT ({_CUT_SINCE} OR {_CUT_NOW}))"
)


@dataclass(frozen=True, slots=True)
class Truncations:
    """Where the logs of partitions were cut, oldest first."""

    resumed: Mapping[TopicPartition, Sequence[int]]

    @classmethod
    def read(cls, connection: Connection, topics: Mapping[int, str]) -> Truncations:
        resumed: dict[TopicPartition, list[int]] = {}
        for topic, partition, offset in connection.execute(
            "SELECT topic, partition, resume_at FROM truncations ORDER BY topic, partition, log"
        ):
            resumed.setdefault(TopicPartition(topics[topic], partition), []).append(offset)
        return cls(resumed)

    def log_at(self, partition: TopicPartition, offset: int) -> int:
        """Which log an offset that is read now belongs to."""
        return sum(resume_at <= offset for resume_at in self.resumed.get(partition, ()))

    def placed(self, records: Sequence[RawRecord]) -> tuple[RawRecord, ...]:
        """Records as they were just read, each with the log that it stands in."""
        if not self.resumed:
            return tuple(records)
        return tuple(map(self._placed, records))

    def _placed(self, record: RawRecord) -> RawRecord:
        position = record.position
        log = self.log_at(position.topic_partition, position.offset)
        return record if log == position.log else replace(record, position=replace(position, log=log))


def add(connection: Connection, topic: int, partition: int, resume_at: int, now_ms: int) -> None:
    """Note one cut, in the caller's transaction."""
    connection.execute(
        "INSERT INTO truncations SELECT ?1, ?2, 1+count(*), ?3, ?4 FROM truncations "
        "WHERE topic=?1 AND partition=?2",
        (topic, partition, resume_at, now_ms),
    )


def lost_edits(
    connection: Connection, topics: Mapping[int, str], resume_at: Offsets, limit: int
) -> tuple[list[Edit], int]:
    """Edits that only the cut part of a log holds, in order of arrival: at most `limit`, and their number."""
    ranges = _ranges(topics, resume_at)
    count = connection.execute(f"SELECT count(*) {_LOST}", (ranges,)).fetchone()[0]
    rows = connection.execute(
        f"SELECT {EDIT_COLUMNS}, (SELECT json_array(k.namespace, k.subject, k.relation) FROM keys k "
        f"WHERE k.id=e.key) {_LOST} ORDER BY e.id LIMIT ?2",
        (ranges, limit),
    )
    return [_lost_edit(row, topics) for row in rows], int(count)


def _lost_edit(row: Sequence[Any], topics: Mapping[int, str]) -> Edit:
    key = FactKey(*json.loads(row[EDIT_WIDTH])) if row[EDIT_WIDTH] else None
    return edit_from(row, key, topics)


def take_out(
    connection: Connection, topics: Mapping[int, str], resume_at: Offsets, now_ms: int
) -> list[FactKey]:
    """Move these edits out of the history, in the caller's transaction; the keys that they belonged to, but
    for erased ones, which have no facts."""
    ranges = _ranges(topics, resume_at)
    rows = [row[0] for row in connection.execute(f"SELECT e.id {_LOST}", (ranges,))]
    ids = json.dumps(rows)
    chosen = "IN (SELECT value FROM json_each(?1))"
    keys = connection.execute(
        "SELECT namespace, subject, relation FROM keys WHERE subject<>'' AND id IN "
        f"(SELECT key FROM edits WHERE id {chosen} UNION SELECT n.key FROM edits e JOIN edits n ON "
        f"n.edit_id=e.retracts AND n.namespace=e.namespace WHERE e.id {chosen} AND e.key IS NULL)",
        (ids,),
    ).fetchall()
    connection.execute(
        "INSERT INTO lost_edits SELECT ?2, key, edit_id, op, topic, partition, offset, log, body FROM edits "
        f"WHERE id {chosen}",
        (ids, now_ms),
    )
    connection.execute(f"UPDATE positions SET edit=NULL, erased='lost' WHERE edit {chosen}", (ids,))
    connection.execute(f"DELETE FROM edits WHERE id {chosen}", (ids,))
    return [FactKey(*key) for key in keys]


def _ranges(topics: Mapping[int, str], resume_at: Offsets) -> str:
    numbers = {topic_id: number for number, topic_id in topics.items()}
    rows = (
        [numbers[topic_partition.topic_id], topic_partition.partition, offset]
        for topic_partition, offset in resume_at.items()
        if topic_partition.topic_id in numbers
    )
    return json.dumps(list(rows))
