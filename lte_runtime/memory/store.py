"""The SQLite store, written: one transaction per batch holds edits, facts, vectors, quarantine and offsets.

One writer, under the caller's lock. After an exception nothing of the batch is in the store.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from lte_runtime.memory import quarantine, reads
from lte_runtime.memory.db import Connection, faults, open_writer, transaction
from lte_runtime.memory.events import ORIGINAL_POSITION
from lte_runtime.memory.keywork import Heads, KeyWork, view_hash, view_text
from lte_runtime.memory.policy import fold, moment_of, target_form
from lte_runtime.memory.rows import INSERT_EDIT, check_row, edit_from, edit_values, row_crc
from lte_runtime.types import Cardinality, Edit, FactKey, Op, Position, Rejected, TopicPartition, Vectors

SEQUENCE = "sequence"  # how many batches were committed


@dataclass(frozen=True, slots=True)
class KeyChange:
    """What the in-memory indexes must learn about a key: whether it has facts, under which names."""

    key_id: int
    namespace: str
    present: bool
    was_present: bool
    names: tuple[str, ...]
    old_names: tuple[str, ...]


@dataclass(slots=True)
class StoreResult:
    """What one transaction did."""

    applied: list[str] = field(default_factory=list)
    duplicates: int = 0
    conflicts: int = 0
    rejected: int = 0
    quarantine_bytes: int = 0
    changes: list[KeyChange] = field(default_factory=list)


class Store:
    """The writing side. Raises `Retry` when full or busy, `Damaged`, or `Fatal` when the disk fails."""

    def __init__(self, path: Path, busy_timeout_ms: int = 5000) -> None:
        self.connection: Connection = open_writer(path, busy_timeout_ms)
        with faults():
            self._load()

    def _load(self) -> None:
        rows = self.connection.execute("SELECT no, topic_id FROM topics").fetchall()
        self.topics: dict[int, str] = dict(rows)
        self._numbers = {topic_id: number for number, topic_id in rows}
        named = self.connection.execute("SELECT namespace, retracts FROM edits WHERE retracts IS NOT NULL")
        self._retracted: set[tuple[str, str]] = set(named)
        self.sequence = int(self.meta_get(SEQUENCE) or 0)

    def close(self) -> None:
        with faults():
            self.connection.close()

    def missing_views(self, edits: Iterable[Edit]) -> dict[bytes, str]:
        """Hash and text of the views that keys of these edits need and the store has no vector for."""
        wanted: dict[bytes, str] = {}
        seen: set[FactKey] = set()
        with faults():
            for edit in edits:
                if edit.op is not Op.ASSERT or edit.key is None or edit.key in seen:
                    continue
                seen.add(edit.key)
                if not self._has_view(edit.key):
                    text = view_text(edit, edit.key)
                    wanted[view_hash(text)] = text
            return {name: text for name, text in wanted.items() if not self._has_vector(name)}

    def _has_view(self, key: FactKey) -> bool:
        row = self.connection.execute("SELECT view_hash FROM keys WHERE key=?", (key.text,)).fetchone()
        return row is not None and row[0] is not None

    def _has_vector(self, name: bytes) -> bool:
        return self.connection.execute("SELECT 1 FROM vectors WHERE hash=?", (name,)).fetchone() is not None

    def apply(
        self,
        edits: Sequence[Edit],
        rejected: Sequence[Rejected],
        vectors: Mapping[bytes, Vectors],
        next_offsets: Mapping[TopicPartition, int],
        now_ms: int,
    ) -> StoreResult:
        """Everything that one batch brings, in one transaction."""
        known_topics, known_ids = dict(self._numbers), set(self._retracted)
        try:
            with transaction(self.connection):
                result = _BatchWriter(self, now_ms).write(edits, rejected, vectors)
                self._move_offsets(next_offsets)
                self.meta_set(SEQUENCE, str(self.sequence + 1))
        except BaseException:
            self._numbers, self._retracted = known_topics, known_ids
            self.topics = {number: topic for topic, number in known_topics.items()}
            raise
        self.sequence += 1
        return result

    def topic_number(self, topic_id: str) -> int:
        """The short number of a topic id; a new one is added in the caller's transaction."""
        number = self._numbers.get(topic_id)
        if number is None:
            self.connection.execute("INSERT INTO topics(topic_id) VALUES(?)", (topic_id,))
            number = int(self.connection.last_insert_rowid())
            self._numbers[topic_id], self.topics = number, {**self.topics, number: topic_id}
        return number

    def _move_offsets(self, next_offsets: Mapping[TopicPartition, int]) -> None:
        """Forward only: a batch that was read twice does not take a watermark back."""
        have = reads.offsets(self.connection, self.topics)
        for place, next_ in next_offsets.items():
            values = (self.topic_number(place.topic_id), place.partition, max(next_, have.get(place, 0)))
            sql = "INSERT OR REPLACE INTO offsets VALUES(?,?,?,?)"
            self.connection.execute(sql, (*values, row_crc(*values)))

    def put_vectors(self, vectors: Mapping[bytes, Vectors]) -> None:
        """Keep vectors by the hash of their view, in the caller's transaction."""
        rows = ((name, np.asarray(vector, np.float32).tobytes()) for name, vector in vectors.items())
        self.connection.executemany(
            "INSERT OR REPLACE INTO vectors VALUES(?,?,?)",
            [(name, data, zlib.crc32(data)) for name, data in rows],
        )

    def note_retraction(self, namespace: str, edit_id: str) -> None:
        self._retracted.add((namespace, edit_id))

    def is_retracted(self, namespace: str, edit_id: str) -> bool:
        return (namespace, edit_id) in self._retracted

    def meta_get(self, name: str) -> str | None:
        row = self.connection.execute("SELECT value FROM meta WHERE name=?", (name,)).fetchone()
        return None if row is None else str(row[0])

    def meta_set(self, name: str, value: str) -> None:
        self.connection.execute(
            "INSERT INTO meta VALUES(?,?) ON CONFLICT DO UPDATE SET value=excluded.value", (name, value)
        )


class _BatchWriter:
    """The edits of one batch, inside its transaction."""

    def __init__(self, store: Store, now_ms: int) -> None:
        self._store, self._db, self._now = store, store.connection, now_ms
        self._work: dict[int, KeyWork] = {}
        self._ids: dict[str, int] = {}
        self._result = StoreResult()

    def write(
        self, edits: Sequence[Edit], rejected: Sequence[Rejected], vectors: Mapping[bytes, Vectors]
    ) -> StoreResult:
        self._store.put_vectors(vectors)
        for edit in edits:
            self._write_edit(edit)
        for one in rejected:
            self._quarantine(one)
        for work in self._work.values():
            self._finish(work)
        return self._result

    def _write_edit(self, edit: Edit) -> None:
        if self._take_edit(edit) and edit.raw and ORIGINAL_POSITION in dict(edit.raw.headers):
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
        sql = "SELECT 1 FROM positions WHERE topic=? AND partition=? AND offset=?"
        return self._db.execute(sql, (topic, where.partition, where.offset)).fetchone() is not None

    def _same_id(self, edit: Edit, work: KeyWork | None) -> tuple[int, str, int, int, int, int] | None:
        columns = "SELECT id, content_hash, ts, partition, offset, topic FROM edits WHERE "
        where, value = ("key=?", work.id) if work else ("key IS NULL AND namespace=?", edit.namespace)
        return self._db.execute(  # type: ignore[no-any-return]
            f"{columns}{where} AND source=? AND op=? AND edit_id=?",
            (value, edit.source_uri, edit.op.value, edit.id),
        ).fetchone()

    def _insert(self, edit: Edit, work: KeyWork | None, topic: int) -> None:
        self._db.execute(INSERT_EDIT, edit_values(edit, work.id if work else None, topic))
        row = int(self._db.last_insert_rowid())
        self._put_position(edit, topic, row)
        self._result.applied.append(edit.id)
        if edit.retracts is not None:
            self._store.note_retraction(edit.namespace, edit.retracts)
        if work is None:
            self._refold_named(edit)
        elif edit.op is Op.ASSERT:
            self._assert(edit, work, row)
        else:
            work.refold = True

    def _assert(self, edit: Edit, work: KeyWork, row: int) -> None:
        if work.view is None:
            work.view = view_text(edit, work.key)
            work.view_hash = view_hash(work.view)
        simple = work.heads.is_newest(edit) and not self._store.is_retracted(edit.namespace, edit.id)
        work.heads.saw(edit)
        if work.refold or not simple:
            work.refold = True
            return
        self._put_fact(work.id, work.facts, edit, row)
        work.put_on_top(edit)

    def _put_fact(self, key_id: int, rank: int, edit: Edit, row: int) -> None:
        since = edit.timestamp_ms if edit.valid_from is None else edit.valid_from
        many = edit.cardinality is Cardinality.MANY
        values = (key_id, rank, row, since, edit.valid_from, edit.valid_until, int(many), target_form(edit))
        self._db.execute("INSERT INTO facts VALUES(?,?,?,?,?,?,?,?,?)", (*values, row_crc(*values)))

    def _put_position(self, edit: Edit, topic: int, row: int) -> None:
        where = edit.position
        self._db.execute(
            "INSERT INTO positions(topic, partition, offset, ts, edit) VALUES(?,?,?,?,?)",
            (topic, where.partition, where.offset, edit.timestamp_ms, row),
        )

    def _add_delivery(
        self,
        edit: Edit,
        work: KeyWork | None,
        topic: int,
        known: tuple[int, str, int, int, int, int],
    ) -> None:
        """The same event again: one more position, and the earliest of them is the one that counts."""
        row, _, ts, partition, offset, known_topic = known
        self._put_position(edit, topic, row)
        self._result.duplicates += 1
        if moment_of(edit) >= (ts, partition, offset, self._store.topics[known_topic]):
            return
        self._db.execute(
            "UPDATE edits SET ts=?, topic=?, partition=?, offset=? WHERE id=?",
            (edit.timestamp_ms, topic, edit.position.partition, edit.position.offset, row),
        )
        if work:
            work.refold = True

    def _conflict(self, edit: Edit) -> None:
        if edit.raw is None:
            raise ValueError("an edit without its raw record cannot be quarantined")
        message = f"id {edit.id!r} was used for another content of this key"
        self._result.conflicts += 1
        self._quarantine(Rejected(edit.raw, "id_conflict", message), edit.position)

    def _quarantine(self, rejected: Rejected, position: Position | None = None) -> None:
        position = position or rejected.record.position
        topic = self._store.topic_number(position.topic_id)
        size = quarantine.insert(self._db, rejected, topic, self._now)
        self._result.rejected += 1
        self._result.quarantine_bytes += size

    def _refold_named(self, edit: Edit) -> None:
        """A retraction by id alone reaches every key that has an edit of that id."""
        rows = self._db.execute(
            "SELECT DISTINCT k.namespace, k.subject, k.relation FROM edits e JOIN keys k ON k.id=e.key "
            "WHERE e.edit_id=? AND e.namespace=? AND e.op='assert'",
            (edit.retracts, edit.namespace),
        )
        for parts in rows.fetchall():
            self._key_work(FactKey(*parts)).refold = True

    def _key_work(self, key: FactKey) -> KeyWork:
        text = key.text
        known = self._ids.get(text)
        if known is not None:
            return self._work[known]
        work = self._read_key(key, text) or self._new_key(key, text)
        self._ids[text], self._work[work.id] = work.id, work
        return work

    def _read_key(self, key: FactKey, text: str) -> KeyWork | None:
        sql = "SELECT id, view, view_hash, names, facts, chain, heads, crc FROM keys WHERE key=?"
        row = self._db.execute(sql, (text,)).fetchone()
        if row is None:
            return None
        check_row(row[7], "key", row[0], text, row[3], row[4], row[5])
        names: dict[str, str] = dict(json.loads(row[3]))
        work = KeyWork(row[0], key, row[1], row[2], names, row[4], row[5], Heads.load(row[6]))
        work.was_present, work.old_names = work.facts > 0, work.name_list
        return work

    def _new_key(self, key: FactKey, text: str) -> KeyWork:
        sql = "INSERT INTO keys(key, namespace, subject, relation) VALUES(?,?,?,?)"
        self._db.execute(sql, (text, key.namespace, key.subject, key.relation))
        return KeyWork(int(self._db.last_insert_rowid()), key)

    def _finish(self, work: KeyWork) -> None:
        if work.refold:
            self._fold_again(work)
        names = json.dumps(list(work.names.items()), ensure_ascii=False)
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
            work.id, work.key.namespace, work.facts > 0, work.was_present, work.name_list, work.old_names
        )
        self._result.changes.append(change)

    def _fold_again(self, work: KeyWork) -> None:
        rows = reads.history_rows(self._db, work.id, work.key.namespace)
        edits = [edit_from(row, None if row[15] is None else work.key, self._store.topics) for row in rows]
        row_of = {id(edit): row[0] for edit, row in zip(edits, rows, strict=True)}
        state = fold(edits)
        self._db.execute("DELETE FROM facts WHERE key=?", (work.id,))
        for rank, member in enumerate(state.members):
            self._put_fact(work.id, rank, member.edit, row_of[id(member.edit)])
        work.take(state)
        work.heads = Heads()
        for edit in edits:
            work.heads.saw(edit)
