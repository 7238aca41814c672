"""Rows that servers elsewhere answer: a bounded queue, and an event loop with a task for each row.

The counterpart of `worker.Worker`, with the same promises. Knows no HTTP.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

from lte_runtime.answer.engine.protocol import EngineStats
from lte_runtime.answer.engine.rows import GenerationRow
from lte_runtime.answer.engine.versions import Versions
from lte_runtime.answer.engine.worker import PendingRequest
from lte_runtime.errors import LteError, Overloaded, Retry
from lte_runtime.types import Generation

log = logging.getLogger(__name__)
T = TypeVar("T")
LOOK_S = 0.05
"""Time between two looks for rows that are late or that nobody waits for."""
CLOSE_S = 10.0
"""Longest wait for what is left to tell the servers at the end."""


class RemoteQueue:
    """`answer(row, model)` gives a row its tokens until it ends, or raises. At most `places()` rows run at
    once; one more waits, oldest first."""

    def __init__(
        self,
        answer: Callable[[GenerationRow, Any], Awaitable[None]],
        *,
        versions: Versions,
        places: Callable[[], int],
        queue_limit: int,
    ) -> None:
        self._answer, self._versions, self._places, self._queue_limit = answer, versions, places, queue_limit
        self._lock = threading.Lock()
        self._waiting: deque[PendingRequest] = deque()
        self._running: dict[PendingRequest, asyncio.Task[None]] = {}
        self._closing = False
        self._counts = {"requests": 0, "refused": 0, "batches": 0, "rows": 0, "tokens": 0}
        self._model_s = 0.0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="engine", daemon=True)
        self._thread.start()
        self._watching = self.start(self._watch_rows())

    def start(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Runs `work` on the queue's event loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def call_soon(self, action: Callable[[], object]) -> None:
        """Calls `action` on the event loop; from any thread, and never blocks."""
        self._loop.call_soon_threadsafe(action)

    def submit(self, row: GenerationRow) -> Future[Generation]:
        """As `Worker.submit`."""
        version = self._versions.pin(adapter=row.request.adapter, name=row.request.adapter_id)
        job = PendingRequest(row, version, arrived=time.monotonic())
        job.future.add_done_callback(lambda _: self._versions.release(version))
        try:
            self._enqueue(job)
        except BaseException:
            job.future.cancel()
            raise
        return job.future

    def _enqueue(self, job: PendingRequest) -> None:
        with self._lock:
            if self._closing:
                raise Retry("the engine is stopping")
            self._counts["requests"] += 1
            if len(self._waiting) >= self._queue_limit:
                self._counts["refused"] += 1
                raise Overloaded(f"{self._queue_limit} questions wait already: ask again later")
            self._waiting.append(job)
        self.call_soon(self.fill)

    @property
    def queue_depth(self) -> int:
        return len(self._waiting)

    def stats(self) -> EngineStats:
        with self._lock:
            return EngineStats(
                **self._counts,
                model_ms=self._model_s * 1e3,
                queue_depth=len(self._waiting),
                running=len(self._running),
            )

    def close(self, last: Callable[[], Coroutine[Any, Any, None]] | None = None) -> None:
        """Ends running rows as `cancelled` and fails waiting ones with `Retry`; then runs `last`. Once."""
        with self._lock:
            if self._closing:
                return
            self._closing = True
            waiting = [*self._waiting]
            self._waiting.clear()
        for job in waiting:
            if job.future.set_running_or_notify_cancel():
                job.future.set_exception(Retry("the engine is stopping"))
        self._watching.cancel()
        try:
            self.start(self._end(last)).result(CLOSE_S)
        except TimeoutError:
            log.warning("the vLLM servers did not hear of the end within %.0f s", CLOSE_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _end(self, last: Callable[[], Coroutine[Any, Any, None]] | None) -> None:
        for job in self._running:
            job.row.abandoned = True
        self._end_late_rows()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks - set(self._running.values()):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if last is not None:
            await last()

    # -- on the event loop ---------------------------------------------------------------------------

    def fill(self) -> None:
        """Starts rows while there are places."""
        while len(self._running) < self._places():
            with self._lock:
                if not self._waiting:
                    return
                job = self._waiting.popleft()
                self._running[job] = self._loop.create_task(self._serve(job))

    async def _serve(self, job: PendingRequest) -> None:
        job.started = time.monotonic()
        try:
            if not job.future.set_running_or_notify_cancel():
                return
            job.row.interrupt(job.started)
            if not job.row.finish:
                await self._answer(job.row, job.version.model)
            self._settle(job)
        except asyncio.CancelledError:
            job.row.abandoned = True
            job.row.interrupt(time.monotonic())
            self._settle(job)
        except Exception as error:
            if not isinstance(error, LteError):
                log.exception("an answer failed")
            job.future.set_exception(error)
        finally:
            with self._lock:
                del self._running[job]
            self.fill()

    def _settle(self, job: PendingRequest) -> None:
        row, now = job.row, time.monotonic()
        with self._lock:
            self._counts["batches"] += 1
            self._counts["rows"] += 1
            self._counts["tokens"] += len(row.tokens)
            self._model_s += now - job.started
        job.future.set_result(
            Generation(
                text=row.text,
                token_ids=tuple(row.tokens),
                adapter=job.version.ref,
                finish=row.finish,
                queue_ms=(job.started - job.arrived) * 1e3,
                model_ms=(now - job.started) * 1e3,
            )
        )

    async def _watch_rows(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            self._end_late_rows()
            self._drop_late_waiting()

    def _end_late_rows(self) -> None:
        """Also those that a server leaves without a token."""
        now = time.monotonic()
        for job, task in self._running.items():
            job.row.interrupt(now)
            if job.row.finish in ("deadline", "cancelled"):
                task.cancel()

    def _drop_late_waiting(self) -> None:
        now = time.monotonic()
        with self._lock:
            waiting = [*self._waiting]
        for job in waiting:
            job.row.interrupt(now)
            if job.row.finish:
                with self._lock:
                    if job not in self._waiting:
                        continue
                    self._waiting.remove(job)
                job.started = now
                if job.future.set_running_or_notify_cancel():
                    self._settle(job)
