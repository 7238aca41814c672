"""The runs of re-alignment, in the store and in memory: durable first, then seen."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import structlog

from daemon.realign.parts import RealignMemory
from lte_runtime.align import runs
from lte_runtime.align.contract import Progress
from lte_runtime.align.runs import Run, RunState
from lte_runtime.errors import NotFound

log = structlog.get_logger(__name__)

PREFIX = "realign."


class RunRecords:
    """Any thread may read; `changed` is notified of every change."""

    def __init__(
        self, memory: RealignMemory, on_change: Callable[[Run], None], now: Callable[[], int]
    ) -> None:
        self._memory, self._on_change, self._now = memory, on_change, now
        self.changed = threading.Condition()
        stored = (runs.from_json(memory.meta_get(name) or "") for name in memory.meta_names(f"{PREFIX}run-"))
        self._runs = {run.id: run for run in stored}

    def get(self, run_id: str) -> Run:
        """Raises `NotFound`."""
        run = self._runs.get(run_id)
        if run is None:
            raise NotFound(f"no run {run_id!r}")
        return run

    def oldest_first(self) -> list[Run]:
        return sorted(self._runs.values(), key=lambda run: run.id)

    def latest(self, limit: int = 100) -> list[Run]:
        """Runs, the newest first."""
        return self.oldest_first()[::-1][:limit]

    def active(self) -> Run | None:
        return next((run for run in self._runs.values() if run.state.active), None)

    def next_number(self) -> int:
        return 1 + max((int(run_id.rpartition("-")[2]) for run_id in self._runs), default=0)

    def watch(self, run_id: str, going: Callable[[], bool], every_s: float = 0.5) -> Iterator[Run]:
        """The run at each change, until it has ended or `going` says no. Raises `NotFound`."""
        shown: Run | None = None
        while going():
            run = self.get(run_id)
            if run != shown:
                shown = run
                yield run
            if not run.state.active:
                return
            with self.changed:
                if self.get(run_id) == shown:
                    self.changed.wait(every_s)

    def move(self, run_id: str, state: RunState, message: str = "") -> Run:
        """The run in another state; raises `ValueError` for a move that there is not."""
        with self.changed:
            run = self.save(runs.moved(self.get(run_id), state, self._now(), message))
        log.info("realign", run=run_id, state=state, message=message or None)
        return run

    def update(self, run_id: str, **values: Any) -> Run:
        with self.changed:
            return self.save(replace(self.get(run_id), **values))

    def save(self, run: Run) -> Run:
        with self.changed:
            self._store(run)
            return self._show(run)

    def show_progress(self, run_id: str, progress: Progress | None) -> None:
        """Seen by those who watch; stored with the next change of state."""
        with self.changed:
            run = self.get(run_id)
            if progress is None or progress == run.progress:
                return
            self._show(replace(run, progress=progress))
            if progress.phase == "judging" and run.state is RunState.TRAINING:
                self.move(run_id, RunState.JUDGING)

    def abandon(self, run: Run) -> None:
        """A run that a daemon left under way has failed; nobody is told, its daemon is gone."""
        message = f"the daemon ended while {run.state}"
        self._runs[run.id] = self._store(runs.moved(run, RunState.FAILED, self._now(), message))

    def _store(self, run: Run) -> Run:
        self._memory.meta_set(f"{PREFIX}{run.id}", runs.to_json(run))
        return run

    def _show(self, run: Run) -> Run:
        before = self._runs.get(run.id)
        self._runs[run.id] = run
        self.changed.notify_all()
        if before is None or before.state is not run.state:
            self._on_change(run)
        return run
