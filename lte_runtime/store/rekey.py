"""Keys of a store that an earlier version wrote, in the key form of this one.

Names that earlier rules kept apart (`O'Hanlon` and `O’Hanlon`) may have one form now: their keys become one,
with the edits of all of them, as if every event had been read by this version. Text of ASCII letters alone
has the same form in every version.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from functools import partial

from lte_runtime.facts.events import distinct_names
from lte_runtime.names.normalise import key_form
from lte_runtime.store import reader
from lte_runtime.store.db import Connection
from lte_runtime.store.rows import EDIT_COLUMNS, EDIT_WIDTH, body_of, edit_from, rehashed, row_crc
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
_LISTED = "IN (SELECT value FROM json_each(?1))"
_EDIT_WITH_KEY = (
    f"SELECT {EDIT_COLUMNS}, k.namespace, k.subject, k.relation FROM edits e LEFT JOIN keys k ON k.id=e.key "
    "WHERE e.id=?"
)
# Which edits are changed. Retractions by id alone belong to a namespace, not to a key.
_OF_KEYS = f"e.key {_LISTED}"
_RETRACTIONS = f"e.key IS NULL AND e.namespace {_NOT_ASCII}"
_WITH_ALIASES = (
    f"(json_array_length(e.body, '$[5]')>1 OR json_array_length(e.body, '$[6]')>1) AND e.body {_NOT_ASCII}"
)
_WITH_TEXTS = f"SELECT DISTINCT key FROM edits WHERE key IS NOT NULL AND body {_NOT_ASCII}"
_CONCERNED = (
    f"SELECT namespace, subject, relation FROM keys WHERE subject<>'' AND (id {_LISTED} OR relation='' "
    "OR id IN (SELECT n.key FROM edits r JOIN edits n ON n.edit_id=r.retracts AND n.namespace=r.namespace "
    "WHERE r.key IS NULL)) ORDER BY id"
)
_PUBLISHERS = "SELECT DISTINCT coalesce(nullif(body->>8, ''), source) FROM edits WHERE key=? ORDER BY 1"
# What all deliveries of one edit share; two rows of it come from two namespaces that became one.
_SAME = "namespace, source, op, edit_id, content_hash"
_TWINS = (
    f"SELECT id, first FROM (SELECT id, min(id) OVER (PARTITION BY {_SAME}) AS first FROM edits "
    "WHERE key IS ?) WHERE id>first"
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


def rekey(connection: Connection, topics: Mapping[int, str]) -> list[FactKey]:
    """Bring every key to today's form, in the caller's transaction; the keys that must be folded again.

    These are the keys that changed, those with an edit that is not of ASCII alone (targets and names have a
    form too), those that a retraction by id alone reaches, whose namespace may have changed, and prompts: by
    which names they are found is told by this version's rules.
    """
    concerned = [row[0] for row in connection.execute(_WITH_TEXTS)]
    changed = changed_keys(connection)
    joined = joined_keys(connection, changed)
    for joined_key in joined:
        _note(connection, joined_key, changed[joined_key.key][0])
    across = {joined_key.key for joined_key in joined if joined_key.across_publishers}
    for key, key_ids in changed.items():
        flags = {KEYS_JOINED} if key in across else set()
        _rewrite(connection, topics, _OF_KEYS, (json.dumps(key_ids),), partial(_moved, key, flags))
        _rename(connection, key, key_ids)
    _rewrite(connection, topics, _RETRACTIONS, (), _in_namespace)
    _rewrite(connection, topics, _WITH_ALIASES, (), _distinct_aliases)
    for key_id in (None, *(changed[joined_key.key][0] for joined_key in joined)):
        _join_twins(connection, key_id)
    if joined:
        # Numbers of keys are free again: no snapshot may say what they meant.
        connection.execute("DELETE FROM meta WHERE name=?", (SNAPSHOT_TOKENS,))
        connection.execute(
            "DELETE FROM vectors WHERE hash NOT IN (SELECT view_hash FROM keys WHERE view_hash IS NOT NULL)"
        )
    numbers = json.dumps([*concerned, *(key_ids[0] for key_ids in changed.values())])
    return [FactKey(*parts) for parts in connection.execute(_CONCERNED, (numbers,))]


def _note(connection: Connection, joined: JoinedKey, key_id: int) -> None:
    connection.executemany(
        "INSERT INTO joined_keys VALUES(?,?,?,?,?)",
        [
            (key_id, former.key.text, json.dumps(former.publishers), former.edits, joined.across_publishers)
            for former in joined.former
        ],
    )


def _rewrite(
    connection: Connection,
    topics: Mapping[int, str],
    where: str,
    values: Sequence[object],
    change: Callable[[Edit], Edit],
) -> None:
    """Change edits, whose stored text must match their hashes, and make the hashes anew."""
    row_ids = connection.execute(f"SELECT e.id FROM edits e WHERE {where}", values).fetchall()
    for (row_id,) in row_ids:
        row = connection.execute(_EDIT_WITH_KEY, (row_id,)).fetchone()
        key = None if row[EDIT_WIDTH] is None else FactKey(*row[EDIT_WIDTH:])
        edit = edit_from(row, key, topics)
        changed = rehashed(change(edit))
        connection.execute(
            "UPDATE edits SET namespace=?, content_hash=?, body=? WHERE id=?",
            (changed.namespace, changed.content_hash, body_of(changed), row_id),
        )


def _moved(key: FactKey, flags: Set[str], edit: Edit) -> Edit:
    return replace(edit, key=key, namespace=key.namespace, flags=tuple(sorted({*edit.flags, *flags})))


def _in_namespace(edit: Edit) -> Edit:
    return replace(edit, namespace=key_form(edit.namespace) or edit.namespace)


def _distinct_aliases(edit: Edit) -> Edit:
    """Aliases as `decode` takes them: no two with one form."""
    aliases, target_aliases = distinct_names(edit.subject_aliases), distinct_names(edit.target_aliases)
    return replace(edit, subject_aliases=aliases, target_aliases=target_aliases)


def _rename(connection: Connection, key: FactKey, key_ids: Sequence[int]) -> None:
    """Give the first of these keys the new form and the edits of all; the others go."""
    first, numbers = key_ids[0], json.dumps(key_ids)
    view = connection.execute(
        f"SELECT view, view_hash FROM keys WHERE id {_LISTED} AND view IS NOT NULL ORDER BY id LIMIT 1",
        (numbers,),
    ).fetchone()
    connection.execute(f"DELETE FROM facts WHERE key {_LISTED}", (numbers,))
    connection.execute(f"UPDATE edits SET key=?2 WHERE key {_LISTED}", (numbers, first))
    connection.execute(f"UPDATE lost_edits SET key=?2 WHERE key {_LISTED}", (numbers, first))
    connection.execute(f"DELETE FROM keys WHERE id {_LISTED} AND id<>?2", (numbers, first))
    parts = (key.text, key.namespace, key.subject, key.relation, *(view or (None, None)))
    connection.execute(
        "UPDATE keys SET key=?, namespace=?, subject=?, relation=?, view=?, view_hash=?, names='[]', "
        "facts=0, chain=x'', crc=? WHERE id=?",
        (*parts, row_crc(first, key.text, "[]", 0, b""), first),
    )


def _join_twins(connection: Connection, key_id: int | None) -> None:
    """Rows of a key (None: retractions by id alone) that say the same become deliveries of the first."""
    for twin, row_id in connection.execute(_TWINS, (key_id,)).fetchall():
        connection.execute("UPDATE positions SET edit=? WHERE edit=?", (row_id, twin))
        connection.execute("DELETE FROM edits WHERE id=?", (twin,))


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
