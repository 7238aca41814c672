"""How much a call does, counted: rows that SQLite hands over, and calls of Python functions."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType
from typing import Any

from lte_runtime.memory.edit_memory import EditMemory


@dataclass(slots=True)
class Work:
    """What one call did."""

    rows: int = 0
    calls: int = 0


def work_of(memory: EditMemory, call: Callable[[], object]) -> Work:
    """Run a call that reads, in this thread, and count what it does."""
    work = Work()
    connection: Any = memory._reader()

    def row(_cursor: object, values: tuple[object, ...]) -> tuple[object, ...]:
        work.rows += 1
        return values

    def event(_frame: FrameType, kind: str, _argument: object) -> None:
        work.calls += kind == "call"

    call()  # what is cached by the first call (statements, say) is no work of the second
    connection.row_trace = row
    sys.setprofile(event)
    try:
        call()
    finally:
        sys.setprofile(None)
        connection.row_trace = None
    return work
