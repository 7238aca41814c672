"""The daemon's own timetable: snapshot, index upkeep, recall self-check; the watch on drift."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import structlog
from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.cron import CronTrigger

from lte_runtime.errors import BadRequest

log = structlog.get_logger(__name__)

# A cycle of probes takes up to a minute: the index must not wait for it.
UPKEEP, WATCH = "default", "watch"
# A token that is taken away must not wait for a snapshot.
ACCESS = "access"


class Window:
    """The minutes that a cron expression names, in UTC. Raises `BadRequest` for one that is none."""

    def __init__(self, expression: str) -> None:
        try:
            self._trigger: Any = CronTrigger.from_crontab(expression, timezone=UTC)
        except ValueError as error:
            raise BadRequest(f"{expression!r} is not a cron expression: {error}") from None

    def open(self, now_ms: int) -> bool:
        """Whether the minute of `now_ms` is one of them."""
        minute = datetime.fromtimestamp(now_ms // 60_000 * 60, UTC)
        return bool(self._trigger.get_next_fire_time(None, minute) == minute)


class Schedule:
    """Runs jobs at intervals, in one thread for each lane: no two of a lane compete with the answers at once.

    A run that is late is made up for once (`coalesce`), never skipped silently. A job that raises is logged
    and counted, and comes again at its next time.
    """

    def __init__(self, on_run: Callable[[str, bool, float], None] | None = None) -> None:
        self._on_run = on_run or (lambda _job, _ok, _seconds: None)
        self._scheduler: Any = BackgroundScheduler(
            timezone=UTC,
            executors={lane: ThreadPoolExecutor(1) for lane in (UPKEEP, WATCH, ACCESS)},
            job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None},
        )

    def every(self, seconds: float, name: str, job: Callable[[], object], lane: str = UPKEEP) -> None:
        """Run `job` each `seconds`, the first time after that long."""
        self._scheduler.add_job(
            self._run,
            "interval",
            seconds=seconds,
            id=name,
            args=(name, job),
            executor=lane,
            replace_existing=False,
        )

    def soon(self, name: str) -> None:
        """Run the named job as soon as the thread is free; its timetable goes on from there."""
        self._scheduler.modify_job(name, next_run_time=datetime.now(UTC) + timedelta(milliseconds=1))

    def start(self) -> None:
        """Start the timetable."""
        self._scheduler.start()

    def stop(self) -> None:
        """Let the running job end, and start no other."""
        if self._scheduler.running:
            self._scheduler.shutdown(wait=True)

    def _run(self, name: str, job: Callable[[], object]) -> None:
        started = time.monotonic()
        ok = False
        try:
            job()
            ok = True
        except Exception as error:
            log.exception("job_failed", job=name, error=type(error).__name__)
        finally:
            self._on_run(name, ok, time.monotonic() - started)
