"""The inference thread: a bounded queue in front, micro-batches behind. Knows no model and no torch."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, TypeVar

from lte_runtime.answer.engine.protocol import EngineStats
from lte_runtime.answer.engine.rows import GenerationRow
from lte_runtime.answer.engine.versions import Version, Versions
from lte_runtime.errors import Overloaded, Retry
from lte_runtime.types import GenerateRequest, Generation

log = logging.getLogger(__name__)
T = TypeVar("T")
RECENT_S = 0.1
"""How long after an answer the next one is still expected."""


@dataclass(eq=False)
class PendingRequest:
    """A request that waits or runs on its version; `arrived` and `started` are monotonic seconds."""

    row: GenerationRow
    version: Version
    arrived: float
    future: Future[Generation] = field(default_factory=Future)
    started: float = 0.0

    @property
    def request(self) -> GenerateRequest:
        return self.row.request


def next_batch(waiting: Sequence[PendingRequest], max_batch: int) -> list[PendingRequest]:
    """The oldest job and, where it wants an adapter, those of the same version nearest to it in length.

    Rows of two versions never meet in a batch: so a batch is made by one adapter, whatever is switched.
    A base row always runs alone and unpadded: any neighbour changes the last bits of its logits, and so
    now and then a token. Taking the oldest first starves nobody; near lengths waste little padding.
    """
    oldest = waiting[0]
    if not oldest.request.adapter:
        return [oldest]
    length = len(oldest.request.token_ids)
    others = [
        job for job in waiting if job is not oldest and job.request.adapter and job.version is oldest.version
    ]
    others.sort(key=lambda job: abs(len(job.request.token_ids) - length))
    return [oldest, *others[: max_batch - 1]]


class Worker:
    """Runs batches on one thread of its own; never waits for company when something is there to do.

    `run(model, rows, settled)` generates for all rows with the model of their version and calls
    `settled(row)` as each one ends.
    """

    def __init__(
        self,
        run: Callable[[Any, Sequence[GenerationRow], Callable[[GenerationRow], None]], None],
        *,
        versions: Versions,
        max_batch: int,
        queue_limit: int,
    ) -> None:
        self._run = run
        self._versions = versions
        self._max_batch = max_batch
        self._queue_limit = queue_limit
        self._waiting: deque[PendingRequest] = deque()
        self._between: deque[tuple[Callable[[], Any], Future[Any]]] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._counts = {"requests": 0, "refused": 0, "batches": 0, "rows": 0, "tokens": 0}
        self._model_s = 0.0
        self._running: dict[GenerationRow, PendingRequest] = {}
        self._ended = -math.inf
        self._thread = threading.Thread(target=self._loop, name="engine", daemon=True)
        self._thread.start()

    def submit(self, row: GenerationRow) -> Future[Generation]:
        """Queues the row, pinned to its version from now on.

        Raises `Overloaded` at the limit, `Retry` after `close`, `NotFound` for an adapter that is not loaded.
        """
        version = self._versions.pin(adapter=row.request.adapter, name=row.request.adapter_id)
        job = PendingRequest(row, version, arrived=time.monotonic())
        # However the request ends, its future does: that is the one place where the version is released.
        job.future.add_done_callback(lambda _: self._versions.release(version))
        try:
            self._queue(job)
        except BaseException:
            job.future.cancel()
            raise
        return job.future

    def _queue(self, job: PendingRequest) -> None:
        with self._changed:
            if self._closing:
                raise Retry("the engine is stopping")
            self._counts["requests"] += 1
            if len(self._waiting) >= self._queue_limit:
                self._sweep()
            if len(self._waiting) >= self._queue_limit:
                self._counts["refused"] += 1
                raise Overloaded(f"{self._queue_limit} questions wait already: ask again later")
            self._waiting.append(job)
            self._changed.notify()

    def between(self, task: Callable[[], T]) -> Future[T]:
        """Runs a short task on the inference thread before the next batch; raises `Retry` after `close`."""
        future: Future[T] = Future()
        with self._changed:
            if self._closing:
                raise Retry("the engine is stopping")
            self._between.append((task, future))
            self._changed.notify()
        return future

    @property
    def queue_depth(self) -> int:
        return len(self._waiting)

    @property
    def busy(self) -> bool:
        """Whether somebody is answered now or was a moment ago."""
        return bool(self._running or self._waiting) or time.monotonic() - self._ended < RECENT_S

    def stats(self) -> EngineStats:
        with self._changed:
            return EngineStats(
                **self._counts,
                model_ms=self._model_s * 1e3,
                queue_depth=len(self._waiting),
                running=len(self._running),
            )

    def close(self) -> None:
        with self._changed:
            self._closing = True
            unfinished = [job.future for job in self._waiting] + [future for _, future in self._between]
            self._waiting.clear()
            self._between.clear()
            for row in list(self._running):
                row.abandoned = True
            self._changed.notify()
        for future in unfinished:
            if future.set_running_or_notify_cancel():
                future.set_exception(Retry("the engine is stopping"))
        self._thread.join()

    def _sweep(self) -> None:
        """Ends waiting jobs that are late or that nobody waits for, so that they keep no live one out."""
        now = time.monotonic()
        for job in list(self._waiting):
            job.row.interrupt(now)
            if job.row.finish:
                self._waiting.remove(job)
                job.started = now
                if job.future.set_running_or_notify_cancel():
                    self._settle(job)

    def _loop(self) -> None:
        while self._something_to_do():
            self._do_between()
            if batch := self._take():
                self._serve(batch)

    def _something_to_do(self) -> bool:
        """Waits for it; False when the worker closes."""
        with self._changed:
            while not (self._waiting or self._between or self._closing):
                self._changed.wait()
            return not self._closing

    def _do_between(self) -> None:
        while self._between:
            try:
                task, future = self._between.popleft()
            except IndexError:  # `close` has emptied it
                return
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(task())
            except Exception as error:  # noqa: BLE001 - goes to whoever waits for the task
                future.set_exception(error)

    def _take(self) -> list[PendingRequest]:
        """The next batch; nothing when there was only something to do between two of them."""
        with self._changed:
            if not self._waiting:
                return []
            batch = next_batch(self._waiting, self._max_batch)
            for job in batch:
                self._waiting.remove(job)
            return batch

    def _serve(self, batch: Sequence[PendingRequest]) -> None:
        started = time.monotonic()
        live = [job for job in batch if job.future.set_running_or_notify_cancel()]
        for job in live:
            job.started = started
            job.row.interrupt(started)
        self._running = {job.row: job for job in live}
        for row in [row for row in self._running if row.finish]:
            self._settle_row(row)
        rows = list(self._running)
        try:
            if rows:
                self._run(live[0].version.model, rows, self._settle_row)
        except Exception as error:
            log.exception("a batch of %d failed", len(rows))
            self._fail(error)
        self._ended = time.monotonic()
        with self._changed:
            self._counts["batches"] += bool(rows)
            self._model_s += self._ended - started

    def _settle_row(self, row: GenerationRow) -> None:
        self._settle(self._running.pop(row))

    def _settle(self, job: PendingRequest) -> None:
        row, now = job.row, time.monotonic()
        generation = Generation(
            text=row.text,
            token_ids=tuple(row.tokens),
            adapter=job.version.ref,
            finish=row.finish,
            queue_ms=(job.started - job.arrived) * 1e3,
            model_ms=(now - job.started) * 1e3,
        )
        with self._changed:
            self._counts["rows"] += 1
            self._counts["tokens"] += len(row.tokens)
        job.future.set_result(generation)

    def _fail(self, error: Exception) -> None:
        for job in self._running.values():
            job.future.set_exception(error)
        self._running = {}
