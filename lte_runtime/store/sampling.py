"""Reading for those who watch: a seeded sample of the current keys, and what arrived since a row."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from lte_runtime.store.db import Connection

# Up to so many keys for each one wanted, all are listed; beyond, rows are drawn.
_LISTED = 8


@dataclass(frozen=True, slots=True)
class Arrival:
    """An edit as it entered the store, oldest first by `row`. `key_id` and `relation` are None for a
    retraction by id alone, `relation` is empty for a prompt key."""

    row: int
    edit_id: str
    op: str
    timestamp_ms: int
    key_id: int | None
    relation: str | None


def sample_keys(connection: Connection, limit: int, rng: Random) -> list[int]:
    """At most `limit` different keys that have a fact: the same for the same store and generator.

    Exact where keys are few; among many, a key behind a run of withdrawn ones is likelier than another.
    """
    top = int(connection.execute("SELECT coalesce(max(id), 0) FROM keys").fetchone()[0])
    if top <= _LISTED * limit:
        rows = connection.execute("SELECT id FROM keys WHERE facts>0 ORDER BY id").fetchall()
        ids = [int(row[0]) for row in rows]
        return sorted(rng.sample(ids, min(limit, len(ids))))
    return sorted(set(_random_ids(connection, limit, top, rng)))


def _random_ids(connection: Connection, count: int, top: int, rng: Random) -> Iterator[int]:
    sql = "SELECT id FROM keys WHERE id>=? AND facts>0 ORDER BY id LIMIT 1"
    for _ in range(count):
        row = connection.execute(sql, (rng.randint(1, top),)).fetchone()
        if row is not None:
            yield int(row[0])


def arrivals(connection: Connection, after: int, limit: int) -> list[Arrival]:
    """Edits behind the row `after`, in the order in which they were applied."""
    rows = connection.execute(
        "SELECT e.id, e.edit_id, e.op, e.ts, e.key, k.relation FROM edits e LEFT JOIN keys k ON k.id=e.key "
        "WHERE e.id>? ORDER BY e.id LIMIT ?",
        (after, limit),
    )
    return [Arrival(*row) for row in rows]


def last_row(connection: Connection) -> int:
    """The row of the edit that was applied last; 0 for an empty store."""
    return int(connection.execute("SELECT coalesce(max(id), 0) FROM edits").fetchone()[0])


def meta_names(connection: Connection, prefix: str) -> list[str]:
    """Names of the small durable values that begin with a prefix, in order."""
    rows = connection.execute(
        "SELECT name FROM meta WHERE substr(name, 1, ?)=? ORDER BY name", (len(prefix), prefix)
    )
    return [str(row[0]) for row in rows]
