"""The edits of one batch into the store, inside its transaction.

Most edits are the newest of their key and go on top, or take from the top; only where order, a collapsed
revision or an earlier retraction is in play is the key's whole history folded again.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from lte_runtime.facts.policy import (
    Member,
    at_time,
    effective_times,
    fold,
    name_of,
    target_form,
    time_of,
    withdrawn_members,
)
from lte_runtime.store import quarantine, reader
from lte_runtime.store.db import Connection
from lte_runtime.store.key_update import KeyHighWater, KeyUpdate, revive, view_hash, view_text
from lte_runtime.store.rows import (
    EDIT_COLUMNS,
    EDIT_WIDTH,
    INSERT_EDIT,
    check_row,
    edit_from,
    edit_values,
    evidence_of,
    row_crc,
)
from lte_runtime.types import Cardinality, Edit, FactKey, Op, Position, Rejected

_STANDING = (
    f"SELECT {EDIT_COLUMNS}, f.since FROM facts f JOIN edits e ON e.id=f.edit WHERE f.key=? ORDER BY f.rank"
)
_NAMES = json.JSONEncoder(ensure_ascii=False).encode


class WriterStore(Protocol):
    """What is needed of the store."""

    connection: Connection
    topics: dict[int, str]
    retracted: set[tuple[str, str]]

    def topic_number(self, topic_id: str) -> int: ...


@dataclass(frozen=True, slots=True)
class KeyChange:
    """What the in-memory indexes must learn about a key: whether it has facts, under which names."""

    key_id: int
    namespace: str
    present: bool
    was_present: bool
    names: tuple[str, ...]
    old_names: tuple[str, ...]
    view_hash: bytes | None = None


@dataclass(slots=True)
class StoreResult:
    """What one transaction did."""

    applied: list[str] = field(default_factory=list)
    duplicates: int = 0
    conflicts: int = 0
    rejected: int = 0
    quarantine_bytes: int = 0
    changes: list[KeyChange] = field(default_factory=list)


class BatchWriter:
    """The edits of one batch, inside its transaction."""

    def __init__(self, store: WriterStore, now_ms: int) -> None:
        self._store, self._db, self._now = store, store.connection, now_ms
        self._updates: dict[int, KeyUpdate] = {}
        self._ids: dict[str, int] = {}
        self._replays = True
        self._result = StoreResult()
        self.retracted: set[tuple[str, str]] = set()
        """(namespace, id) of edits that retractions of this batch name."""

    def write(self, edits: Sequence[Edit], rejected: Sequence[Rejected]) -> StoreResult:
        self._replays = quarantine.has_rows(self._db)
        for edit in edits:
            self._write_edit(edit)
        for rejection in rejected:
            self._quarantine(rejection)
        for update in self._updates.values():
            self._finish(update)
        return self._result

    def refold(self, keys: Iterable[FactKey]) -> StoreResult:
        """Fold these keys from their edits anew."""
        for key in keys:
            self._key_update(key).refold = True
        for update in self._updates.values():
            self._finish(update)
        return self._result

    def _write_edit(self, edit: Edit) -> None:
        if self._apply_edit(edit) and self._replays:
            topic = self._store.topic_number(edit.position.topic_id)
            quarantine.mark_replayed(self._db, topic, edit.position)

    def _apply_edit(self, edit: Edit) -> bool:
        """Bring one edit in, or count it as a duplicate; False when its id has another content already."""
        topic = self._store.topic_number(edit.position.topic_id)
        if self._has_position(topic, edit.position):
            self._result.duplicates += 1
            return True
        update = self._key_update(edit.key) if edit.key else None
        earlier = self._same_id(edit, update)
        if earlier is None:
            self._insert(edit, update, topic)
        elif earlier[1] == edit.content_hash:
            self._add_delivery(edit, update, topic, earlier)
        else:
            self._conflict(edit)
            return False
        return True

    def _has_position(self, topic: int, position: Position) -> bool:
        sql = "SELECT 1 FROM positions WHERE topic=? AND partition=? AND offset=? AND log=?"
        values = (topic, position.partition, position.offset, position.log)
        return self._db.execute(sql, values).fetchone() is not None

    def _same_id(self, edit: Edit, update: KeyUpdate | None) -> tuple[int, str, int, int] | None:
        if update and update.untouched:
            return None
        columns = "SELECT id, content_hash, topic, partition FROM edits WHERE "
        where, value = ("key=?", update.id) if update else ("key IS NULL AND namespace=?", edit.namespace)
        return self._db.execute(  # type: ignore[no-any-return]
            f"{columns}{where} AND source=? AND op=? AND edit_id=?",
            (value, edit.source_uri, edit.op.value, edit.id),
        ).fetchone()

    def _insert(self, edit: Edit, update: KeyUpdate | None, topic: int) -> None:
        self._db.execute(INSERT_EDIT, edit_values(edit, update.id if update else None, topic))
        if update:
            update.untouched = False
        row = int(self._db.last_insert_rowid())
        self._put_position(edit, topic, row)
        self._result.applied.append(edit.id)
        if edit.retracts is not None:
            self.retracted.add((edit.namespace, edit.retracts))
        if update is None:
            for named_key in self._named_keys(edit):
                self._retract(edit, named_key)
        elif edit.op is Op.ASSERT:
            self._assert(edit, update, row)
        else:
            self._retract(edit, update)

    def _assert(self, edit: Edit, update: KeyUpdate, row: int) -> None:
        if update.view is None:
            update.view = view_text(edit, update.key)
            update.view_hash = view_hash(update.view)
        name = (edit.namespace, edit.id)
        is_retracted = name in self.retracted or name in self._store.retracted
        timed = update.heads.timed(edit)
        if update.refold or is_retracted or timed is None or not update.heads.is_newest(timed):
            update.refold = True
            return
        update.heads.observe(timed)
        self._put_fact(update.id, update.facts, timed, row)
        update.put_on_top(timed)

    def _retract(self, edit: Edit, update: KeyUpdate) -> None:
        timed = update.heads.timed(edit)
        if update.refold or timed is None or not update.heads.is_latest_retraction(timed):
            update.refold = True
            return
        update.heads.observe(timed)
        if not self._withdraw_from_standing(timed, update):
            update.refold = True

    def _withdraw_from_standing(self, edit: Edit, update: KeyUpdate) -> bool:
        """Take what the newest retraction of a key takes; False when the facts that stand do not tell."""
        rows = self._db.execute(_STANDING, (update.id,)).fetchall()
        members = [self._member(row, update.key) for row in rows]
        named_ids = {edit.retracts} & {member.edit.id for member in members}
        if edit.retracts is not None and not named_ids and self._has_edit(update, edit.retracts):
            return False  # withdrawn already, or collapsed into another: the history knows
        withdrawn = withdrawn_members(
            edit, members, {edit_id for edit_id in named_ids if edit_id}, newest=True
        )
        withdrawn_ids = {id(member) for member in withdrawn}
        remaining = [index for index, member in enumerate(members) if id(member) not in withdrawn_ids]
        self._write_facts(update, [(members[index], rows[index][0]) for index in remaining])
        return True

    def _member(self, row: Sequence[Any], key: FactKey) -> Member:
        edit = edit_from(row, key, self._store.topics)
        return Member(edit if edit.valid_from is not None else at_time(edit, row[EDIT_WIDTH]), (edit.id,))

    def _has_edit(self, update: KeyUpdate, edit_id: str) -> bool:
        sql = "SELECT 1 FROM edits WHERE key=? AND op='assert' AND edit_id=?"
        return self._db.execute(sql, (update.id, edit_id)).fetchone() is not None

    def _write_facts(self, update: KeyUpdate, members: Sequence[tuple[Member, int]]) -> None:
        """Write the facts of a key anew: members with the rows of their edits, lowest first."""
        self._db.execute("DELETE FROM facts WHERE key=?", (update.id,))
        for rank, (member, row) in enumerate(members):
            self._put_fact(update.id, rank, member.edit, row)
        update.set_standing([member.edit for member, _ in members])

    def _put_fact(self, key_id: int, rank: int, edit: Edit, row: int) -> None:
        since = time_of(edit) if edit.valid_from is None else edit.valid_from
        many = edit.cardinality is Cardinality.MANY
        values = (key_id, rank, row, since, edit.valid_from, edit.valid_until, int(many), target_form(edit))
        crc = row_crc(*values, *evidence_of(edit))
        self._db.execute("INSERT INTO facts VALUES(?,?,?,?,?,?,?,?,?)", (*values, crc))

    def _put_position(self, edit: Edit, topic: int, row: int) -> None:
        position = edit.position
        self._db.execute(
            "INSERT INTO positions(topic, partition, offset, log, ts, edit) VALUES(?,?,?,?,?,?)",
            (topic, position.partition, position.offset, position.log, edit.timestamp_ms, row),
        )

    def _add_delivery(
        self, edit: Edit, update: KeyUpdate | None, topic: int, earlier: tuple[int, str, int, int]
    ) -> None:
        """The same event again: one more position, and the earliest of them is the one that counts.

        A later record of the same partition is not the earliest; it may move the time of what follows.
        """
        row, _, earlier_topic, earlier_partition = earlier
        self._put_position(edit, topic, row)
        self._result.duplicates += 1
        same_partition = (earlier_topic, earlier_partition) == (topic, edit.position.partition)
        for key_update in [update] if update else self._named_keys(edit):
            timed = key_update.heads.timed(edit)
            if key_update.refold or timed is None or not same_partition:
                key_update.refold = True
            else:
                key_update.heads.observe_delivery(timed)

    def _conflict(self, edit: Edit) -> None:
        if edit.raw is None:
            raise ValueError("an edit without its raw record cannot be quarantined")
        message = f"id {edit.id!r} is already used by an edit of this key with other content"
        self._result.conflicts += 1
        self._quarantine(Rejected(edit.raw, "id_conflict", message))

    def _quarantine(self, rejected: Rejected) -> None:
        topic = self._store.topic_number(rejected.record.position.topic_id)
        size = quarantine.insert(self._db, rejected, topic, self._now)
        self._result.rejected += 1
        self._result.quarantine_bytes += size

    def _named_keys(self, edit: Edit) -> list[KeyUpdate]:
        """A retraction by id alone reaches every key that has an edit of that id."""
        rows = self._db.execute(
            "SELECT DISTINCT k.namespace, k.subject, k.relation FROM edits e JOIN keys k ON k.id=e.key "
            "WHERE e.edit_id=? AND e.namespace=? AND e.op='assert'",
            (edit.retracts, edit.namespace),
        )
        return [self._key_update(FactKey(*parts)) for parts in rows.fetchall()]

    def _key_update(self, key: FactKey) -> KeyUpdate:
        text = key.text
        key_id = self._ids.get(text)
        if key_id is not None:
            return self._updates[key_id]
        update = self._read_key(key, text)
        if update is None and revive(self._db, key):
            update = self._read_key(key, text)
        update = update or self._new_key(key, text)
        self._ids[text], self._updates[update.id] = update.id, update
        return update

    def _read_key(self, key: FactKey, text: str) -> KeyUpdate | None:
        sql = "SELECT id, view, view_hash, names, facts, chain, heads, crc FROM keys WHERE key=?"
        row = self._db.execute(sql, (text,)).fetchone()
        if row is None:
            return None
        check_row(row[7], "key", row[0], text, row[3], row[4], row[5])
        names: dict[str, str] = dict(json.loads(row[3]))
        update = KeyUpdate(row[0], key, row[1], row[2], names, row[4], row[5], KeyHighWater.load(row[6]))
        update.was_present, update.old_names = update.facts > 0, update.name_list
        return update

    def _new_key(self, key: FactKey, text: str) -> KeyUpdate:
        sql = "INSERT INTO keys(key, namespace, subject, relation) VALUES(?,?,?,?)"
        self._db.execute(sql, (text, key.namespace, key.subject, key.relation))
        return KeyUpdate(int(self._db.last_insert_rowid()), key, untouched=True)

    def _finish(self, update: KeyUpdate) -> None:
        if update.refold:
            self._fold_again(update)
        names = _NAMES(list(update.names.items()))
        self._db.execute(
            "UPDATE keys SET view=?, view_hash=?, names=?, facts=?, chain=?, heads=?, crc=? WHERE id=?",
            (
                update.view,
                update.view_hash,
                names,
                update.facts,
                update.chain,
                update.heads.dump(),
                row_crc(update.id, update.key.text, names, update.facts, update.chain),
                update.id,
            ),
        )
        change = KeyChange(
            update.id,
            update.key.namespace,
            update.facts > 0,
            update.was_present,
            update.name_list,
            update.old_names,
            update.view_hash,
        )
        self._result.changes.append(change)

    def _fold_again(self, update: KeyUpdate) -> None:
        history, rows = reader.history(self._db, update.id, update.key, self._store.topics)
        state = fold(history)
        stored = {name_of(edit): edit.position for edit in history[: len(rows)]}
        for edit in (*(member.edit for member in state.members), *state.tombstones):
            if edit.key is not None and edit.position != stored[name_of(edit)]:
                self._put_earliest(edit, rows[name_of(edit)])
        self._write_facts(update, [(member, rows[name_of(member.edit)]) for member in state.members])
        update.heads = KeyHighWater()
        for edit in effective_times(history):
            update.heads.observe(edit)

    def _put_earliest(self, edit: Edit, row: int) -> None:
        """The row of an edit tells its earliest delivery."""
        position, topic = edit.position, self._store.topic_number(edit.position.topic_id)
        self._db.execute(
            "UPDATE edits SET ts=?, topic=?, partition=?, offset=?, log=? WHERE id=?",
            (edit.timestamp_ms, topic, position.partition, position.offset, position.log, row),
        )
