"""Values that a key had before its current ones, newest first, each with the time in which it held."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from lte_runtime.facts.policy import same_version
from lte_runtime.names.normalise import key_form
from lte_runtime.store.db import Connection
from lte_runtime.store.reader import key_of
from lte_runtime.store.rows import EDIT_COLUMNS, check_row, edit_from, evidence_of, fact_of
from lte_runtime.types import Fact, FactKey, Former

MOST_ROWS = 4096
"""Standing edits of one key that are looked through, the newest: a key may have tens of thousands."""

_ROWS = (
    "SELECT f.rank, f.edit, f.since, f.valid_from, f.valid_until, f.many, f.target, f.crc, e.revision "
    "FROM facts f CROSS JOIN edits e ON e.id=f.edit WHERE f.key=?1 AND {begun} ORDER BY f.rank DESC LIMIT ?3"
)
_NOW = _ROWS.format(begun="(f.valid_from IS NULL OR f.valid_from<=?2)")
_AS_OF = _ROWS.format(begun="f.since<=?2")
_EDIT = f"SELECT {EDIT_COLUMNS} FROM edits e WHERE e.id=?"


@dataclass(frozen=True, slots=True)
class Standing:
    """One standing edit of a key, as the table `facts` has it; what was retracted or erased is not there."""

    rank: int
    edit: int
    since: int
    valid_from: int | None
    valid_until: int | None
    many: int
    target: str
    crc: int
    revision: int | None


@dataclass(frozen=True, slots=True)
class ValueRun:
    """Neighbouring edits of one value: the newest of them, and when the oldest one began."""

    row: Standing
    since: int


def former_values(
    connection: Connection,
    topics: Mapping[int, str],
    current: Sequence[Fact],
    at_ms: int,
    limit: int,
    *,
    as_of: bool,
) -> tuple[Former, ...]:
    """At most `limit` values of the key of `current` that began before `at_ms` and are not current then.

    Left out: what a retraction took, and values that lost a conflict: they never were the key's value.
    """
    if not current:
        return ()
    key_id, targets = current[0].key_id, {key_form(fact.target) for fact in current}
    rows = connection.execute(_AS_OF if as_of else _NOW, (key_id, at_ms, MOST_ROWS))
    superseded = superseded_runs(runs(Standing(*row) for row in rows), targets, at_ms)
    key = key_of(connection, key_id)
    return tuple(
        Former(_fact(connection, topics, key, key_id, run.row), began, until)
        for run, began, until in islice(superseded, limit)
    )


def runs(rows: Iterable[Standing]) -> Iterator[ValueRun]:
    """Rows, newest first, with neighbours of one value joined; a declared end keeps a row by itself."""
    run: ValueRun | None = None
    for row in rows:
        if run is not None and _repeats(row, run.row):
            run = ValueRun(run.row, row.since)
            continue
        if run is not None:
            yield run
        run = ValueRun(row, row.since)
    if run is not None:
        yield run


def superseded_runs(
    runs_: Iterable[ValueRun], targets: set[str], at_ms: int
) -> Iterator[tuple[ValueRun, int | None, int | None]]:
    """Runs, newest first, that are not current, with the time in which they held; None: not known.

    A value ends where the next one begins. A member of a set ends where a value that replaced the set began.
    """
    pending = set(targets)
    above: ValueRun | None = None
    replaced_at: int | None = None
    for run in runs_:
        row = run.row
        valid = row.valid_until is None or at_ms < row.valid_until
        if valid and row.target in (targets if row.many else pending):
            pending.discard(row.target)
        elif (valid and above is None) or (above is not None and _lost_conflict(row, above.row)):
            continue  # what stands above all current values arrived after they were read
        else:
            began_next = replaced_at if row.many or above is None else above.since
            ends = [end for end in (row.valid_until, began_next) if end is not None]
            until = min(ends, default=None)
            yield run, None if until is not None and run.since >= until else run.since, until
        if valid or above is not None:
            above = run
            replaced_at = replaced_at if row.many else run.since


def _repeats(row: Standing, newer: Standing) -> bool:
    same = (row.target, row.many) == (newer.target, newer.many)
    return same and row.valid_until is None and newer.valid_until is None


def _lost_conflict(row: Standing, newer: Standing) -> bool:
    """Two values of one version; members of a set are not in conflict."""
    return row.target != newer.target and not (row.many and newer.many) and same_version(row, newer)


def _fact(
    connection: Connection, topics: Mapping[int, str], key: FactKey, key_id: int, row: Standing
) -> Fact:
    """Raises `Damaged` for rows that are not as they were written."""
    edit = edit_from(connection.execute(_EDIT, (row.edit,)).fetchone(), key, topics)
    values = (key_id, row.rank, row.edit, row.since, row.valid_from, row.valid_until, row.many, row.target)
    check_row(row.crc, "fact", *values, *evidence_of(edit))
    return fact_of(edit, key_id)
