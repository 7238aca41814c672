"""The SQLite store, read: facts at a time, history, vectors, offsets, hash. Each call takes a connection."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lte_runtime.errors import Damaged, NotFound
from lte_runtime.memory.db import Connection
from lte_runtime.memory.rows import EDIT_COLUMNS, check_row, edit_from, evidence_of, fact_of
from lte_runtime.types import Fact, FactKey, Position, TopicPartition, Vectors

_VALID = "({0}.valid_until IS NULL OR {0}.valid_until>?2) AND {start}"
_NOW, _AS_OF = "({0}.valid_from IS NULL OR {0}.valid_from<=?2)", "{0}.since<=?2"


def _facts_sql(start: str) -> str:
    """The valid facts of each key, ?3 at most, down to its newest that is no member of a set."""
    outer, inner = (_VALID.format(name, start=start.format(name)) for name in "fg")
    return (
        "WITH wanted AS MATERIALIZED (SELECT j.key AS place, j.value AS key, coalesce((SELECT g.rank FROM "
        f"facts g WHERE g.key=j.value AND NOT g.many AND {inner} ORDER BY g.rank DESC LIMIT 1), 0) AS floor "
        "FROM json_each(?1) j), listed AS (SELECT f.*, w.place, row_number() OVER (PARTITION BY w.place "
        "ORDER BY f.rank DESC) AS nth FROM wanted w CROSS JOIN facts f ON f.key=w.key AND f.rank>=w.floor "
        f"WHERE {outer}) SELECT {EDIT_COLUMNS}, f.many, f.target, k.namespace, k.subject, k.relation, "
        "f.key, f.rank, f.since, f.valid_from, f.valid_until, f.crc FROM listed f CROSS JOIN edits e "
        "ON e.id=f.edit CROSS JOIN keys k ON k.id=f.key WHERE f.nth<=?3 ORDER BY f.place, f.rank DESC"
    )


ALL_MEMBERS = 2**62
_FACTS_NOW, _FACTS_AS_OF = _facts_sql(_NOW), _facts_sql(_AS_OF)

_HISTORY = (
    f"SELECT {EDIT_COLUMNS}, e.key FROM edits e WHERE e.key=?1 UNION ALL "
    f"SELECT {EDIT_COLUMNS}, e.key FROM edits e WHERE e.key IS NULL AND e.namespace=?2 AND e.retracts IN "
    "(SELECT edit_id FROM edits WHERE key=?1 AND op='assert')"
)


def facts_at(
    connection: Connection,
    key_ids: Sequence[int],
    at_ms: int,
    topics: Mapping[int, str],
    *,
    as_of: bool,
    most: int = ALL_MEMBERS,
) -> dict[int, tuple[Fact, ...]]:
    """The facts of keys that hold at a time, newest first: for each key one, or members of a set.

    At most `most` rows of each key are read.
    """
    if not key_ids:
        return {}
    found: dict[int, dict[str, Fact]] = {key_id: {} for key_id in key_ids}
    sql = _FACTS_AS_OF if as_of else _FACTS_NOW
    for row in connection.execute(sql, (json.dumps(list(key_ids)), at_ms, most)):
        many, target = row[15:17]
        key_id, rank, since, start, end, crc = row[20:]
        edit = edit_from(row, FactKey(*row[17:20]), topics)
        values = (key_id, rank, row[0], since, start, end, many, target)
        check_row(crc, "fact", *values, *evidence_of(edit))
        members = found[key_id]
        if (many or not members) and target not in members:
            members[target] = fact_of(edit, key_id)
    return {key_id: tuple(members.values()) for key_id, members in found.items()}


def history_rows(connection: Connection, key_id: int, namespace: str) -> list[Sequence[Any]]:
    """Rows of `EDIT_COLUMNS` and the key's number (null for a retraction by id alone)."""
    return connection.execute(_HISTORY, (key_id, namespace)).fetchall()  # type: ignore[no-any-return]


def key_row(connection: Connection, key: FactKey) -> int | None:
    row = connection.execute("SELECT id FROM keys WHERE key=?", (key.text,)).fetchone()
    return None if row is None else int(row[0])


def key_of(connection: Connection, key_id: int) -> FactKey:
    row = connection.execute("SELECT namespace, subject, relation FROM keys WHERE id=?", (key_id,)).fetchone()
    if row is None:
        raise NotFound(f"no key {key_id}")
    return FactKey(*row)


def offsets(connection: Connection, topics: Mapping[int, str]) -> dict[TopicPartition, int]:
    """The durable next offsets; raises `Damaged` for one that was not written like that."""
    found = {}
    for topic, partition, next_, crc in connection.execute("SELECT topic, partition, next, crc FROM offsets"):
        check_row(crc, "offset", topic, partition, next_)
        found[TopicPartition(topics[topic], partition)] = next_
    return found


def positions_of(connection: Connection, edit_row: int, topics: Mapping[int, str]) -> tuple[Position, ...]:
    rows = connection.execute(
        "SELECT topic, partition, offset FROM positions WHERE edit=? ORDER BY ts, partition, offset",
        (edit_row,),
    )
    return tuple(Position(topics[topic], partition, offset) for topic, partition, offset in rows)


def vectors_of(connection: Connection, key_ids: Sequence[int], dimension: int) -> Vectors:
    """Stored vectors [len(key_ids), dimension]; raises `NotFound`, and `Damaged` for a wrong checksum."""
    sql = "SELECT v.vector, v.crc FROM keys k JOIN vectors v ON v.hash=k.view_hash WHERE k.id=?"
    made = np.empty((len(key_ids), dimension), np.float32)
    for place, key_id in enumerate(key_ids):
        row = connection.execute(sql, (key_id,)).fetchone()
        if row is None:
            raise NotFound(f"no vector for key {key_id}")
        made[place] = vector_from(row[0], row[1], dimension)
    return made


def vector_from(data: bytes, crc: int, dimension: int) -> Vectors:
    """A stored vector [dimension]; raises `Damaged` when it is not what was stored."""
    if len(data) != 4 * dimension or zlib.crc32(data) != crc:
        raise Damaged("a stored vector does not match its checksum")
    return np.frombuffer(data, np.float32)


@dataclass(frozen=True, slots=True)
class KeyNames:
    """A key as the indexes need it."""

    key_id: int
    namespace: str
    names: tuple[str, ...]
    present: bool


def key_names(connection: Connection) -> Iterator[KeyNames]:
    """All keys, in order."""
    for key_id, text, namespace, names, facts, chain, crc in connection.execute(
        "SELECT id, key, namespace, names, facts, chain, crc FROM keys ORDER BY id"
    ):
        check_row(crc, "key", key_id, text, names, facts, chain)
        yield KeyNames(key_id, namespace, tuple(name for _, name in json.loads(names)), facts > 0)


def counts(connection: Connection) -> tuple[int, int, int]:
    """(edits, keys, keys that have a fact)."""
    row = connection.execute(
        "SELECT (SELECT count(*) FROM edits), count(*), coalesce(sum(facts>0), 0) FROM keys"
    ).fetchone()
    return int(row[0]), int(row[1]), int(row[2])


def state_hash(connection: Connection) -> str:
    """SHA-256 sum over the standing facts of every key: no clock, position or order of arrival in it."""
    total = 0
    for text, chain in connection.execute("SELECT key, chain FROM keys WHERE facts>0"):
        total += int.from_bytes(hashlib.sha256(text.encode() + b"\0" + chain).digest(), "big")
    return f"{total % 2**256:064x}"
