"""Keys of a store that an earlier version wrote, in the key form of this one.

Names that earlier rules kept apart (`O'Hanlon` and `O’Hanlon`) may have one form now: their keys become one,
with the edits of all of them, as if every event had been read by this version. Text of ASCII letters alone
has the same form in every version.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from lte_runtime.names.normalise import key_form
from lte_runtime.store import reader
from lte_runtime.store.db import Connection
from lte_runtime.store.rows import EDIT_COLUMNS, body_of, edit_from, in_key, row_crc
from lte_runtime.types import Edit, FactKey

SNAPSHOT_TOKENS = "snapshot_tokens"
"""Name of the value in `meta` that says which snapshots of the indexes are this store's."""
KEYS_JOINED = "keys_joined"
"""Flag of an edit whose key became one with a key of other publishers."""
_NOT_ASCII = "GLOB '*[^ -~]*'"
_CHANGEABLE = (
    "SELECT id, namespace, subject, relation FROM keys "
    f"WHERE subject<>'' AND namespace||subject||relation {_NOT_ASCII} ORDER BY id"
)
_PUBLISHERS = "SELECT DISTINCT coalesce(nullif(body->>8, ''), source) FROM edits WHERE key=? ORDER BY 1"
# What all deliveries of one edit share; two rows of it come from two namespaces that became one.
_TWINS = (
    "SELECT e.id, first.id FROM edits e JOIN (SELECT min(id) AS id, key, namespace, source, op, edit_id, "
    "content_hash FROM edits WHERE key=?1 GROUP BY source, op, edit_id, content_hash) first ON "
    "first.source=e.source AND first.op=e.op AND first.edit_id=e.edit_id AND "
    "first.content_hash=e.content_hash WHERE e.key=?1 AND e.id>first.id"
)


@dataclass(frozen=True, slots=True)
class FormerKey:
    """A key as an earlier version wrote it, who publishes under it (the declared publisher, else the source)
    and how many edits it has."""

    key: FactKey
    publishers: tuple[str, ...]
    edits: int


@dataclass(frozen=True, slots=True)
class JoinedKey:
    """A key of this version that several keys of before become."""

    key: FactKey
    former: tuple[FormerKey, ...]

    @property
    def across_publishers(self) -> bool:
        """Whether histories of different publishers fall together."""
        return len({former.publishers for former in self.former}) > 1


def reformed(key: FactKey) -> FactKey:
    """The key in today's form; the key itself where that would leave nothing of a part."""
    parts = (key_form(key.namespace), key_form(key.subject), key_form(key.relation))
    return FactKey(*parts) if bool(key.relation) is bool(parts[2]) and parts[0] and parts[1] else key


def renamed_keys(connection: Connection) -> Iterator[tuple[int, FactKey]]:
    """Number and new form of the keys whose form changes."""
    for key_id, *parts in connection.execute(_CHANGEABLE):
        key = FactKey(*parts)
        if reformed(key) != key:
            yield key_id, reformed(key)


def changed_keys(connection: Connection) -> dict[FactKey, list[int]]:
    """The new forms of keys, each with the numbers of all keys that it stands for then."""
    changed: dict[FactKey, list[int]] = {}
    for key_id, key in renamed_keys(connection):
        changed.setdefault(key, []).append(key_id)
    for key, key_ids in changed.items():
        present = reader.key_row(connection, key)
        if present is not None:
            key_ids.append(present)
    return {key: sorted(key_ids) for key, key_ids in changed.items()}


def joined_keys(connection: Connection, changed: Mapping[FactKey, Sequence[int]]) -> list[JoinedKey]:
    """What becomes one key of several, those of different publishers first."""
    joined = [
        JoinedKey(key, tuple(_former(connection, key_id) for key_id in key_ids))
        for key, key_ids in changed.items()
        if len(key_ids) > 1
    ]
    return sorted(joined, key=lambda joined_key: (not joined_key.across_publishers, joined_key.key))


def _former(connection: Connection, key_id: int) -> FormerKey:
    publishers = tuple(row[0] for row in connection.execute(_PUBLISHERS, (key_id,)))
    edits = connection.execute("SELECT count(*) FROM edits WHERE key=?", (key_id,)).fetchone()[0]
    return FormerKey(reader.key_of(connection, key_id), publishers, edits)


def rekey(connection: Connection, topics: Mapping[int, str]) -> list[int]:
    """Bring every key to today's form, in the caller's transaction; the numbers of the keys that changed,
    whose facts must be folded again."""
    changed = changed_keys(connection)
    for joined in joined_keys(connection, changed):
        _note(connection, joined, changed[joined.key][0])
    for key, key_ids in changed.items():
        _rename(connection, topics, key, key_ids)
    _rename_retractions(connection, topics)
    if any(len(key_ids) > 1 for key_ids in changed.values()):
        # Numbers of keys are free again: no snapshot may say what they meant.
        connection.execute("DELETE FROM meta WHERE name=?", (SNAPSHOT_TOKENS,))
        connection.execute(
            "DELETE FROM vectors WHERE hash NOT IN (SELECT view_hash FROM keys WHERE view_hash IS NOT NULL)"
        )
    return [key_ids[0] for key_ids in changed.values()]


def _note(connection: Connection, joined: JoinedKey, key_id: int) -> None:
    connection.executemany(
        "INSERT INTO joined_keys VALUES(?,?,?,?,?)",
        [
            (key_id, former.key.text, json.dumps(former.publishers), former.edits, joined.across_publishers)
            for former in joined.former
        ],
    )


def _rename(connection: Connection, topics: Mapping[int, str], key: FactKey, key_ids: Sequence[int]) -> None:
    """Give the first of these keys the new form and the edits of all; the others go."""
    first, *others = key_ids
    across = "SELECT 1 FROM joined_keys WHERE key=? AND across"
    flags = {KEYS_JOINED} if connection.execute(across, (first,)).fetchone() else set()
    for key_id in key_ids:
        former = reader.key_of(connection, key_id)
        for row_id, edit in _edits(connection, topics, "e.key=?", (key_id,), former):
            moved = in_key(edit, key, key.namespace)
            _put(connection, row_id, replace(moved, flags=tuple(sorted({*moved.flags, *flags}))), first)
    numbers = json.dumps(key_ids)
    view = connection.execute(
        "SELECT view, view_hash FROM keys WHERE id IN (SELECT value FROM json_each(?)) AND view IS NOT NULL "
        "ORDER BY id LIMIT 1",
        (numbers,),
    ).fetchone()
    connection.execute("DELETE FROM facts WHERE key IN (SELECT value FROM json_each(?))", (numbers,))
    for key_id in others:
        connection.execute("UPDATE lost_edits SET key=? WHERE key=?", (first, key_id))
        connection.execute("DELETE FROM keys WHERE id=?", (key_id,))
    connection.execute(
        "UPDATE keys SET key=?, namespace=?, subject=?, relation=?, view=?, view_hash=?, names='[]', "
        "facts=0, chain=x'', crc=? WHERE id=?",
        (
            key.text,
            key.namespace,
            key.subject,
            key.relation,
            *(view or (None, None)),
            row_crc(first, key.text, "[]", 0, b""),
            first,
        ),
    )
    for twin, row in connection.execute(_TWINS, (first,)).fetchall():
        connection.execute("UPDATE positions SET edit=? WHERE edit=?", (row, twin))
        connection.execute("DELETE FROM edits WHERE id=?", (twin,))


def _rename_retractions(connection: Connection, topics: Mapping[int, str]) -> None:
    """Retractions by id alone belong to a namespace, not to a key."""
    where = f"e.key IS NULL AND e.namespace {_NOT_ASCII}"
    for row_id, edit in _edits(connection, topics, where, (), None):
        _put(connection, row_id, in_key(edit, None, key_form(edit.namespace)), None)


def _edits(
    connection: Connection,
    topics: Mapping[int, str],
    where: str,
    values: Sequence[object],
    key: FactKey | None,
) -> Iterator[tuple[int, Edit]]:
    rows = connection.execute(f"SELECT {EDIT_COLUMNS} FROM edits e WHERE {where}", values).fetchall()
    return ((row[0], edit_from(row, key, topics)) for row in rows)


def _put(connection: Connection, row_id: int, edit: Edit, key_id: int | None) -> None:
    connection.execute(
        "UPDATE edits SET key=?, namespace=?, content_hash=?, body=? WHERE id=?",
        (key_id, edit.namespace, edit.content_hash, body_of(edit), row_id),
    )


def refolded_keys(connection: Connection, changed: Sequence[int]) -> list[FactKey]:
    """Keys whose facts may differ once targets and names have today's form: those that changed, and those
    with an edit that is not of ASCII alone."""
    rows = connection.execute(
        "SELECT namespace, subject, relation FROM keys WHERE subject<>'' AND (id IN (SELECT value FROM "
        f"json_each(?)) OR id IN (SELECT key FROM edits WHERE body {_NOT_ASCII})) ORDER BY id",
        (json.dumps(changed),),
    )
    return [FactKey(*parts) for parts in rows]


def stored_joins(connection: Connection) -> list[JoinedKey]:
    """What upgrades of this store have joined, those of different publishers first."""
    former: dict[int, list[FormerKey]] = {}
    rows = connection.execute("SELECT key, former, publishers, edits FROM joined_keys ORDER BY key, former")
    for key_id, text, publishers, edits in rows:
        former_key = FormerKey(FactKey(*text.split("\x1f")), tuple(json.loads(publishers)), edits)
        former.setdefault(key_id, []).append(former_key)
    joined = [JoinedKey(reader.key_of(connection, key_id), tuple(keys)) for key_id, keys in former.items()]
    return sorted(joined, key=lambda joined_key: (not joined_key.across_publishers, joined_key.key))


def count_across(connection: Connection) -> int:
    """How many keys upgrades have joined although different publishers wrote them."""
    return int(connection.execute("SELECT count(DISTINCT key) FROM joined_keys WHERE across").fetchone()[0])
