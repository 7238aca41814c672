"""What became of edits: records with their state, history in pages, the reason why one is not served.

An edit that stands is answered from the table of facts. For one that collapsed or was withdrawn the history
of its key is folded: once in a call, however many edits of the key the call returns.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from lte_runtime.errors import BadRequest, NotFound
from lte_runtime.facts.policy import Member, WhyNot, fold, name_of, order_of
from lte_runtime.facts.reasons import RETRACTION, member_reasons, standing_reason
from lte_runtime.store import page_tokens, reader, standing
from lte_runtime.store.db import Connection
from lte_runtime.store.records import EditPage, EditRecord
from lte_runtime.store.rows import EDIT_COLUMNS, EDIT_WIDTH, NAMESPACE_COLUMN, Row, edit_from
from lte_runtime.types import Edit, FactKey, Op, Position

Topics = Mapping[int, str]

SCANNED_PER_PAGE = 50_000
"""Rows of edits that one page of a list looks at for those that pass its filters, or one call could read the
whole store."""
FOLDED_PER_PAGE = 50_000
"""One page of a list folds no further key once it has folded so many edits: each takes some 50 us."""
MOST_POSITIONS = 100
"""Deliveries that a record lists: a publisher may send one event a million times."""
SAME_ID = 10_000
"""Edits of one id that are searched for one in the caller's namespaces: each namespace has its own ids."""
UNKNOWN_ROW = 0
InNamespace = Callable[[str], bool]

_WITH_KEY = (
    f"SELECT {EDIT_COLUMNS}, e.key, k.namespace, k.subject, k.relation FROM edits e "
    "LEFT JOIN keys k ON k.id=e.key"
)
_KEY_ID = EDIT_WIDTH
_POSITIONS = (
    "SELECT edit, topic, partition, offset, log FROM (SELECT p.*, row_number() OVER "
    "(PARTITION BY p.edit ORDER BY p.ts, p.partition, p.offset) AS place FROM json_each(?1) j "
    "CROSS JOIN positions p ON p.edit=j.value) WHERE place<=?2 ORDER BY place"
)


def everywhere(_namespace: str) -> bool:
    """Edits of all namespaces."""
    return True


@dataclass(frozen=True, slots=True)
class JudgedEdit:
    """An edit and why it is or is not served. `rows` are the store's rows of all events that collapsed into
    it, its own first; `collapsed` are the ids of the others."""

    edit: Edit
    rows: tuple[int, ...]
    why: WhyNot
    collapsed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Filters:
    """Which edits are listed; both normalised, None for all."""

    namespace: str | None = None
    subject: str | None = None


class Inspector:
    """Answers one call, as things are at `at_ms`. `connection` is in a read transaction, so that all that it
    reads belongs together."""

    def __init__(self, connection: Connection, topics: Topics, at_ms: int) -> None:
        self._db, self._topics, self._at_ms = connection, topics, at_ms
        self._entry_of: dict[int, JudgedEdit] = {}  # by row, of all keys folded so far
        self._folded_keys: set[int] = set()

    def record(self, edit_id: str, in_namespace: InNamespace = everywhere) -> EditRecord:
        """The edit of an id, an assertion before a retraction, the latest if several edits have the id."""
        return self._records([self._entry(edit_id, in_namespace)])[0]

    def reason(self, edit_id: str, in_namespace: InNamespace = everywhere) -> WhyNot:
        """Why an edit is not what questions see; `current` when it is."""
        return self._entry(edit_id, in_namespace).why

    def history(self, key: FactKey) -> list[EditRecord]:
        """All edits of a key, the newest order first; events that collapsed into one edit are one record.

        Reads and folds all of them. Raises `NotFound` for a key that no edit ever named.
        """
        return self._records(self._fold(self._key_id(key), key))

    def history_page(self, key: FactKey, limit: int, after: str | None) -> EditPage:
        """At most `limit` records of the history, from behind the one that the token `after` names.

        Where all edits of the key stand, reads as many as it returns; else it folds the whole history.
        """
        key_id = self._key_id(key)
        row = (page_tokens.row_of(after) or UNKNOWN_ROW) if after else None
        if standing.every_edit_stands(self._db, key_id):
            rank = standing.ABOVE_ALL if row is None else standing.rank_of(self._db, key_id, row)
            if rank is None:
                raise _foreign_token()
            rows = standing.page(self._db, key_id, limit + 1, rank)
            entries = list(self._standing_entries(key_id, key, rows).values())
        else:
            entries = _behind(self._fold(key_id, key), row)
        token = page_tokens.token(entries[limit - 1].rows[0]) if len(entries) > limit else None
        return EditPage(tuple(self._records(entries[:limit])), token)

    def listed(self, filters: Filters, limit: int, after: str | None) -> EditPage:
        """At most `limit` records, the last applied first, from behind the edit that the token `after` names.

        What one page reads is bounded: it may hold fewer, even none, and name a next page.
        """
        start = self._start(after, filters.namespace)
        rows = self._newest(start, filters, limit + 1)
        lowest = rows[limit - 1][0] if len(rows) > limit else max(1, start - SCANNED_PER_PAGE)
        entries = self._entries(rows[:limit])
        if len(entries) < len(rows[:limit]):
            lowest = list(entries)[-1]
        # The row of a collapsed event leads to the entry that has it: that one is listed at its own row.
        own = [entry for row, entry in entries.items() if entry.rows[0] == row]
        return EditPage(tuple(self._records(own)), page_tokens.token(lowest) if lowest > 1 else None)

    # -- rows --------------------------------------------------------------------------------------

    def _key_id(self, key: FactKey) -> int:
        key_id = reader.key_row(self._db, key)
        if key_id is None:
            raise NotFound(f"no edit of {key.text.replace(chr(31), '/')!r}")
        return key_id

    def _row(self, edit_id: str, in_namespace: InNamespace) -> Row:
        """Raises `NotFound`, with the same text for an id that is not there and one of another namespace."""
        order = "ORDER BY e.op='assert' DESC, e.id DESC LIMIT ?"
        rows = self._db.execute(f"{_WITH_KEY} WHERE e.edit_id=? {order}", (edit_id, SAME_ID))
        row: Row | None = next((row for row in rows if in_namespace(row[NAMESPACE_COLUMN])), None)
        if row is None:
            raise NotFound(f"no edit {edit_id!r}")
        return row

    def _start(self, after: str | None, namespace: str | None) -> int:
        """The row below which a page begins."""
        if not after:
            return int(self._db.execute("SELECT coalesce(max(id), 0)+1 FROM edits").fetchone()[0])
        row = page_tokens.row_of(after)
        # Until the next version a token may be an edit's id, as it was up to 0.1.
        in_namespace = everywhere if namespace is None else namespace.__eq__
        return int(self._row(after, in_namespace)[0]) if row is None else row

    def _newest(self, start: int, filters: Filters, limit: int) -> list[Row]:
        conditions: dict[str, object] = {"e.id<?": start, "e.id>=?": start - SCANNED_PER_PAGE}
        if filters.namespace is not None:
            conditions["e.namespace=?"] = filters.namespace
        if filters.subject is not None:
            conditions["+k.subject=?"] = filters.subject  # the plus: by the order of rows, not by an index
        sql = f"{_WITH_KEY} WHERE {' AND '.join(conditions)} ORDER BY e.id DESC LIMIT ?"
        rows: list[Row] = self._db.execute(sql, (*conditions.values(), limit)).fetchall()
        return rows

    # -- entries -----------------------------------------------------------------------------------

    def _entry(self, edit_id: str, in_namespace: InNamespace) -> JudgedEdit:
        row = self._row(edit_id, in_namespace)
        return self._entries([row])[row[0]]

    def _entries(self, rows: Sequence[Row]) -> dict[int, JudgedEdit]:
        """The entry that each row belongs to, in order; ends early when too many edits would be folded."""
        cheap = self._cheap_entries(rows)
        entries: dict[int, JudgedEdit] = {}
        for row in rows:
            entry = cheap.get(row[0]) or self._entry_by_fold(row)
            if entry is None:
                break
            entries[row[0]] = entry
        return entries

    def _cheap_entries(self, rows: Sequence[Row]) -> dict[int, JudgedEdit]:
        """Entries of the rows that need no fold: retractions, and what stands for itself."""
        entries: dict[int, JudgedEdit] = {}
        asserts: dict[int, list[Row]] = defaultdict(list)
        for row in rows:
            if row[2] == Op.RETRACT:
                entries[row[0]] = _tombstone(edit_from(row, _key(row), self._topics), row[0])
            else:
                asserts[row[_KEY_ID]].append(row)
        for key_id, rows_of_key in asserts.items():
            alone = standing.alone(self._db, key_id, rows_of_key)
            chosen = [row for row in rows_of_key if row[0] in alone]
            entries |= self._standing_entries(key_id, FactKey(*rows_of_key[0][_KEY_ID + 1 :]), chosen)
        return entries

    def _standing_entries(self, key_id: int, key: FactKey, rows: Sequence[Row]) -> dict[int, JudgedEdit]:
        current = standing.current_rows(self._db, key_id, self._at_ms) if rows else []
        winner = self._edit(current[0], key) if current else None
        current_rows = set(current)
        entries = {}
        for row in rows:
            edit = edit_from(row, key, self._topics)
            why = standing_reason(edit, winner, self._at_ms, is_current=row[0] in current_rows)
            entries[row[0]] = JudgedEdit(edit, (row[0],), why)
        return entries

    def _edit(self, row: int, key: FactKey) -> Edit:
        sql = f"SELECT {EDIT_COLUMNS} FROM edits e WHERE e.id=?"
        return edit_from(self._db.execute(sql, (row,)).fetchone(), key, self._topics)

    def _entry_by_fold(self, row: Row) -> JudgedEdit | None:
        """None where its key would have to be folded and enough edits were."""
        key = _key(row)
        if key is not None and row[_KEY_ID] not in self._folded_keys:
            if len(self._entry_of) >= FOLDED_PER_PAGE:
                return None
            self._fold(row[_KEY_ID], key)
        return self._entry_of[row[0]]

    def _fold(self, key_id: int, key: FactKey) -> list[JudgedEdit]:
        """All entries of a key, the newest order first."""
        edits, rows = reader.history(self._db, key_id, key, self._topics)
        state = fold(edits)
        own_rows = {rows[name_of(member.edit)] for member in (*state.members, *state.withdrawn)}
        collapsed: dict[str, list[int]] = defaultdict(list)
        for (_, op, edit_id, _), row in rows.items():
            if op == Op.ASSERT and row not in own_rows:
                collapsed[edit_id].append(row)
        entries = [
            _member_entry(member, why, rows[name_of(member.edit)], collapsed)
            for member, why in member_reasons(state, self._at_ms)
        ]
        entries += [_tombstone(edit, rows[name_of(edit)]) for edit in state.tombstones]
        self._entry_of |= {row: entry for entry in entries for row in entry.rows}
        self._folded_keys.add(key_id)
        return sorted(entries, key=lambda entry: order_of(entry.edit), reverse=True)

    def _records(self, entries: Sequence[JudgedEdit]) -> list[EditRecord]:
        """With the positions of all of them, read at once."""
        rows = json.dumps([row for entry in entries for row in entry.rows])
        positions: dict[int, list[Position]] = defaultdict(list)
        for row, topic, *place in self._db.execute(_POSITIONS, (rows, MOST_POSITIONS)):
            positions[row].append(Position(self._topics[topic], *place))
        return [
            EditRecord(
                entry.edit,
                entry.why.reason,
                tuple(position for row in entry.rows for position in positions[row])[:MOST_POSITIONS],
                entry.why.winner_id,
                entry.collapsed,
            )
            for entry in entries
        ]


def _key(row: Row) -> FactKey | None:
    """The key in a row of `_WITH_KEY`; none for a retraction by id alone."""
    return None if row[_KEY_ID] is None else FactKey(*row[_KEY_ID + 1 :])


def _tombstone(edit: Edit, row: int) -> JudgedEdit:
    return JudgedEdit(edit, (row,), WhyNot(None, RETRACTION))


def _member_entry(
    member: Member, why: WhyNot, own_row: int, collapsed: Mapping[str, Sequence[int]]
) -> JudgedEdit:
    others = [row for edit_id in dict.fromkeys(member.ids) for row in collapsed.get(edit_id, ())]
    ids = tuple(edit_id for edit_id in member.ids if edit_id != member.edit.id)
    return JudgedEdit(member.edit, (own_row, *others), why, ids)


def _behind(entries: list[JudgedEdit], row: int | None) -> list[JudgedEdit]:
    """The entries that come after the one with a row."""
    if row is None:
        return entries
    for index, entry in enumerate(entries):
        if row in entry.rows:
            return entries[index + 1 :]
    raise _foreign_token()


def _foreign_token() -> BadRequest:
    return BadRequest("page_token is not from a page of this history: start again without it")
