"""The table of records that are no edits: bytes, headers, position, hash and reason."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from lte_runtime.errors import NotFound
from lte_runtime.store.db import Connection
from lte_runtime.store.records import QuarantineRow
from lte_runtime.types import Position, RawRecord, Rejected

PENDING, DEAD_LETTERED, REPLAYED, ERASED = "pending", "dead_lettered", "replayed", "erased"

_INSERT = (
    "INSERT INTO quarantine(topic, partition, offset, log, ts, size, code, message, sha256, received, state, "
    "topic_name, headers, key, value) VALUES(?,?,?,?,?,?,?,?,?,?,?,?,?,?,?) ON CONFLICT DO NOTHING"
)
_COLUMNS = (
    "id, topic, partition, offset, ts, code, message, sha256, received, state, topic_name, "
    "headers, key, value, log, coalesce(length(value), 0)"
)
_WITHOUT_BYTES = _COLUMNS.replace("headers, key, value,", "x'5b5d', NULL, NULL,")


def insert(connection: Connection, rejected: Rejected, topic: int, received_ms: int) -> int:
    """Keep one record; returns the bytes that this adds: none for a replay that fails again, whose reason is
    brought up to date."""
    record = rejected.record
    headers = json.dumps([[name, base64.b64encode(value or b"").decode()] for name, value in record.headers])
    size = len(headers) + len(record.key or b"") + len(record.value or b"")
    position = record.position
    connection.execute(
        _INSERT,
        (
            topic,
            position.partition,
            position.offset,
            position.log,
            record.timestamp_ms,
            size,
            rejected.code,
            rejected.message[:1000],
            digest(record),
            received_ms,
            PENDING,
            record.topic,
            headers.encode(),
            record.key,
            record.value,
        ),
    )
    if connection.changes():
        return size
    connection.execute(
        "UPDATE quarantine SET code=?, message=? WHERE topic=? AND partition=? AND offset=? AND log=?",
        (rejected.code, rejected.message[:1000], topic, position.partition, position.offset, position.log),
    )
    return 0


def has_rows(connection: Connection) -> bool:
    """Whether anything was ever quarantined."""
    return connection.execute("SELECT 1 FROM quarantine LIMIT 1").fetchone() is not None


def mark_replayed(connection: Connection, topic: int, position: Position) -> None:
    """The record at a position, if it was refused, has become an edit after all."""
    connection.execute(
        "UPDATE quarantine SET state=? WHERE topic=? AND partition=? AND offset=? AND log=? AND state<>?",
        (REPLAYED, topic, position.partition, position.offset, position.log, ERASED),
    )


def digest(record: RawRecord) -> str:
    """SHA-256 of key and value, a null told from an empty one."""
    parts = (b"\0" if part is None else b"\1" + part for part in (record.key, record.value))
    return hashlib.sha256(b"\x1f".join(parts)).hexdigest()


def rows(
    connection: Connection, topics: Mapping[int, str], where: str, values: Sequence[object]
) -> list[QuarantineRow]:
    """Rows that a condition selects, as values."""
    cursor = connection.execute(f"SELECT {_COLUMNS} FROM quarantine WHERE {where}", tuple(values))
    return [_row(row, topics) for row in cursor]


def page(connection: Connection, topics: Mapping[int, str], limit: int, after: int) -> list[QuarantineRow]:
    """Rows behind the row `after`, whose records come without headers, key and value: these may be large."""
    sql = f"SELECT {_WITHOUT_BYTES} FROM quarantine WHERE id>? ORDER BY id LIMIT ?"
    return [_row(row, topics) for row in connection.execute(sql, (after, limit))]


def row_by_id(connection: Connection, topics: Mapping[int, str], row_id: int) -> QuarantineRow:
    matches = rows(connection, topics, "id=?", (row_id,))
    if not matches:
        raise NotFound(f"no quarantined record {row_id}")
    return matches[0]


def set_state(connection: Connection, ids: Sequence[int], old: str, new: str) -> None:
    """Move rows that are still in a state to the next one."""
    values = [(new, row_id, old) for row_id in ids]
    connection.executemany("UPDATE quarantine SET state=? WHERE id=? AND state=?", values)


def totals(connection: Connection) -> tuple[int, int, int]:
    """(rows, bytes, rows that are not in the dead-letter topic yet)."""
    rows_, size = connection.execute("SELECT count(*), coalesce(sum(size), 0) FROM quarantine").fetchone()
    waiting = connection.execute("SELECT count(*) FROM quarantine WHERE state=?", (PENDING,)).fetchone()[0]
    return int(rows_), int(size), int(waiting)


def _row(row: Sequence[Any], topics: Mapping[int, str]) -> QuarantineRow:
    headers = tuple((name, base64.b64decode(text)) for name, text in json.loads(bytes(row[11])))
    position = Position(topics[row[1]], row[2], row[3], row[14])
    return QuarantineRow(
        id=row[0],
        record=RawRecord(row[10], position, row[12], row[13], headers, row[4]),
        code=row[5],
        message=row[6],
        sha256=row[7],
        received_ms=row[8],
        state=row[9],
        value_bytes=row[15],
    )
