"""What became of edits: records with their state, history, the reason why one is not served."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lte_runtime.errors import NotFound
from lte_runtime.memory import reads
from lte_runtime.memory.db import Connection
from lte_runtime.memory.policy import EditName, KeyState, Member, WhyNot, fold, name_of, order_of, why_not
from lte_runtime.memory.records import EditRecord
from lte_runtime.memory.rows import EDIT_COLUMNS, EDIT_WIDTH, edit_from
from lte_runtime.types import Edit, FactKey, Op, Position

Topics = Mapping[int, str]
RETRACTION = "retraction"
_WITH_KEY = (
    f"SELECT {EDIT_COLUMNS}, k.namespace, k.subject, k.relation FROM edits e LEFT JOIN keys k ON k.id=e.key"
)


def record(connection: Connection, topics: Topics, edit_id: str, at_ms: int) -> EditRecord:
    """The edit of an id, an assertion before a retraction, the latest if several keys know the id."""
    row, key = _find(connection, edit_id)
    if key is None:
        return _tombstone(connection, topics, edit_from(row, None, topics), row[0])
    records = history(connection, topics, key, at_ms)
    return next(found for found in records if _bears(found, edit_id, row[2]))


def reason(connection: Connection, topics: Topics, edit_id: str, at_ms: int) -> WhyNot:
    """Why an edit is not what questions see; `current` when it is."""
    _, key = _find(connection, edit_id)
    if key is None:
        return WhyNot(None, RETRACTION)
    edits, _ = _history(connection, topics, key)
    return why_not(fold(edits), edit_id, at_ms)


def history(connection: Connection, topics: Topics, key: FactKey, at_ms: int) -> list[EditRecord]:
    """All edits of a key, the newest order first; events that collapsed into one edit are one record.

    Raises `NotFound` for a key that no edit ever named.
    """
    edits, rows = _history(connection, topics, key)
    state = fold(edits)
    rows_of: dict[str, list[int]] = {}
    for (_, op, edit_id, _), row in rows.items():
        rows_of.setdefault(_label(op, edit_id), []).append(row)
    made = [
        _member_record(connection, topics, state, member, rows_of, at_ms)
        for member in (*state.members, *state.withdrawn)
    ]
    made += [_tombstone(connection, topics, edit, rows[name_of(edit)]) for edit in state.tombstones]
    return sorted(made, key=lambda each: order_of(each.edit), reverse=True)


@dataclass(frozen=True, slots=True)
class Filters:
    """Which edits are listed; both normalised, None for all."""

    namespace: str | None = None
    subject: str | None = None


def listed(
    connection: Connection, topics: Topics, filters: Filters, limit: int, after: str | None, at_ms: int
) -> list[EditRecord]:
    """Records, the last applied first, from behind the edit `after` on."""
    start = _find(connection, after)[0][0] if after else 1 << 62
    found: list[EditRecord] = []
    histories: dict[FactKey, list[EditRecord]] = {}
    for row in _newest(connection, start, filters):
        if len(found) >= limit:
            break
        if row[EDIT_WIDTH] is None:
            found.append(_tombstone(connection, topics, edit_from(row, None, topics), row[0]))
            continue
        key = FactKey(*row[EDIT_WIDTH : EDIT_WIDTH + 3])
        if key not in histories:
            histories[key] = history(connection, topics, key, at_ms)
        found += [each for each in histories[key] if each.edit.id == row[1] and each.edit.op == row[2]]
    return found


def _newest(connection: Connection, start: int, filters: Filters) -> Iterable[Sequence[Any]]:
    conditions: dict[str, object] = {"e.id<?": start}
    if filters.namespace is not None:
        conditions["e.namespace=?"] = filters.namespace
    if filters.subject is not None:
        conditions["k.subject=?"] = filters.subject
    where = " AND ".join(conditions)
    rows: Iterable[Sequence[Any]] = connection.execute(
        f"{_WITH_KEY} WHERE {where} ORDER BY e.id DESC", tuple(conditions.values())
    )
    return rows


def _find(connection: Connection, edit_id: str) -> tuple[Sequence[Any], FactKey | None]:
    order = "ORDER BY e.op='assert' DESC, e.id DESC LIMIT 1"
    row = connection.execute(f"{_WITH_KEY} WHERE e.edit_id=? {order}", (edit_id,)).fetchone()
    if row is None:
        raise NotFound(f"no edit {edit_id!r}")
    return row, None if row[EDIT_WIDTH] is None else FactKey(*row[EDIT_WIDTH : EDIT_WIDTH + 3])


def _history(connection: Connection, topics: Topics, key: FactKey) -> tuple[list[Edit], dict[EditName, int]]:
    """The deliveries of a key's edits, and the row of each edit."""
    key_id = reads.key_row(connection, key)
    if key_id is None:
        raise NotFound(f"no edit of {key.text.replace(chr(31), '/')!r}")
    return reads.history(connection, key_id, key, topics)


def _label(op: str, edit_id: str) -> str:
    return f"{op}\0{edit_id}"


def _bears(found: EditRecord, edit_id: str, op: str) -> bool:
    return found.edit.op == op and edit_id in (found.edit.id, *found.collapsed)


def _member_record(
    connection: Connection,
    topics: Topics,
    state: KeyState,
    member: Member,
    rows_of: Mapping[str, Sequence[int]],
    at_ms: int,
) -> EditRecord:
    why = why_not(state, member.edit.id, at_ms)
    rows = [row for edit_id in member.ids for row in rows_of[_label(Op.ASSERT, edit_id)]]
    positions: list[Position] = []
    for row in dict.fromkeys(rows):
        positions += reads.positions_of(connection, row, topics)
    others = tuple(edit_id for edit_id in member.ids if edit_id != member.edit.id)
    return EditRecord(member.edit, why.reason, tuple(positions), why.winner_id, others)


def _tombstone(connection: Connection, topics: Topics, edit: Edit, row: int) -> EditRecord:
    return EditRecord(edit, RETRACTION, reads.positions_of(connection, row, topics))
