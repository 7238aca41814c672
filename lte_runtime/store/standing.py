"""Edits that stand, read from the table of facts, where the writer left the outcome of the fold.

The history of a key is neither read nor folded here. Every call takes a connection in one read transaction.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from lte_runtime.store.db import Connection
from lte_runtime.store.rows import EDIT_COLUMNS, Row

# The validity of `policy.current` for the present.
_VALID = "({0}.valid_from IS NULL OR {0}.valid_from<=?2) AND ({0}.valid_until IS NULL OR ?2<{0}.valid_until)"
_CURRENT = (
    f"SELECT f.edit, f.many, f.target FROM facts f WHERE f.key=?1 AND {_VALID.format('f')} "
    "AND f.rank>=coalesce((SELECT max(g.rank) FROM facts g "
    f"WHERE g.key=?1 AND NOT g.many AND {_VALID.format('g')}), 0) ORDER BY f.rank DESC"
)
_EVERY_EDIT_STANDS = "SELECT facts=(SELECT count(*) FROM edits WHERE key=?1) FROM keys WHERE id=?1"
_PAGE = (
    f"SELECT {EDIT_COLUMNS} FROM facts f CROSS JOIN edits e ON e.id=f.edit "
    "WHERE f.key=?1 AND f.rank<?2 ORDER BY f.rank DESC LIMIT ?3"
)
_STANDING = "SELECT edit FROM facts WHERE key=? AND edit IN (SELECT value FROM json_each(?))"
_SHARED_REVISIONS = (
    "SELECT revision FROM edits WHERE key=? AND op='assert' AND revision IN (SELECT value FROM json_each(?)) "
    "GROUP BY revision HAVING count(*)>1"
)
ABOVE_ALL = 1 << 62
"""A rank that no fact has."""


def current_rows(connection: Connection, key_id: int, at_ms: int) -> list[int]:
    """Rows of the edits that questions see at a time, newest first: one, or the members of a set."""
    rows: dict[str, int] = {}
    for edit_row, many, target in connection.execute(_CURRENT, (key_id, at_ms)):
        if (many or not rows) and target not in rows:
            rows[target] = edit_row
    return list(rows.values())


def every_edit_stands(connection: Connection, key_id: int) -> bool:
    """Whether all edits of a key are facts of their own: none collapsed, none withdrawn, no retraction."""
    return bool(connection.execute(_EVERY_EDIT_STANDS, (key_id,)).fetchone()[0])


def page(connection: Connection, key_id: int, limit: int, rank: int) -> list[Row]:
    """Rows of `EDIT_COLUMNS` of the facts below a rank, the highest first."""
    rows: list[Row] = connection.execute(_PAGE, (key_id, rank, limit)).fetchall()
    return rows


def rank_of(connection: Connection, key_id: int, edit_row: int) -> int | None:
    """The rank of an edit among the facts of a key; None where it is none of them."""
    sql = "SELECT rank FROM facts WHERE key=? AND edit=?"
    row = connection.execute(sql, (key_id, edit_row)).fetchone()
    return None if row is None else int(row[0])


def alone(connection: Connection, key_id: int, rows: Sequence[Row]) -> set[int]:
    """Which of these rows of `EDIT_COLUMNS` stand and cannot have collapsed with another edit: no other
    assertion of the key has their revision."""
    numbers = json.dumps([row[0] for row in rows])
    standing = {int(row[0]) for row in connection.execute(_STANDING, (key_id, numbers))}
    revisions = json.dumps([row[6] for row in rows if row[6] is not None])
    shared = {row[0] for row in connection.execute(_SHARED_REVISIONS, (key_id, revisions))}
    return {row[0] for row in rows if row[0] in standing and row[6] not in shared}
