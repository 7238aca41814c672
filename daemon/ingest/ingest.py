"""From records to the edit memory: one thread, one readable step, nothing skipped silently.

Order of an event's way: SQLite commit, index and watermark (all in `memory.apply`), then Kafka's own offset,
which only lag tools read. Reading starts at the memory's offsets, never at the group's.

Replay of quarantined records is local: `replay` takes them from the quarantine, at their original positions,
and sends them through the same decoding and the same `apply` as fresh records.
Nothing is written to Kafka, so every replica decides for itself, and order stays that of the original.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from daemon.ingest.publisher_guard import UNKNOWN, PublisherGuard, publisher_of
from daemon.ingest.reader import TopicReader
from daemon.ingest.values import (
    UNKNOWN_LAG,
    AcceptedGap,
    BatchReport,
    IngestMemory,
    IngestSettings,
    IngestStatus,
    ReplayReport,
)
from daemon.kafka.client_internals.unreadable import BAD_NAME_HEADER
from daemon.kafka.history import Offsets, Polled, Unreadable
from daemon.kafka.source import Source
from daemon.lifecycle import Lifecycle
from lte_runtime.errors import BadRecord, DeadlineExceeded, Refused, Retry
from lte_runtime.facts import events
from lte_runtime.facts.events import EventLimits
from lte_runtime.store.records import Applied
from lte_runtime.types import Batch, Edit, Position, RawRecord, Rejected, TopicPartition

__all__ = ["BatchReport", "Ingest", "IngestSettings", "IngestStatus", "ReplayReport"]

log = logging.getLogger(__name__)
QUARANTINE_LIMIT = "quarantine_limit"
# Positions that move without records (transaction markers) are stored this seldom.
QUIET_STORE_S = 1.0
T = TypeVar("T")


def wall_ms() -> int:
    return time.time_ns() // 1_000_000


def _confirm(polled: Polled) -> None:
    try:
        polled.confirm()
    except Retry as error:
        raise _Unconfirmed(error) from error


class _Unconfirmed(Exception):
    """The records of a batch may not be what they were taken for."""


class Ingest:
    """Owns the source. `run` is the body of one thread; the other public methods may be called from any.

    `run` ends by `stop`, or raises what `memory.apply` raised when going on could lose data (`Fatal`, or a
    fault of the program): the process must end then, and start again.
    """

    def __init__(
        self,
        memory: IngestMemory,
        source: Source,
        lifecycle: Lifecycle,
        settings: IngestSettings | None = None,
        *,
        decode: Callable[[RawRecord, EventLimits], Edit] = events.decode,
        monotonic: Callable[[], float] = time.monotonic,
        now_ms: Callable[[], int] = wall_ms,
        on_batch: Callable[[BatchReport], None] | None = None,
        on_rejected: Callable[[], None] | None = None,
    ) -> None:
        self._memory = memory
        self._source = source
        self._lifecycle = lifecycle
        self._settings = settings or IngestSettings()
        self._decode = decode
        self._monotonic = monotonic
        self._now_ms = now_ms
        self._on_batch = on_batch
        self._on_rejected = on_rejected
        self._stop = threading.Event()
        self._reader = TopicReader(memory, source, lifecycle, self._settings, self._stop, monotonic)
        self._guard = PublisherGuard(self._settings.guard)
        self._suspects: tuple[str, ...] = ()
        self._unreadable: Position | None = None
        self._current_step: tuple[str, float] | None = None
        self._commands: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]]] = queue.SimpleQueue()
        self._pending: tuple[Batch, Polled] | None = None
        self._pending_pause = 0.0
        self._stored_at = 0.0
        self._started = monotonic()
        self._counts = IngestStatus()
        lifecycle.watch(source.last_answer)
        lifecycle.watch_steps(self.stuck)
        self._check_quarantine()

    # -- for other threads ---------------------------------------------------------------------------------

    def stop(self) -> None:
        """Have `run` end after its step; returns at once."""
        self._stop.set()

    def accept_gap(self, timeout_s: float = 30.0, *, withdraw_lost: bool = False) -> AcceptedGap:
        """Go on after the missing history, durably. Raises `Refused` when there is no gap."""
        return self._run_in_thread(
            lambda: self._reader.accept_gap(self._now_ms(), withdraw_lost=withdraw_lost), timeout_s
        )

    def lost_in_gap(self, timeout_s: float = 30.0) -> AcceptedGap:
        """What accepting the gap would mean. Raises `Refused` when there is none."""
        return self._run_in_thread(self._reader.lost_in_gap, timeout_s)

    def resume(self, timeout_s: float = 30.0) -> None:
        """End a suspension; raises `Refused` without one. A full quarantine is given one more quota."""
        self._run_in_thread(self._resume, timeout_s)

    def skip(self, partition: int, offset: int, resume_at: int | None = None, timeout_s: float = 30.0) -> int:
        """Leave out the record that ingest is suspended at, and go on at `resume_at` (default: the next one).

        A row in the quarantine says what was left out. Returns the offset at which reading goes on. Raises
        `Refused` unless ingest is suspended at exactly this record.
        """
        after = offset + 1 if resume_at is None else resume_at
        return self._run_in_thread(lambda: self._skip(partition, offset, after), timeout_s)

    def replay(self, ids: Sequence[int], timeout_s: float = 60.0) -> ReplayReport:
        """Decode and apply quarantined records again, at their original positions."""
        return self._run_in_thread(lambda: self._replay(ids), timeout_s)

    def status(self) -> IngestStatus:
        partitions = self._reader.partitions()
        if self.stuck():
            partitions = {
                partition: replace(status, lag=UNKNOWN_LAG) for partition, status in partitions.items()
            }
        return replace(self._counts, partitions=partitions, gap=self._reader.gap)

    def stuck(self) -> str:
        """Why ingest does not go on: one step has taken longer than `stuck_after_s`; empty while it does."""
        step, limit = self._current_step, self._settings.stuck_after_s
        if step is None or self._monotonic() - step[1] <= limit:
            return ""
        return (
            f"ingest has been {step[0]} for more than {limit:.0f} s: if it does not end, restart the daemon"
        )

    # -- the thread ----------------------------------------------------------------------------------------

    def run(self) -> None:
        """Ingest until `stop`; closes the source at the end."""
        try:
            while not self._stop.is_set():
                self.step()
        finally:
            self._stop.set()
            self._current_step = None
            self._refuse_commands()
            self._source.close()

    def step(self) -> None:
        """One turn of the loop; waits about `poll_s` at most, unless a broker hangs."""
        self._begin("running an operator's command")
        self._run_commands()
        self._begin("reading from Kafka")
        try:
            careful = self._memory.attempts.careful > 0
            self._take(self._reader.read(self._held, 1 if careful else self._settings.max_records))
        except Refused as error:
            self._unreadable = error.position if isinstance(error, Unreadable) else None
            self._suspend(str(error))
        self._begin("checking its state")
        self._check_health()

    def _begin(self, step: str) -> None:
        self._current_step = step, self._monotonic()

    @property
    def _suspended(self) -> bool:
        return bool(self._lifecycle.conditions.suspended)

    @property
    def _held(self) -> bool:
        """Whether nothing may be read now; polling goes on with everything paused."""
        return self._suspended or self._pending is not None

    def _take(self, polled: Polled | None) -> None:
        if polled is None or self._reader.gap is not None:
            self._pending = None  # what was not applied is read again
        elif self._pending is not None:
            self._decode_and_apply(*self._pending)
        elif not self._suspended and (polled.records or self._has_moved(polled.next_offsets)):
            self._pending_pause = 0.0
            self._decode_and_apply(None, polled)

    def _has_moved(self, offsets: Offsets) -> bool:
        """Over records that no reader sees, and long enough ago to be worth a transaction."""
        moved = any(self._reader.next.get(partition) != at for partition, at in offsets.items())
        return moved and self._monotonic() - self._stored_at > QUIET_STORE_S

    def _decode_and_apply(self, batch: Batch | None, polled: Polled) -> None:
        """Decode and apply, with a note of what is in work in case the process dies over it."""
        self._begin("applying a batch")
        with self._memory.attempts.trying([record.position for record in polled.records]):
            self._apply(batch or self._decode_batch(polled), polled)

    def _decode_batch(self, polled: Polled) -> Batch:
        edits: list[Edit] = []
        rejected: list[Rejected] = []
        for record in polled.records:
            try:
                edit = self._decode_one(record)
            except BadRecord as error:
                rejected.append(Rejected(record, error.code, str(error)))
                continue
            edits.append(edit)
            if notice := events.notice(edit):
                rejected.append(Rejected(record, *notice))
        return Batch(tuple(edits), tuple(rejected), dict(polled.next_offsets), polled.leader_epochs)

    def _decode_one(self, record: RawRecord) -> Edit:
        if self._memory.attempts.is_deadly(record.position):
            raise BadRecord("crashed", "the process died twice over this record")
        if any(name == BAD_NAME_HEADER for name, _ in record.headers):
            raise BadRecord("bad_header_name", "a header name is not UTF-8")
        return self._decode(record, self._settings.limits)

    def _apply(self, batch: Batch, polled: Polled) -> None:
        """Apply a batch; when that must wait, keep it and go on polling with everything paused."""
        begun = self._monotonic()
        try:
            applied = self._memory.apply(batch, partial(_confirm, polled))
        except _Unconfirmed as doubt:
            self._pending = None
            self._reader.interrupt(doubt.args[0])
            return
        except Retry as error:
            self._hold(batch, polled, error)
            return
        self._stored_at = self._monotonic()
        self._pending = None
        self._lifecycle.clear_degraded("storage")
        self._memory.attempts.done([record.position for record in polled.records])
        self._reader.applied(batch.next_offsets)
        if applied.unproven:
            log.warning(
                "%d records name an original position that could not be confirmed: the header was ignored",
                applied.unproven,
            )
        if polled.records:
            self._report(batch, polled.records, applied, self._stored_at - begun)

    def _hold(self, batch: Batch, polled: Polled, error: Retry) -> None:
        self._pending = batch, polled
        self._pending_pause = min(max(self._pending_pause * 2, 0.05), 2.0)
        self._lifecycle.set_degraded("storage", f"cannot store edits: {error}")
        self._stop.wait(self._pending_pause)

    def _report(self, batch: Batch, records: Sequence[RawRecord], applied: Applied, seconds: float) -> None:
        self._count(batch, records)
        if batch.rejected or applied.rejected:
            self._report_rejected()
            self._check_quarantine()
        if self._on_batch is not None:
            now_ms = self._now_ms()
            rejected = Counter(bad.code for bad in batch.rejected)
            freshness = tuple(float(now_ms - record.timestamp_ms) for record in records)
            self._on_batch(BatchReport(len(records), applied, rejected, seconds, freshness))

    def _count(self, batch: Batch, records: Sequence[RawRecord]) -> None:
        now = self._monotonic()
        for edit in batch.edits:
            self._guard.note(edit.publisher or UNKNOWN, now, good=1)
        for bad in batch.rejected:
            self._guard.note(publisher_of(bad.record), now, bad=1)
        self._counts = replace(
            self._counts,
            last_event_ms=max(record.timestamp_ms for record in records),
            records=self._counts.records + len(records),
            rejected=self._counts.rejected + len(batch.rejected),
        )

    def _report_rejected(self) -> None:
        if self._on_rejected is not None:
            self._on_rejected()

    # -- suspension ----------------------------------------------------------------------------------------

    def _suspend(self, reason: str) -> None:
        if not self._suspended:
            log.error("ingest suspended: %s", reason)
        self._lifecycle.set_suspended(reason)

    def _check_quarantine(self) -> None:
        used, limit = self._memory.quarantine_bytes(), self._quarantine_limit()
        if used >= limit:
            self._suspend(f"quarantine_full: {used} bytes of {limit}")

    def _quarantine_limit(self) -> int:
        allowed = self._memory.meta_get(QUARANTINE_LIMIT)
        return max(self._settings.quarantine_max_bytes, int(allowed or 0))

    def _resume(self) -> None:
        if not self._suspended:
            raise Refused("ingest is not suspended")
        used = self._memory.quarantine_bytes()
        if used >= self._quarantine_limit():
            more = used + self._settings.quarantine_max_bytes
            self._memory.meta_set(QUARANTINE_LIMIT, str(more))
        self._end_suspension()

    def _end_suspension(self) -> None:
        self._unreadable = None
        self._lifecycle.clear_suspended()

    def _skip(self, partition: int, offset: int, after: int) -> int:
        place = self._unreadable
        if place is None or self._reader.gap:
            raise Refused("ingest is not suspended at a record: there is nothing to skip")
        if (place.partition, place.offset) != (partition, offset):
            raise Refused(
                f"ingest is suspended at another record: partition {place.partition}, offset {place.offset}"
            )
        where = TopicPartition(place.topic_id, partition)
        end = max(self._reader.partitions()[where].end, offset + 1)
        if not offset < after <= end:
            raise Refused(f"reading can resume after offset {offset}, at {end} at the latest, not at {after}")
        self._put_skipped(place, after)
        self._reader.applied({where: after})
        self._reader.drop()
        self._end_suspension()
        self._report_rejected()
        self._check_quarantine()
        return after

    def _put_skipped(self, place: Position, after: int) -> None:
        offsets = f"partition {place.partition}, offsets {place.offset} to {after - 1}"
        reason = f"an operator skipped what could not be read: {offsets}"
        log.warning("%s", reason)
        record = RawRecord(self._source.topic, place, None, b"", (), self._now_ms())
        next_offsets = {TopicPartition(place.topic_id, place.partition): after}
        self._memory.apply(Batch((), (Rejected(record, "skipped", reason),), next_offsets))

    # -- health ------------------------------------------------------------------------------------

    def _check_health(self) -> None:
        if self._reader.caught_up() and not self._held and not self._lifecycle.conditions.caught_up:
            log.info("caught up")
            self._lifecycle.set_caught_up()
        self._serve_stale_state()
        self._watch_publishers()
        self._watch_reading()
        self._lifecycle.tick()

    def _watch_reading(self) -> None:
        if self._reader.stalls(self._held):
            waited = f"{self._settings.stuck_after_s:.0f} s"
            self._lifecycle.set_degraded(
                "reading", f"no record has been read for more than {waited} although the topic has newer ones"
            )
        else:
            self._lifecycle.clear_degraded("reading")

    def _serve_stale_state(self) -> None:
        """An earlier state is better than none while nothing can be read."""
        waited = self._monotonic() - self._started > self._settings.serve_stale_after_s
        if self._lifecycle.conditions.servable or not waited:
            return
        reading = self._reader.connected and not self._suspended and not self._lifecycle.stale
        if not reading and self._memory.next_offsets():
            self._lifecycle.set_servable("Kafka cannot be read yet: answers come from the stored state")

    def _watch_publishers(self) -> None:
        suspects = self._guard.suspects(self._monotonic())
        if suspects == self._suspects:
            return
        new, self._suspects = set(suspects) - set(self._suspects), suspects
        self._counts = replace(
            self._counts, alerts=self._counts.alerts + len(new), bad_publishers=self._guard.bad_counts()
        )
        if suspects:
            self._lifecycle.set_degraded("publisher", f"many bad records from: {', '.join(suspects)}")
        else:
            self._lifecycle.clear_degraded("publisher")

    # -- commands ------------------------------------------------------------------------------------------

    def _run_in_thread(self, command: Callable[[], T], timeout_s: float) -> T:
        """Have the ingest thread do it between two steps, so that nothing else moves meanwhile."""
        if self._stop.is_set():
            raise Refused("ingest has stopped")
        if stuck := self.stuck():
            raise Refused(stuck)
        done: Future[T] = Future()
        self._commands.put((command, done))
        try:
            return done.result(timeout_s)
        except FutureTimeout:
            step = self._current_step
            busy = f"ingest is busy {step[0]}" if step else "ingest does not run"
            outcome = "nothing was done" if done.cancel() else "the command is still running"
            raise DeadlineExceeded(f"{busy}: no answer in {timeout_s:.0f} s, {outcome}") from None

    def _run_commands(self) -> None:
        while not self._commands.empty():
            command, done = self._commands.get()
            if not done.set_running_or_notify_cancel():
                continue
            try:
                done.set_result(command())
            except Exception as error:  # noqa: BLE001 - it is the caller's, and the caller gets it
                done.set_exception(error)

    def _refuse_commands(self) -> None:
        while not self._commands.empty():
            _, done = self._commands.get()
            if done.set_running_or_notify_cancel():
                done.set_exception(Refused("ingest has stopped"))

    def _replay(self, ids: Sequence[int]) -> ReplayReport:
        records = self._memory.requeue(ids)
        with self._memory.attempts.trying([record.position for record in records]):
            batch = self._decode_batch(Polled(tuple(records), {}))
            applied = self._memory.apply(batch)
        if batch.rejected or applied.rejected:
            self._report_rejected()
        return ReplayReport(len(records), applied.applied, applied.rejected)
