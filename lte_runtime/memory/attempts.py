"""Notes what is tried before risky work, so that a record that kills the process twice is put aside.

A note is a small file, written without fsync: it must outlive the process, not the machine. After a crash
the next batch is taken record by record, so that the guilty one is known.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from lte_runtime.types import Position

CRASHES_ALLOWED = 2


class Attempts:
    """Owned by the one writer of a state directory."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / "attempt"
        tried, self._crashes = self._read()
        self.careful = bool(tried)
        """Whether the last run died in risky work: then records are taken one by one."""
        if len(tried) == 1:
            self._crashes[tried[0]] = self._crashes.get(tried[0], 0) + 1
            self._write([])

    def is_deadly(self, position: Position) -> bool:
        """Whether the process died over this record as often as is allowed."""
        return self._crashes.get(_name(position), 0) >= CRASHES_ALLOWED

    @contextmanager
    def trying(self, positions: Sequence[Position]) -> Iterator[None]:
        """Note the records of some risky work while it runs; an exception is no crash."""
        self._write([_name(position) for position in positions[:2]])
        try:
            yield
        finally:
            self._write([])

    def done(self, positions: Sequence[Position]) -> None:
        """These records are in the store: forget their crashes, take the next ones together."""
        self.careful = False
        for position in positions if self._crashes else ():
            self._crashes.pop(_name(position), None)

    def _read(self) -> tuple[list[str], dict[str, int]]:
        """(what was being tried, crashes by record); a note that was cut short counts as none."""
        try:
            note = json.loads(self._path.read_bytes())
            return list(note["trying"]), dict(note["crashes"])
        except (FileNotFoundError, ValueError, TypeError, KeyError):
            return [], {}

    def _write(self, trying: list[str]) -> None:
        self._path.write_text(json.dumps({"trying": trying, "crashes": self._crashes}), encoding="utf-8")


def _name(position: Position) -> str:
    return f"{position.topic_id}/{position.partition}/{position.offset}"
