"""How much a call does, counted: rows that SQLite hands over, its steps, and calls of Python functions."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType
from typing import Any

import apsw

from lte_runtime.memory.edit_memory import EditMemory


@dataclass(slots=True)
class Work:
    """What one call did."""

    rows: int = 0
    steps: int = 0
    calls: int = 0


def work_of(memory: EditMemory, call: Callable[[], object]) -> Work:
    """Run a call that reads, in this thread, and count what it does."""
    work = Work()
    connection: Any = memory._reader()

    def row(_cursor: object, values: tuple[object, ...]) -> tuple[object, ...]:
        work.rows += 1
        return values

    def statement(event: dict[str, Any]) -> None:
        work.steps += event["stmt_status"]["SQLITE_STMTSTATUS_VM_STEP"]

    def event(_frame: FrameType, kind: str, _argument: object) -> None:
        work.calls += kind == "call"

    call()  # what is cached by the first call (statements, say) is no work of the second
    connection.row_trace = row
    connection.trace_v2(apsw.SQLITE_TRACE_PROFILE, statement, id=work_of)
    sys.setprofile(event)
    try:
        call()
    finally:
        sys.setprofile(None)
        connection.row_trace = None
        connection.trace_v2(0, None, id=work_of)
    return work
