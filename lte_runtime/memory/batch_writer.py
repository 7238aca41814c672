"""The edits of one batch into the store, inside its transaction.

Most edits are the newest of their key and go on top, or take from the top; only where order, a collapsed
revision or an earlier retraction is in play is the key's whole history folded again.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from lte_runtime.memory import quarantine, reads
from lte_runtime.memory.db import Connection
from lte_runtime.memory.keywork import KeyHighWater, KeyUpdate, revive, view_hash, view_text
from lte_runtime.memory.policy import (
    Member,
    at_time,
    effective_times,
    fold,
    name_of,
    taken_by,
    target_form,
    time_of,
)
from lte_runtime.memory.rows import (
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
        self._work: dict[int, KeyUpdate] = {}
        self._ids: dict[str, int] = {}
        self._replays = True
        self._result = StoreResult()
        self.retracted: set[tuple[str, str]] = set()
        """(namespace, id) of edits that retractions of this batch name."""

    def write(self, edits: Sequence[Edit], rejected: Sequence[Rejected]) -> StoreResult:
        self._replays = quarantine.has_rows(self._db)
        for edit in edits:
            self._write_edit(edit)
        for one in rejected:
            self._quarantine(one)
        for work in self._work.values():
            self._finish(work)
        return self._result

    def refold(self, keys: Iterable[FactKey]) -> StoreResult:
        """Fold these keys from their edits anew."""
        for key in keys:
            self._key_work(key).refold = True
        for work in self._work.values():
            self._finish(work)
        return self._result

    def _write_edit(self, edit: Edit) -> None:
        if self._take_edit(edit) and self._replays:
            topic = self._store.topic_number(edit.position.topic_id)
            quarantine.mark_replayed(self._db, topic, edit.position)

    def _take_edit(self, edit: Edit) -> bool:
        """Bring one edit in, or count it as a duplicate; False when its id has another content already."""
        topic = self._store.topic_number(edit.position.topic_id)
        if self._is_known(topic, edit.position):
            self._result.duplicates += 1
            return True
        work = self._key_work(edit.key) if edit.key else None
        known = self._same_id(edit, work)
        if known is None:
            self._insert(edit, work, topic)
        elif known[1] == edit.content_hash:
            self._add_delivery(edit, work, topic, known)
        else:
            self._conflict(edit)
            return False
        return True

    def _is_known(self, topic: int, where: Position) -> bool:
        sql = "SELECT 1 FROM positions WHERE topic=? AND partition=? AND offset=? AND log=?"
        values = (topic, where.partition, where.offset, where.log)
        return self._db.execute(sql, values).fetchone() is not None

    def _same_id(self, edit: Edit, work: KeyUpdate | None) -> tuple[int, str, int, int] | None:
        if work and work.untouched:
            return None
        columns = "SELECT id, content_hash, topic, partition FROM edits WHERE "
        where, value = ("key=?", work.id) if work else ("key IS NULL AND namespace=?", edit.namespace)
        return self._db.execute(  # type: ignore[no-any-return]
            f"{columns}{where} AND source=? AND op=? AND edit_id=?",
            (value, edit.source_uri, edit.op.value, edit.id),
        ).fetchone()

    def _insert(self, edit: Edit, work: KeyUpdate | None, topic: int) -> None:
        self._db.execute(INSERT_EDIT, edit_values(edit, work.id if work else None, topic))
        if work:
            work.untouched = False
        row = int(self._db.last_insert_rowid())
        self._put_position(edit, topic, row)
        self._result.applied.append(edit.id)
        if edit.retracts is not None:
            self.retracted.add((edit.namespace, edit.retracts))
        if work is None:
            for named in self._named_keys(edit):
                self._retract(edit, named)
        elif edit.op is Op.ASSERT:
            self._assert(edit, work, row)
        else:
            self._retract(edit, work)

    def _assert(self, edit: Edit, work: KeyUpdate, row: int) -> None:
        if work.view is None:
            work.view = view_text(edit, work.key)
            work.view_hash = view_hash(work.view)
        name = (edit.namespace, edit.id)
        named = name in self.retracted or name in self._store.retracted
        timed = work.heads.timed(edit)
        if work.refold or named or timed is None or not work.heads.is_newest(timed):
            work.refold = True
            return
        work.heads.saw(timed)
        self._put_fact(work.id, work.facts, timed, row)
        work.put_on_top(timed)

    def _retract(self, edit: Edit, work: KeyUpdate) -> None:
        timed = work.heads.timed(edit)
        if work.refold or timed is None or not work.heads.is_last_word(timed):
            work.refold = True
            return
        work.heads.saw(timed)
        if not self._take_from_standing(timed, work):
            work.refold = True

    def _take_from_standing(self, edit: Edit, work: KeyUpdate) -> bool:
        """Take what the newest retraction of a key takes; False when the facts that stand do not tell."""
        rows = self._db.execute(_STANDING, (work.id,)).fetchall()
        members = [self._member(row, work.key) for row in rows]
        named = {edit.retracts} & {member.edit.id for member in members}
        if edit.retracts is not None and not named and self._has_edit(work, edit.retracts):
            return False  # withdrawn already, or collapsed into another: the history knows
        taken = taken_by(edit, members, {name for name in named if name}, newest=True)
        gone = {id(member) for member in taken}
        kept = [place for place, member in enumerate(members) if id(member) not in gone]
        self._stand(work, [(members[place], rows[place][0]) for place in kept])
        return True

    def _member(self, row: Sequence[Any], key: FactKey) -> Member:
        edit = edit_from(row, key, self._store.topics)
        return Member(edit if edit.valid_from is not None else at_time(edit, row[EDIT_WIDTH]), (edit.id,))

    def _has_edit(self, work: KeyUpdate, edit_id: str) -> bool:
        sql = "SELECT 1 FROM edits WHERE key=? AND op='assert' AND edit_id=?"
        return self._db.execute(sql, (work.id, edit_id)).fetchone() is not None

    def _stand(self, work: KeyUpdate, members: Sequence[tuple[Member, int]]) -> None:
        """Write the facts of a key anew: members with the rows of their edits, lowest first."""
        self._db.execute("DELETE FROM facts WHERE key=?", (work.id,))
        for rank, (member, row) in enumerate(members):
            self._put_fact(work.id, rank, member.edit, row)
        work.take([member.edit for member, _ in members])

    def _put_fact(self, key_id: int, rank: int, edit: Edit, row: int) -> None:
        since = time_of(edit) if edit.valid_from is None else edit.valid_from
        many = edit.cardinality is Cardinality.MANY
        values = (key_id, rank, row, since, edit.valid_from, edit.valid_until, int(many), target_form(edit))
        crc = row_crc(*values, *evidence_of(edit))
        self._db.execute("INSERT INTO facts VALUES(?,?,?,?,?,?,?,?,?)", (*values, crc))

    def _put_position(self, edit: Edit, topic: int, row: int) -> None:
        where = edit.position
        self._db.execute(
            "INSERT INTO positions(topic, partition, offset, log, ts, edit) VALUES(?,?,?,?,?,?)",
            (topic, where.partition, where.offset, where.log, edit.timestamp_ms, row),
        )

    def _add_delivery(
        self, edit: Edit, work: KeyUpdate | None, topic: int, known: tuple[int, str, int, int]
    ) -> None:
        """The same event again: one more position, and the earliest of them is the one that counts.

        A later record of the same partition is not the earliest; it may move the time of what follows.
        """
        row, _, known_topic, known_partition = known
        self._put_position(edit, topic, row)
        self._result.duplicates += 1
        later_there = (known_topic, known_partition) == (topic, edit.position.partition)
        for reached in [work] if work else self._named_keys(edit):
            timed = reached.heads.timed(edit)
            if reached.refold or timed is None or not later_there:
                reached.refold = True
            else:
                reached.heads.saw_delivery(timed)

    def _conflict(self, edit: Edit) -> None:
        if edit.raw is None:
            raise ValueError("an edit without its raw record cannot be quarantined")
        message = f"id {edit.id!r} was used for another content of this key"
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
        return [self._key_work(FactKey(*parts)) for parts in rows.fetchall()]

    def _key_work(self, key: FactKey) -> KeyUpdate:
        text = key.text
        known = self._ids.get(text)
        if known is not None:
            return self._work[known]
        work = self._read_key(key, text)
        if work is None and revive(self._db, key):
            work = self._read_key(key, text)
        work = work or self._new_key(key, text)
        self._ids[text], self._work[work.id] = work.id, work
        return work

    def _read_key(self, key: FactKey, text: str) -> KeyUpdate | None:
        sql = "SELECT id, view, view_hash, names, facts, chain, heads, crc FROM keys WHERE key=?"
        row = self._db.execute(sql, (text,)).fetchone()
        if row is None:
            return None
        check_row(row[7], "key", row[0], text, row[3], row[4], row[5])
        names: dict[str, str] = dict(json.loads(row[3]))
        work = KeyUpdate(row[0], key, row[1], row[2], names, row[4], row[5], KeyHighWater.load(row[6]))
        work.was_present, work.old_names = work.facts > 0, work.name_list
        return work

    def _new_key(self, key: FactKey, text: str) -> KeyUpdate:
        sql = "INSERT INTO keys(key, namespace, subject, relation) VALUES(?,?,?,?)"
        self._db.execute(sql, (text, key.namespace, key.subject, key.relation))
        return KeyUpdate(int(self._db.last_insert_rowid()), key, untouched=True)

    def _finish(self, work: KeyUpdate) -> None:
        if work.refold:
            self._fold_again(work)
        names = _NAMES(list(work.names.items()))
        self._db.execute(
            "UPDATE keys SET view=?, view_hash=?, names=?, facts=?, chain=?, heads=?, crc=? WHERE id=?",
            (
                work.view,
                work.view_hash,
                names,
                work.facts,
                work.chain,
                work.heads.dump(),
                row_crc(work.id, work.key.text, names, work.facts, work.chain),
                work.id,
            ),
        )
        change = KeyChange(
            work.id,
            work.key.namespace,
            work.facts > 0,
            work.was_present,
            work.name_list,
            work.old_names,
            work.view_hash,
        )
        self._result.changes.append(change)

    def _fold_again(self, work: KeyUpdate) -> None:
        history, rows = reads.history(self._db, work.id, work.key, self._store.topics)
        state = fold(history)
        stored = {name_of(edit): edit.position for edit in history[: len(rows)]}
        for edit in (*(member.edit for member in state.members), *state.tombstones):
            if edit.key is not None and edit.position != stored[name_of(edit)]:
                self._put_earliest(edit, rows[name_of(edit)])
        self._stand(work, [(member, rows[name_of(member.edit)]) for member in state.members])
        work.heads = KeyHighWater()
        for edit in effective_times(history):
            work.heads.saw(edit)

    def _put_earliest(self, edit: Edit, row: int) -> None:
        """The row of an edit tells its earliest delivery."""
        where, topic = edit.position, self._store.topic_number(edit.position.topic_id)
        self._db.execute(
            "UPDATE edits SET ts=?, topic=?, partition=?, offset=?, log=? WHERE id=?",
            (edit.timestamp_ms, topic, where.partition, where.offset, where.log, row),
        )
