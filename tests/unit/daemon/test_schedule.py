"""The timetable: jobs run, one at a time, and a failing one comes again."""

from __future__ import annotations

import threading

import pytest

from daemon.schedule import Schedule, Window
from lte_runtime.errors import BadRequest

GUARD_S = 10.0


def test_a_job_runs_again_and_again() -> None:
    enough = threading.Event()
    runs: list[tuple[str, bool]] = []

    def count(job: str, ok: bool, seconds: float) -> None:
        assert seconds >= 0
        runs.append((job, ok))
        if len(runs) >= 3:
            enough.set()

    schedule = Schedule(count)
    schedule.every(0.02, "snapshot", lambda: None)
    schedule.start()
    assert enough.wait(GUARD_S)
    schedule.stop()
    assert runs[:3] == [("snapshot", True)] * 3


def test_a_failing_job_is_counted_and_comes_again() -> None:
    again = threading.Event()
    outcomes: list[bool] = []

    def note(_job: str, ok: bool, _seconds: float) -> None:
        outcomes.append(ok)
        if len(outcomes) == 2:
            again.set()

    def fail() -> None:
        raise RuntimeError("disk")

    schedule = Schedule(note)
    schedule.every(0.02, "maintain", fail)
    schedule.start()
    assert again.wait(GUARD_S)
    schedule.stop()
    assert outcomes[:2] == [False, False]


def test_jobs_never_overlap() -> None:
    inside = threading.Lock()
    done = threading.Event()
    overlaps: list[str] = []
    runs: list[str] = []

    def job(name: str) -> None:
        if not inside.acquire(blocking=False):
            overlaps.append(name)
            return
        threading.Event().wait(0.03)
        inside.release()
        runs.append(name)
        if len(runs) > 5:
            done.set()

    schedule = Schedule()
    schedule.every(0.01, "a", lambda: job("a"))
    schedule.every(0.01, "b", lambda: job("b"))
    schedule.start()
    assert done.wait(GUARD_S)
    schedule.stop()
    assert overlaps == []


def test_soon_does_not_wait_for_the_interval() -> None:
    ran = threading.Event()
    schedule = Schedule()
    schedule.every(3600, "snapshot", ran.set)
    schedule.start()
    schedule.soon("snapshot")
    assert ran.wait(GUARD_S)
    schedule.stop()


def test_a_window_names_minutes_in_utc() -> None:
    window = Window("* 1-4 * * *")
    day = 1_750_032_000_000  # 2025-06-16 00:00 UTC
    assert not window.open(day + 59 * 60_000)
    assert window.open(day + 60 * 60_000 + 59_999)
    assert not window.open(day + 5 * 3_600_000)
    assert Window("* * * * *").open(day)
    with pytest.raises(BadRequest, match="cron"):
        Window("every night")
