"""Which adapter serves: a history in the store whose last row is the pointer; and what adapters learned.

A rollback is one more row, so that one transaction moves the pointer and nothing is ever rewritten. Every row
says where a rollback from it leads: after B was rolled back to A, the next one leads to what was before A.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lte_runtime.errors import Refused
from lte_runtime.store.db import Connection, faults, transaction
from lte_runtime.store.rows import check_row, row_crc

log = logging.getLogger(__name__)
CONFIGURED = "configured"
NONE = "none"
"""Pointers that are no adapter of the registry: what the configuration names, and no adapter at all."""

_VOID_EPOCHS = "adapters.void_epochs"
_COLUMNS = "no, adapter, sha256, reason, epoch, at, back, followed, crc"


@dataclass(frozen=True, slots=True)
class Activation:
    """One move of the pointer: to an adapter's id, `configured` or `none`. `back`: number of the row before
    it on the way back, 0 for the state before the first move, -1 where nothing was before."""

    no: int
    adapter: str
    sha256: str
    reason: str
    epoch: int
    at_ms: int
    back: int
    followed: bool = False


START = Activation(0, CONFIGURED, "", "configured", 0, 0, -1)


@dataclass(frozen=True, slots=True)
class Trained:
    """An edit that an adapter was trained on. `why` is empty while it stands as it was learned."""

    edit_id: str
    why: str
    at_ms: int


class AdapterLedger:
    """The tables about adapters. Thread-safe; raises as the store does (`Retry`, `Damaged`, `Fatal`)."""

    def __init__(self, connection: Connection, writing: threading.RLock, now: Callable[[], int]) -> None:
        self._connection, self._writing, self._now = connection, writing, now

    def active(self) -> Activation:
        """Where the pointer stands; raises `Damaged` when its row does not match its checksum."""
        return next(iter(self.history(1)), START)

    def history(self, limit: int = 100) -> list[Activation]:
        """Moves of the pointer, the last one first."""
        return self._rows("ORDER BY no DESC LIMIT ?", limit)

    def before(self, activation: Activation) -> Activation | None:
        """Where a rollback from here leads; None when there is nothing before it."""
        if activation.back < 0:
            return None
        return self._rows("WHERE no=?", activation.back)[0] if activation.back else START

    def way_back(self) -> list[Activation]:
        """The pointer and all that rollbacks would lead to, in that order; ends with the configured one."""
        activations = [self.active()]
        while (earlier := self.before(activations[-1])) is not None:
            activations.append(earlier)
        return activations

    def point(
        self, adapter: str, sha256: str, reason: str, epoch: int, *, followed: bool = False
    ) -> Activation:
        """Move the pointer, in one transaction. Raises `Refused` for an epoch below the highest one so far.

        `followed`: another daemon moved its pointer, and this one follows.
        """
        with self._writing:
            return self._append(adapter, sha256, reason, epoch, self.active().no, followed)

    def step_back(self, reason: str, epoch: int) -> Activation:
        """Roll back, in one transaction. Raises `Refused` when nothing was before."""
        with self._writing:
            target = self.before(self.active())
            if target is None:
                raise Refused("there is no adapter to go back to")
            return self._append(target.adapter, target.sha256, reason, epoch, target.back, False)

    def epoch(self) -> int:
        """The highest epoch of any move; void epochs do not count."""
        sql = """
            SELECT max(epoch) FROM activations WHERE no >
              coalesce((SELECT CAST(value AS INTEGER) FROM meta WHERE name=?), 0)"""
        with self._writing, faults():
            row = self._connection.execute(sql, (_VOID_EPOCHS,)).fetchone()
            return int(row[0] or 0)

    def void_epochs(self, through: int) -> None:
        """Ignore the epochs of the moves up to this number from now on: their claims are gone."""
        log.warning("epochs up to %d are void: the control topic no longer holds their claims", self.epoch())
        sql = "INSERT INTO meta VALUES(?,?) ON CONFLICT DO UPDATE SET value=excluded.value"
        with self._writing, transaction(self._connection):
            self._connection.execute(sql, (_VOID_EPOCHS, str(through)))

    def _append(
        self, adapter: str, sha256: str, reason: str, epoch: int, back: int, followed: bool
    ) -> Activation:
        if epoch < self.epoch():
            raise Refused(f"epoch {epoch} is over: the adapter was already moved in epoch {self.epoch()}")
        with transaction(self._connection):
            number = self._connection.execute("SELECT max(no) FROM activations").fetchone()[0] or 0
            values = (number + 1, adapter, sha256, reason, epoch, self._now(), back, int(followed))
            self._connection.execute(
                f"INSERT INTO activations({_COLUMNS}) VALUES(?,?,?,?,?,?,?,?,?)", (*values, row_crc(*values))
            )
        return _activation(values)

    def _rows(self, where: str, value: int) -> list[Activation]:
        with self._writing, faults():
            rows = self._connection.execute(
                f"SELECT {_COLUMNS} FROM activations {where}", (value,)
            ).fetchall()
        for row in rows:
            check_row(row[-1], "activation of an adapter", *row[:-1])
        return [_activation(row[:-1]) for row in rows]

    # -- what adapters were trained on -------------------------------------------------------------

    def learned(self, adapter: str, edit_ids: Iterable[str]) -> None:
        """Note the edits of an adapter's training set, each once."""
        rows = [(adapter, edit_id, "", self._now()) for edit_id in edit_ids]
        with self._writing, transaction(self._connection):
            self._connection.executemany("INSERT OR IGNORE INTO trained_edits VALUES(?,?,?,?)", rows)

    def trained_on(self, adapter: str) -> list[Trained]:
        """The edits of an adapter's training set."""
        with self._writing, faults():
            rows = self._connection.execute(
                "SELECT edit_id, why, at FROM trained_edits WHERE adapter=? ORDER BY edit_id", (adapter,)
            )
            return [Trained(*row) for row in rows]

    def tainted(self, adapter: str) -> list[Trained]:
        """Those of them that no longer stand."""
        with self._writing, faults():
            rows = self._connection.execute(
                "SELECT edit_id, why, at FROM trained_edits WHERE adapter=? AND why<>'' ORDER BY edit_id",
                (adapter,),
            )
            return [Trained(*row) for row in rows]

    def suspects(self, adapter: str, after: int) -> list[str]:
        """Edits of its training set that rows behind `after` could have withdrawn or corrected."""
        sql = """
            SELECT t.edit_id FROM trained_edits t WHERE t.adapter=?1 AND t.why='' AND (
              t.edit_id IN (SELECT n.retracts FROM edits n WHERE n.id>?2 AND n.retracts IS NOT NULL)
              OR EXISTS(SELECT 1 FROM edits e WHERE e.edit_id=t.edit_id AND e.key IN
                (SELECT n.key FROM edits n WHERE n.id>?2)))"""
        with self._writing, faults():
            return [str(row[0]) for row in self._connection.execute(sql, (adapter, after))]

    def last_row(self) -> int:
        """The row of the edit that was applied last."""
        with self._writing, faults():
            return int(self._connection.execute("SELECT coalesce(max(id), 0) FROM edits").fetchone()[0])

    def taint(self, adapter: str, why: Mapping[str, str]) -> None:
        """Note, for good, why edits of the training set no longer stand."""
        rows = [(reason, self._now(), adapter, edit_id) for edit_id, reason in why.items()]
        with self._writing, transaction(self._connection):
            self._connection.executemany(
                "UPDATE trained_edits SET why=?, at=? WHERE adapter=? AND edit_id=? AND why=''", rows
            )


def _activation(values: Sequence[Any]) -> Activation:
    no, adapter, sha256, reason, epoch, at_ms, back, followed = values
    return Activation(no, adapter, sha256, reason, epoch, at_ms, back, bool(followed))
