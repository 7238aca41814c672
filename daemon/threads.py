"""The threads that a daemon lives by: one that fails ends the process, with its error."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ExitStack
from typing import Protocol

from lte_runtime.errors import Fatal

# Time that a thread gets to end: a step of ingest may wait for a broker, but one that is stuck will not end.
JOIN_S, STUCK_JOIN_S = 20.0, 1.0


class Loop(Protocol):
    """What a thread runs. `stop` may come from any thread."""

    def run(self) -> None: ...
    def stop(self) -> None: ...


class Threads:
    """Each thread is stopped and waited for when `undo` is closed."""

    def __init__(self, undo: ExitStack) -> None:
        self._undo = undo
        self._failures: list[BaseException] = []

    def start(self, name: str, loop: Loop, *, stuck: Callable[[], object] = lambda: None) -> None:
        """`stuck`: whether the loop will not end soon. At its stop, raises `Fatal` when it does not end."""

        def run() -> None:
            try:
                loop.run()
            except BaseException as error:  # noqa: BLE001 - the main thread raises it
                self._failures.append(error)

        thread = threading.Thread(target=run, name=name, daemon=True)
        thread.start()
        self._undo.callback(_end, thread, loop, stuck)

    def check(self) -> None:
        """Raise the error of the first thread that failed."""
        if self._failures:
            raise self._failures[0]


def _end(thread: threading.Thread, loop: Loop, stuck: Callable[[], object]) -> None:
    loop.stop()
    limit_s = STUCK_JOIN_S if stuck() else JOIN_S
    thread.join(limit_s)
    if thread.is_alive():
        raise Fatal(f"the {thread.name} thread did not stop in {limit_s:.0f} s")
