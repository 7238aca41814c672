"""Notes what is tried before risky work, so that a record that kills the process twice is put aside.

A note is a small file, written without fsync: it must outlive the process, not the machine. Only a death by
the process's own hand counts, a fatal signal of native code or the kernel's want of memory: whoever kills the
daemon from outside condemns no record. After such a death records are taken one by one until those that were
in work are past, so that the guilty one is known.
"""

from __future__ import annotations

import faulthandler
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lte_runtime.private_files import FILE_MODE, create
from lte_runtime.types import Position

CRASHES_ALLOWED = 2


def memory_kills() -> int:
    """Processes that the kernel has killed for want of memory since it started; 0 where it does not tell."""
    try:
        lines = Path("/proc/vmstat").read_text("ascii").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)


class Attempts:
    """Owned by the one writer of a state directory. `fault`: the traceback with which the last run died."""

    def __init__(self, directory: Path, kills: Callable[[], int] = memory_kills) -> None:
        self._path, self._fault_path = directory / "attempt", directory / "fault"
        note, self._kills = self._read(), kills()
        self._length = self._path.stat().st_size if self._path.exists() else 0
        self._crashes: dict[str, int] = note["crashes"]
        self._count = 0
        self.fault = self._take_fault()
        died = bool(self.fault) or self._kills > note["kills"]
        self.careful: int = note["count"] if died else 0
        """How many records are to be taken one by one."""
        if self.careful == 1:
            self._crashes[note["first"]] = self._crashes.get(note["first"], 0) + 1
        self._write("")

    def is_deadly(self, position: Position) -> bool:
        """Whether the process died over this record as often as is allowed."""
        return self._crashes.get(_name(position), 0) >= CRASHES_ALLOWED

    @contextmanager
    def trying(self, positions: Sequence[Position]) -> Iterator[None]:
        """Note the records of some risky work while it runs; an exception is no crash."""
        self._count = len(positions)
        self._write(_name(positions[0]) if positions else "")
        try:
            yield
        finally:
            self._count = 0
            self._write("")

    def done(self, positions: Sequence[Position]) -> None:
        """These records are in the store: forget their crashes."""
        self.careful = max(0, self.careful - len(positions))
        for position in positions if self._crashes else ():
            self._crashes.pop(_name(position), None)

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Have fatal signals of this process leave their traceback for the next run."""
        create(self._fault_path)
        with self._fault_path.open("ab") as file:
            faulthandler.enable(file)
            try:
                yield
            finally:
                faulthandler.disable()

    def _take_fault(self) -> str:
        if not self._fault_path.exists():
            return ""
        text = self._fault_path.read_text("utf-8", "replace")
        self._fault_path.unlink()
        return text

    def _read(self) -> dict[str, Any]:
        """The last run's note; one that was cut short counts as none."""
        try:
            note = json.loads(self._path.read_bytes())
            crashes = {str(name): int(count) for name, count in note["crashes"].items()}
            counts = {name: int(note[name]) for name in ("count", "kills")}
            return {"first": str(note["first"]), "crashes": crashes, **counts}
        except (FileNotFoundError, ValueError, TypeError, KeyError, AttributeError):
            return {"first": "", "crashes": {}, "count": 0, "kills": 0}

    def _write(self, first: str) -> None:
        note = {"first": first, "count": self._count, "crashes": self._crashes, "kills": self._kills}
        text = json.dumps(note).encode()
        self._length = max(self._length, len(text))
        # In place, filled up with blanks: ext4 writes a file that was cut to nothing to the disk at once.
        file = os.open(self._path, os.O_WRONLY | os.O_CREAT, FILE_MODE)
        try:
            os.write(file, text.ljust(self._length))
        finally:
            os.close(file)


def _name(position: Position) -> str:
    return f"{position.topic_id}/{position.partition}/{position.offset}"
