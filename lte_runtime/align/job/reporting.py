"""Between a job at work and whoever ordered it: the signals that end it, and the progress that it reports."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lte_runtime.align import contract
from lte_runtime.align.contract import Progress
from lte_runtime.errors import Cancelled, DeadlineExceeded

_QUIET_S = 0.5


@dataclass
class Signals:
    """Why the work should end: cancelled by a signal, or past its deadline (monotonic seconds)."""

    deadline: float | None = None
    cancelled: bool = False

    def stopping(self) -> bool:
        return self.cancelled or (self.deadline is not None and time.monotonic() >= self.deadline)

    def check(self) -> None:
        """Raises `Cancelled` or `DeadlineExceeded` when it is time to end."""
        if self.cancelled:
            raise Cancelled("the job was cancelled")
        if self.stopping():
            raise DeadlineExceeded("the job's deadline has passed")


@dataclass
class ProgressWriter:
    """Writes `progress.json`, at most twice a second but at every change of phase. `shown` hears of the same.

    A silent one (in all processes but the first) writes nothing.
    """

    job_dir: Path
    silent: bool = False
    shown: Callable[[Progress], None] = lambda _: None
    phase: str = ""
    _started: float = 0.0
    _first: int = 0
    _written: float = 0.0

    def __call__(
        self, phase: str, step: int, total: int, loss: float | None = None, *, rows_each: float = 1.0
    ) -> None:
        now = time.monotonic()
        changed = phase != self.phase
        if changed:
            self.phase, self._started, self._first = phase, now, step
        if self.silent or not (changed or step >= total or now - self._written >= _QUIET_S):
            return
        self._written = now
        done, spent = step - self._first, now - self._started
        rate = done / spent if done > 0 and spent > 0 else None
        progress = Progress(
            phase=phase,
            step=step,
            total=total,
            loss=loss,
            rows_per_s=None if rate is None else round(rate * rows_each, 2),
            remaining_s=None if rate is None else round((total - step) / rate, 1),
        )
        contract.write_progress(self.job_dir, progress)
        self.shown(progress)
