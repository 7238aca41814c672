"""The inference thread: a bounded queue in front, micro-batches behind. Knows no model and no torch."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from lte_runtime.answer.engine.rows import Row
from lte_runtime.answer.engine.seam import EngineStats
from lte_runtime.errors import Overloaded, Retry
from lte_runtime.types import AdapterRef, GenerateRequest, Generation

log = logging.getLogger(__name__)


@dataclass(eq=False)
class Job:
    """A request that waits or runs; `arrived` and `started` are monotonic seconds."""

    row: Row
    arrived: float
    future: Future[Generation] = field(default_factory=Future)
    started: float = 0.0

    @property
    def request(self) -> GenerateRequest:
        return self.row.request


def next_batch(waiting: Sequence[Job], max_batch: int) -> list[Job]:
    """The oldest job and, where it wants the adapter, the waiting ones nearest to it in length.

    A base row always runs alone and unpadded: any neighbour changes the last bits of its logits, and so
    now and then a token. Taking the oldest first starves nobody; near lengths waste little padding.
    """
    oldest = waiting[0]
    if not oldest.request.adapter:
        return [oldest]
    length = len(oldest.request.token_ids)
    others = [job for job in waiting if job is not oldest and job.request.adapter]
    others.sort(key=lambda job: abs(len(job.request.token_ids) - length))
    return [oldest, *others[: max_batch - 1]]


class Worker:
    """Runs batches on one thread of its own; never waits for company when something is there to do.

    `run(rows, settled)` generates for all rows and calls `settled(row)` as each one ends.
    """

    def __init__(
        self,
        run: Callable[[Sequence[Row], Callable[[Row], None]], None],
        *,
        adapter: AdapterRef | None,
        max_batch: int,
        queue_limit: int,
    ) -> None:
        self._run = run
        self._adapter = adapter
        self._max_batch = max_batch
        self._queue_limit = queue_limit
        self._waiting: deque[Job] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._counts = {"requests": 0, "refused": 0, "batches": 0, "rows": 0, "tokens": 0}
        self._model_s = 0.0
        self._running: dict[Row, Job] = {}
        self._thread = threading.Thread(target=self._loop, name="engine", daemon=True)
        self._thread.start()

    def submit(self, row: Row) -> Future[Generation]:
        """Queues the row; raises `Overloaded` at the limit and `Retry` after `close`."""
        job = Job(row, arrived=time.monotonic())
        with self._changed:
            if self._closing:
                raise Retry("the engine is stopping")
            self._counts["requests"] += 1
            if len(self._waiting) >= self._queue_limit:
                self._sweep()
            if len(self._waiting) >= self._queue_limit:
                self._counts["refused"] += 1
                raise Overloaded(f"{self._queue_limit} questions wait already")
            self._waiting.append(job)
            self._changed.notify()
        return job.future

    @property
    def queue_depth(self) -> int:
        return len(self._waiting)

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
            left = list(self._waiting)
            self._waiting.clear()
            for row in list(self._running):
                row.abandoned = True
            self._changed.notify()
        for job in left:
            if job.future.set_running_or_notify_cancel():
                job.future.set_exception(Retry("the engine is stopping"))
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
        while batch := self._take():
            self._serve(batch)

    def _take(self) -> list[Job]:
        """The next batch; nothing when the worker closes."""
        with self._changed:
            while not self._waiting and not self._closing:
                self._changed.wait()
            if self._closing:
                return []
            batch = next_batch(self._waiting, self._max_batch)
            for job in batch:
                self._waiting.remove(job)
            return batch

    def _serve(self, batch: Sequence[Job]) -> None:
        started = time.monotonic()
        wanted = [job for job in batch if job.future.set_running_or_notify_cancel()]
        for job in wanted:
            job.started = started
            job.row.interrupt(started)
        self._running = {job.row: job for job in wanted}
        for row in [row for row in self._running if row.finish]:
            self._settle_row(row)
        rows = list(self._running)
        try:
            if rows:
                self._run(rows, self._settle_row)
        except Exception as error:
            log.exception("a batch of %d failed", len(rows))
            self._fail(error)
        with self._changed:
            self._counts["batches"] += bool(rows)
            self._model_s += time.monotonic() - started

    def _settle_row(self, row: Row) -> None:
        self._settle(self._running.pop(row))

    def _settle(self, job: Job) -> None:
        row, now = job.row, time.monotonic()
        generation = Generation(
            text=row.text,
            token_ids=tuple(row.tokens),
            adapter=self._adapter if row.request.adapter else None,
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
