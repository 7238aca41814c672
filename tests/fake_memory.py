"""An edit memory of dictionaries, for tests of what surrounds it. The real one is tested by itself."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext

from lte_runtime.store.records import Applied, QuarantineRow, Truncated
from lte_runtime.types import Batch, Edit, Position, RawRecord, TopicPartition


class Untroubled:
    """Attempts of a process that never dies."""

    careful = 0

    def is_deadly(self, position: Position) -> bool:  # noqa: ARG002
        return False

    def trying(self, positions: Sequence[Position]) -> AbstractContextManager[None]:  # noqa: ARG002
        return nullcontext()

    def done(self, positions: Sequence[Position]) -> None: ...


class FakeMemory:
    """Keeps what it is given; `fail` is raised by the next calls of `apply` while it is set."""

    def __init__(self) -> None:
        self.edits: dict[Position, Edit] = {}
        self.rows: dict[int, QuarantineRow] = {}
        self.batches: list[Batch] = []
        self.meta: dict[str, str] = {}
        self.attempts = Untroubled()
        self.fail: Callable[[], Exception] | None = None
        self.epochs: dict[TopicPartition, int] = {}
        self._offsets: dict[TopicPartition, int] = {}
        self._lock = threading.RLock()

    def next_offsets(self) -> Mapping[TopicPartition, int]:
        return dict(self._offsets)

    def leader_epochs(self) -> Mapping[TopicPartition, int]:
        return dict(self.epochs)

    def placed(self, records: Sequence[RawRecord]) -> tuple[RawRecord, ...]:
        return tuple(records)

    def lost_by(self, resume_at: Mapping[TopicPartition, int]) -> Truncated:
        lost = [edit for edit in self.edits.values() if self._is_cut(edit.position, resume_at)]
        return Truncated(tuple(lost), len(lost))

    def accept_truncation(self, resume_at: Mapping[TopicPartition, int], *, withdraw: bool) -> Truncated:
        lost = self.lost_by(resume_at)
        with self._lock:
            self._offsets |= resume_at
            for edit in lost.lost:
                del self.edits[edit.position]
        return Truncated(lost.lost, lost.lost_count, withdraw)

    @staticmethod
    def _is_cut(position: Position, resume_at: Mapping[TopicPartition, int]) -> bool:
        return position.offset >= resume_at.get(position.topic_partition, position.offset + 1)

    def apply(self, batch: Batch, confirm: Callable[[], None] = lambda: None) -> Applied:
        with self._lock:
            if self.fail is not None:
                raise self.fail()
            confirm()
            new = [edit for edit in batch.edits if edit.position not in self.edits]
            self.edits.update({edit.position: edit for edit in new})
            for rejected in batch.rejected:
                self._keep(rejected.record, rejected.code, rejected.message)
            self.epochs |= batch.leader_epochs
            for each, at in batch.next_offsets.items():
                self._offsets[each] = max(at, self._offsets.get(each, 0))
            self.batches.append(batch)
            duplicates = len(batch.edits) - len(new)
            return Applied(tuple(edit.id for edit in new), duplicates, len(batch.rejected), 0)

    def values(self) -> list[str]:
        return sorted(edit.target or "" for edit in self.edits.values())

    def quarantined(self) -> list[QuarantineRow]:
        return list(self.rows.values())

    def quarantine_bytes(self) -> int:
        return sum(len(row.record.value or b"") for row in self.rows.values())

    def quarantine_pending_dlq(self, limit: int) -> list[QuarantineRow]:
        return [row for row in self.rows.values() if row.state == "pending"][:limit]

    def mark_dead_lettered(self, ids: Sequence[int]) -> None:
        self._mark(ids, "dead_lettered")

    def requeue(self, ids: Sequence[int]) -> list[RawRecord]:
        self._mark(ids, "replayed")
        return [self.rows[each].record for each in ids]

    def meta_get(self, name: str) -> str | None:
        return self.meta.get(name)

    def meta_set(self, name: str, value: str) -> None:
        self.meta[name] = value

    def _keep(self, record: RawRecord, code: str, message: str) -> None:
        row_id = len(self.rows) + 1
        self.rows[row_id] = QuarantineRow(row_id, record, code, message, "", 0, "pending")

    def _mark(self, ids: Sequence[int], state: str) -> None:
        for each in ids:
            row = self.rows[each]
            self.rows[each] = QuarantineRow(
                row.id, row.record, row.code, row.message, row.sha256, row.received_ms, state
            )
