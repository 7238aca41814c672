"""Quarantined records to the dead-letter topic, with the headers that Kafka Connect's users know."""

from __future__ import annotations

import functools
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from kafka.errors import KafkaError

from daemon.kafka.connection import Security
from daemon.kafka.dlq_contents import DlqContents
from daemon.kafka.producing import open_producer
from lte_runtime.errors import Refused, Retry
from lte_runtime.facts.events import original_position_header
from lte_runtime.store.records import QuarantineRow

log = logging.getLogger(__name__)
PREFIX = "__connect.errors."
CONNECTOR = "lte-daemon"
# Pauses after the topic failed, which double from the first to the longest: nobody waits for a dead letter,
# and half a minute keeps the log readable while the topic is away.
RETRY_S, RETRY_MAX_S = 0.5, 30.0
# Time that a dead letter gets to be acknowledged: longer than a broker takes to pass on a partition's lead.
SEND_TIMEOUT_S = 10.0
Headers = list[tuple[str, bytes]]


class Quarantine(Protocol):
    """What dead letters need of `EditMemory`."""

    def quarantine_pending_dlq(self, limit: int) -> Sequence[QuarantineRow]: ...
    def mark_dead_lettered(self, ids: Sequence[int]) -> None: ...


@dataclass(frozen=True)
class DeadLetterSettings:
    """Times in seconds."""

    bootstrap: str
    topic: str = "lte.edits.dlq"
    security: Security = field(default_factory=dict)
    batch: int = 100
    idle_s: float = 5.0
    retry_s: float = RETRY_S
    retry_max_s: float = RETRY_MAX_S
    send_timeout_s: float = SEND_TIMEOUT_S


@dataclass(frozen=True)
class DeadLetterStatus:
    """Records sent since the start; `failure` is the last fault, empty while all is well."""

    sent: int = 0
    failures: int = 0
    failure: str = ""


@dataclass(frozen=True)
class Shared:
    """A topic that several daemons write to, one at a time. `epoch` is the own one, confirmed at this moment:
    it raises `Refused` in a daemon that does not own the shared topics, `Retry` when that is not known now.
    `contents` knows what others wrote."""

    epoch: Callable[[], int]
    contents: DlqContents


class DeadLetters:
    """Own thread (`run`), own producer. Ingest is never held up: rows stay pending until the topic has them.

    With `shared` only the owner sends; the others mark what it sent, so that an heir sends what is missing.
    Delivery is at least once: a crash between the send and the mark sends again; the position in the headers
    tells such twins. A record that the topic refuses (too large) is tried again, ever more seldom, and others
    go past it.
    """

    def __init__(
        self,
        memory: Quarantine,
        settings: DeadLetterSettings,
        *,
        shared: Shared | None = None,
        open_client: Callable[[DeadLetterSettings], Any] | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._memory = memory
        self._settings = settings
        self._shared = shared
        self._epoch: int | None = None
        self._open = open_client or _open
        self._monotonic = monotonic
        self._producer: Any = None
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._pause = settings.retry_s
        self._failing = False
        self._refused: dict[int, tuple[float, float]] = {}  # row id -> (not before, next pause)
        self._status = DeadLetterStatus()

    def wake(self) -> None:
        """There may be something to send; returns at once, for any thread."""
        self._wake.set()

    def stop(self) -> None:
        self._stop.set()
        self._wake.set()

    def status(self) -> DeadLetterStatus:
        return self._status

    def run(self) -> None:
        """Send what is pending until `stop`; waits for `wake` or `idle_s` when there is nothing."""
        while not self._stop.is_set():
            self._wait(self.step())
        self._drop_clients()

    def step(self) -> float:
        """Send one batch; returns how long to wait before the next (0: there may be more)."""
        try:
            rows = self._due_rows()
            mine, already_there = self._split(rows)
            self._memory.mark_dead_lettered(already_there)
            if not mine:
                return 0.0 if already_there else self._settings.idle_s
            sent = self._send(mine)
            self._memory.mark_dead_lettered(sent)
        except (Retry, KafkaError) as error:
            return self._fail(error)
        self._pause, self._failing = self._settings.retry_s, False
        self._status = replace(self._status, sent=self._status.sent + len(sent))
        if len(sent) == len(mine) and not self._refused:
            self._status = replace(self._status, failure="")
        return 0.0

    def _due_rows(self) -> list[QuarantineRow]:
        limit = self._settings.batch + len(self._refused)
        now = self._monotonic()
        rows = self._memory.quarantine_pending_dlq(limit)
        return [row for row in rows if self._refused.get(row.id, (0.0, 0.0))[0] <= now]

    def _split(self, rows: Sequence[QuarantineRow]) -> tuple[Sequence[QuarantineRow], list[int]]:
        """The rows that are this daemon's to send now, and ids of those that the topic has by others.

        Whoever owns goes on without reading: until another epoch nobody else writes.
        """
        if self._shared is None or not rows:
            return rows, []
        contents, epoch = self._shared.contents, self._own_epoch(self._shared)
        if epoch is None or epoch != self._epoch:
            contents.read()
        self._epoch = epoch
        missing = [row for row in rows if not contents.has(row.record.position)]
        ids = [row.id for row in rows if contents.has(row.record.position)]
        return ([] if epoch is None else missing), ids

    def _own_epoch(self, shared: Shared) -> int | None:
        try:
            return shared.epoch()
        except Refused:
            return None

    def _send(self, rows: Sequence[QuarantineRow]) -> list[int]:
        """Ids of the rows that the topic has now. Raises when the topic takes nothing at all."""
        self._producer = self._producer or self._open(self._settings)
        # The first one alone: an absent topic costs one wait, not one for each row.
        first = self._deliver(rows[:1])
        return first + self._deliver(rows[1:])

    def _deliver(self, rows: Sequence[QuarantineRow]) -> list[int]:
        waiting = [(row, self._attempt(row, functools.partial(self._produce, row))) for row in rows]
        return [row.id for row, future in waiting if future is not None and self._acknowledged(row, future)]

    def _produce(self, row: QuarantineRow) -> Any:
        record = row.record
        return self._producer.send(
            self._settings.topic,
            value=record.value,
            key=record.key,
            headers=dead_letter_headers(row),
            timestamp_ms=record.timestamp_ms if record.timestamp_ms > 0 else None,
        )

    def _acknowledged(self, row: QuarantineRow, future: Any) -> bool:
        answer = self._attempt(row, lambda: future.get(timeout=self._settings.send_timeout_s))
        if answer is not None:
            self._refused.pop(row.id, None)
        return answer is not None

    def _attempt(self, row: QuarantineRow, act: Callable[[], Any]) -> Any:
        """What `act` returns; None when this record alone is refused. Passing faults go up."""
        try:
            return act()
        except KafkaError as error:
            if getattr(error, "retriable", False):
                raise
            self._refuse(row, error)
            return None

    def _refuse(self, row: QuarantineRow, error: KafkaError) -> None:
        _, pause = self._refused.get(row.id, (0.0, self._settings.retry_s))
        self._refused[row.id] = (self._monotonic() + pause, min(pause * 2, self._settings.retry_max_s))
        self._note_failure(f"record {row.id} refused: {error}")

    def _fail(self, error: Exception) -> float:
        self._note_failure(str(error))
        self._failing = True
        self._drop_clients()  # an idempotent producer does not outlive a failed send
        pause, self._pause = self._pause, min(self._pause * 2, self._settings.retry_max_s)
        return pause

    def _note_failure(self, message: str) -> None:
        if message != self._status.failure:
            log.warning("dead letters to %s: %s", self._settings.topic, message)
        self._status = replace(self._status, failures=self._status.failures + 1, failure=message)

    def _wait(self, seconds: float) -> None:
        if seconds > 0:
            # After a failure new rows are no reason to try again sooner.
            (self._stop if self._failing else self._wake).wait(seconds)
        self._wake.clear()

    def _drop_clients(self) -> None:
        if self._shared is not None:
            self._shared.contents.close()
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.close(timeout=1)


def dead_letter_headers(row: QuarantineRow) -> Headers:
    """The record's own headers, untouched, then Connect's, then the position that a replay keeps."""
    record, where = row.record, row.record.position
    errors: Mapping[str, str] = {
        "topic": record.topic,
        "partition": str(where.partition),
        "offset": str(where.offset),
        "connector.name": CONNECTOR,
        "task.id": "0",
        "stage": "VALUE_CONVERTER",
        "class.name": "lte_runtime.facts.events",
        "exception.class.name": row.code,
        "exception.message": row.message,
    }
    added = [(PREFIX + name, value.encode()) for name, value in errors.items()]
    return [*record.headers, *added, original_position_header(where, record.timestamp_ms)]


def _open(settings: DeadLetterSettings) -> Any:
    return open_producer(settings.bootstrap, settings.security, timeout_s=settings.send_timeout_s)
