"""What ends a run before its work is done: a cancellation, the stop of the daemon, its deadline."""

from __future__ import annotations

import threading
import time

from daemon.realign.parts import RunEnded
from lte_runtime.align.runs import RunState

# A stop of the daemon does not wait for a job's own grace.
STOP_GRACE_S = 5.0


class RunSignals:
    """Set by any thread, read by the one that runs; `changed` is notified."""

    def __init__(self, changed: threading.Condition) -> None:
        self._changed = changed
        self._cancelled: set[str] = set()
        self._stop_by: float | None = None

    def cancel(self, run_id: str) -> None:
        with self._changed:
            self._cancelled.add(run_id)
            self._changed.notify_all()

    def forget(self, run_id: str) -> None:
        """The run has ended."""
        self._cancelled.discard(run_id)

    def stop(self) -> None:
        with self._changed:
            self._stop_by = time.monotonic() + STOP_GRACE_S
            self._changed.notify_all()

    @property
    def stopping(self) -> bool:
        return self._stop_by is not None

    @property
    def kill_now(self) -> bool:
        """Whether a job that is still there must go at once."""
        return self._stop_by is not None and time.monotonic() >= self._stop_by

    def reason_to_end(self, run_id: str) -> RunEnded | None:
        if self.stopping:
            return RunEnded(RunState.CANCELLED, "the daemon was stopped")
        return RunEnded(RunState.CANCELLED, "cancelled") if run_id in self._cancelled else None

    def wait(self, seconds: float) -> None:
        """Until something changes, at most so long."""
        with self._changed:
            self._changed.wait(seconds)
