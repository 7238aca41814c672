"""The SQLite store, read: facts at a time, history, vectors, offsets, hash. Each call takes a connection."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lte_runtime.errors import Damaged, NotFound
from lte_runtime.facts.events import FOREIGN_NAME
from lte_runtime.facts.policy import EditName, name_of
from lte_runtime.store.db import FOLD, Connection
from lte_runtime.store.rows import EDIT_COLUMNS, EDIT_WIDTH, check_row, edit_from, evidence_of, fact_of
from lte_runtime.types import Edit, Fact, FactKey, Position, TopicPartition, Vectors

_VALID = "({0}.valid_until IS NULL OR {0}.valid_until>?2) AND {start}"
_NOW, _AS_OF = "({0}.valid_from IS NULL OR {0}.valid_from<=?2)", "{0}.since<=?2"


def _listed(start: str) -> str:
    """The valid rows of each key down to its newest that is no member of a set, numbered from the newest.

    Where a key's rows end is found once for the key: a set may have thousands.
    """
    outer, inner = (_VALID.format(name, start=start.format(name)) for name in "fg")
    return (
        "WITH selected AS MATERIALIZED (SELECT j.key AS place, j.value AS key, coalesce((SELECT g.rank FROM "
        f"facts g WHERE g.key=j.value AND NOT g.many AND {inner} ORDER BY g.rank DESC LIMIT 1), 0) AS floor "
        "FROM json_each(?1) j), listed AS (SELECT f.*, s.place, row_number() OVER (PARTITION BY s.place "
        "ORDER BY f.rank DESC) AS nth FROM selected s CROSS JOIN facts f ON f.key=s.key AND f.rank>=s.floor "
        f"WHERE {outer}) "
    )


def _facts_sql(start: str) -> str:
    """?3 of the listed rows of each key, the newest, with their edits."""
    return (
        f"{_listed(start)}SELECT {EDIT_COLUMNS}, f.many, f.target, k.namespace, k.subject, k.relation, "
        "f.key, f.rank, f.since, f.valid_from, f.valid_until, f.crc FROM listed f CROSS JOIN edits e "
        "ON e.id=f.edit CROSS JOIN keys k ON k.id=f.key WHERE f.nth<=?3 ORDER BY f.place, f.rank DESC"
    )


def _count_sql(start: str) -> str:
    return f"{_listed(start)}SELECT count(DISTINCT f.target) FROM listed f WHERE f.many"


ALL_MEMBERS = 2**62
FIRST_FOLD = "1"  # stores of before schema 4 do not name theirs
_FACTS_NOW, _FACTS_AS_OF = _facts_sql(_NOW), _facts_sql(_AS_OF)
_COUNT_NOW, _COUNT_AS_OF = _count_sql(_NOW), _count_sql(_AS_OF)

_OF_KEY = (
    "SELECT {0} FROM edits e WHERE e.key=?1 UNION ALL "
    "SELECT {0} FROM edits e WHERE e.key IS NULL AND e.namespace=?2 AND e.retracts IN "
    "(SELECT edit_id FROM edits WHERE key=?1 AND op='assert')"
)
_HISTORY = _OF_KEY.format(f"{EDIT_COLUMNS}, e.key")
_DELIVERIES = (
    f"SELECT edit, ts, topic, partition, offset, log FROM positions WHERE edit IN ({_OF_KEY.format('e.id')})"
)

_VECTORS = (
    "SELECT j.key, v.vector, v.crc FROM json_each(?) j CROSS JOIN keys k ON k.id=j.value "
    "CROSS JOIN vectors v ON v.hash=k.view_hash"
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
    facts_by_key: dict[int, dict[str, Fact]] = {key_id: {} for key_id in key_ids}
    sql = _FACTS_AS_OF if as_of else _FACTS_NOW
    for row in connection.execute(sql, (json.dumps(list(key_ids)), at_ms, most)):
        many, target, *key, key_id, rank, since, start, end, crc = row[EDIT_WIDTH:]
        edit = edit_from(row, FactKey(*key), topics)
        values = (key_id, rank, row[0], since, start, end, many, target)
        check_row(crc, "fact", *values, *evidence_of(edit))
        members = facts_by_key[key_id]
        if (many or not members) and target not in members:
            members[target] = fact_of(edit, key_id)
    return {key_id: tuple(members.values()) for key_id, members in facts_by_key.items()}


def count_members(connection: Connection, key_id: int, at_ms: int, *, as_of: bool) -> int:
    """How many members the set of a key has at a time; 0 for a key that holds one value."""
    sql = _COUNT_AS_OF if as_of else _COUNT_NOW
    return int(connection.execute(sql, (json.dumps([key_id]), at_ms)).fetchone()[0])


def history_rows(connection: Connection, key_id: int, namespace: str) -> list[Sequence[Any]]:
    """Rows of `EDIT_COLUMNS` and the key's number (null for a retraction by id alone)."""
    return connection.execute(_HISTORY, (key_id, namespace)).fetchall()  # type: ignore[no-any-return]


def history(
    connection: Connection, key_id: int, key: FactKey, topics: Mapping[int, str]
) -> tuple[list[Edit], dict[EditName, int]]:
    """All edits of a key and their rows, then their further deliveries; retractions by id alone included."""
    edits: dict[int, Edit] = {}
    for row in history_rows(connection, key_id, key.namespace):
        edits[row[0]] = edit_from(row, key if row[EDIT_WIDTH] is not None else None, topics)
    rows = {name_of(edit): row for row, edit in edits.items()}
    deliveries = list(edits.values())
    for row, timestamp_ms, topic, *place in connection.execute(_DELIVERIES, (key_id, key.namespace)):
        position = Position(topics[topic], *place)
        if position != edits[row].position:
            deliveries.append(replace(edits[row], position=position, timestamp_ms=timestamp_ms))
    return deliveries, rows


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
    offset_of = {}
    for topic, partition, next_offset, crc in connection.execute(
        "SELECT topic, partition, next, crc FROM offsets"
    ):
        check_row(crc, "offset", topic, partition, next_offset)
        offset_of[TopicPartition(topics[topic], partition)] = next_offset
    return offset_of


def leader_epochs(connection: Connection, topics: Mapping[int, str]) -> dict[TopicPartition, int]:
    """The leader epoch of the last record before each durable offset, where it is known."""
    rows = connection.execute("SELECT topic, partition, leader_epoch FROM offsets WHERE leader_epoch>=0")
    return {TopicPartition(topics[topic], partition): epoch for topic, partition, epoch in rows}


def vectors_of(connection: Connection, key_ids: Sequence[int], dimension: int) -> Vectors:
    """The first vector of each key's view [len(key_ids), dimension]; raises as `views_of`."""
    views = views_of(connection, key_ids, dimension)
    return np.stack([view[0] for view in views]) if views else np.empty((0, dimension), np.float32)


def views_of(connection: Connection, key_ids: Sequence[int], dimension: int) -> list[Vectors]:
    """Stored vectors [windows, dimension] of each key's view.

    Raises `NotFound`, and `Damaged` for a wrong checksum.
    """
    rows = connection.execute(_VECTORS, (json.dumps(list(key_ids)),))
    views = [view_from(data, crc, dimension) for _, data, crc in rows]
    if len(views) < len(key_ids):
        raise NotFound(f"no vectors for {len(key_ids) - len(views)} of {len(key_ids)} keys")
    return views


def view_from(data: bytes, crc: int, dimension: int) -> Vectors:
    """Stored vectors [windows, dimension]; raises `Damaged` when they are not what was stored."""
    if not data or len(data) % (4 * dimension) or zlib.crc32(data) != crc:
        raise Damaged("a stored vector does not match its checksum")
    return np.frombuffer(data, np.float32).reshape(-1, dimension)


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


def holders_of(connection: Connection, key_ids: Sequence[int], most: int) -> set[str]:
    """Who published the standing facts of keys without taking a name of another publisher.

    Of at most `most` facts; the empty name stands for events that declare no publisher.
    """
    sql = (
        "SELECT DISTINCT json_extract(e.body, '$[8]') FROM (SELECT f.edit FROM json_each(?) j JOIN facts f "
        "ON f.key=j.value LIMIT ?) AS standing JOIN edits e ON e.id=standing.edit "
        "WHERE instr(json_extract(e.body, '$[10]'), ?)=0"
    )
    rows = connection.execute(sql, (json.dumps(list(key_ids)), most, json.dumps(FOREIGN_NAME)))
    return {str(publisher) for (publisher,) in rows}


def counts(connection: Connection) -> tuple[int, int, int]:
    """(edits, keys, keys that have a fact)."""
    row = connection.execute(
        "SELECT (SELECT count(*) FROM edits), count(*), coalesce(sum(facts>0), 0) FROM keys"
    ).fetchone()
    return int(row[0]), int(row[1]), int(row[2])


def state_hash(connection: Connection) -> str:
    """The version of the key form, a hyphen, and a SHA-256 sum over the standing facts of every key.

    There is no clock, position or order of arrival in it.
    """
    total = 0
    for text, chain in connection.execute("SELECT key, chain FROM keys WHERE facts>0"):
        total += int.from_bytes(hashlib.sha256(text.encode() + b"\0" + chain).digest(), "big")
    fold = connection.execute("SELECT value FROM meta WHERE name=?", (FOLD,)).fetchone()
    return f"{fold[0] if fold else FIRST_FOLD}-{total % 2**256:064x}"
