"""Work beside answers, in slices with rests between them, so that no answer waits for the whole of it."""

from __future__ import annotations

import time
from collections.abc import Callable

SHARE = 0.15
"""The part of the time that the work takes while somebody is answered."""
SLICE_S = 0.0005
"""Shorter slices are not worth a rest."""
MOST_S = 0.02
"""The longest rest: a slice that was itself kept waiting is no reason to wait long."""


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
