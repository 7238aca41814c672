"""The threads of a daemon: stopped in reverse, and an error in one is raised by the main thread."""

from __future__ import annotations

import threading
from contextlib import ExitStack

import pytest

from daemon.threads import Threads


class Waiting:
    """Runs until it is stopped, and notes that."""

    def __init__(self, name: str, stopped: list[str]) -> None:
        self.name, self.stopped, self.let_go = name, stopped, threading.Event()

    def run(self) -> None:
        self.let_go.wait()

    def stop(self) -> None:
        self.stopped.append(self.name)
        self.let_go.set()


class Failing(Waiting):
    def run(self) -> None:
        raise ValueError(self.name)


def test_they_stop_in_reverse() -> None:
    stopped: list[str] = []
    with ExitStack() as undo:
        threads = Threads(undo)
        for name in ("first", "second"):
            threads.start(name, Waiting(name, stopped))
        threads.check()
    assert stopped == ["second", "first"]


def test_the_first_failure_is_raised() -> None:
    with ExitStack() as undo:
        threads = Threads(undo)
        threads.start("good", Waiting("good", []))
        threads.start("bad", Failing("bad", []))
    with pytest.raises(ValueError, match="bad"):
        threads.check()
