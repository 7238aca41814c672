"""Work beside answers, in slices with rests between them, so that no answer waits for the whole of it."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")

SHARE = 0.15
"""The part of the time that the work takes while somebody is answered."""
SLICE_S = 0.0005
"""Shorter slices are not worth a rest."""
MOST_S = 0.02
"""The longest rest: a slice that was itself kept waiting is no reason to wait long."""
NICENESS = 10
"""Of work beside answers: where both want a core, it gets a tenth of it (Linux; see sched(7))."""


def beside_answers(work: Callable[[], T]) -> T:
    """The result of `work`, done in a thread that leaves the cores to every other one that wants them.

    A thread of its own: a process without privileges cannot take its niceness back. Threads that `work`
    starts have its niceness, those of a pool that is there already do not.
    """
    with ThreadPoolExecutor(1, "beside-answers", _step_back) as pool:
        return pool.submit(work).result()


def _step_back() -> None:
    if sys.platform == "linux":  # elsewhere a thread has no niceness of its own
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)


class Pace:
    """Called between small steps by the thread that does the work; rests only while `busy` says so.

    Python's threads take turns: a thread that never rests lets another one on only after a switch interval
    (5 ms), and an answer asks for its turn some hundred times for each token.
    """

    def __init__(self, busy: Callable[[], bool]) -> None:
        self._busy = busy
        self._since = time.perf_counter()

    def __call__(self) -> None:
        worked = time.perf_counter() - self._since
        if worked < SLICE_S:
            return
        if self._busy():
            time.sleep(min(worked * (1 / SHARE - 1), MOST_S))
        self._since = time.perf_counter()


def at_once() -> None:
    """The pace of work that nobody waits beside."""
