"""What the dead-letter topic is known to have: positions as daemons write them, and nothing else."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from daemon.kafka.dlq_contents import DlqReader
from lte_runtime.facts.events import ORIGINAL_POSITION, original_position_header
from lte_runtime.types import Position

HERE = Position("9b2f-1", 2, 7)


class Consumer:
    """One partition with these letters: headers alone matter."""

    def __init__(self, *letters: list[tuple[str, bytes | None]]) -> None:
        self._records = [
            SimpleNamespace(topic="dlq", partition=0, offset=offset, timestamp=0, headers=headers)
            for offset, headers in enumerate(letters)
        ]
        self._next = 0

    def partitions_for_topic(self, _: str) -> set[int]:
        return {0}

    def assign(self, partitions: list[Any]) -> None:
        self._assigned = partitions

    def assignment(self) -> list[Any]:
        return self._assigned

    def beginning_offsets(self, partitions: list[Any], timeout_ms: int) -> dict[Any, int]:
        return dict.fromkeys(partitions, 0 * timeout_ms)

    def end_offsets(self, partitions: list[Any], timeout_ms: int) -> dict[Any, int]:
        assert timeout_ms
        return dict.fromkeys(partitions, len(self._records))

    def seek(self, _: Any, offset: int) -> None:
        self._next = offset

    def position(self, _: Any, timeout_ms: int) -> int:
        assert timeout_ms
        return self._next

    def poll(self, timeout_ms: int) -> dict[str, list[Any]]:
        assert timeout_ms
        records, self._next = self._records[self._next :], len(self._records)
        return {"partition": records}


def read(*letters: list[tuple[str, bytes | None]]) -> tuple[DlqReader, list[tuple[str, str]]]:
    bad: list[tuple[str, str]] = []
    known = DlqReader("nowhere:1", "dlq", {}, lambda *reason: bad.append(reason))
    known._open = lambda: Consumer(*letters)
    known.read()
    return known, bad


@pytest.mark.parametrize("timestamp_ms", [-1, 0, 1_750_000_000_000])
def test_a_position_as_daemons_write_it_is_known(timestamp_ms: int) -> None:
    letters, bad = read([original_position_header(HERE, timestamp_ms)])
    assert letters.has(HERE)
    assert bad == []


def test_the_last_position_of_a_letter_counts() -> None:
    """A record that was replayed and refused again brings an older one along."""
    older = Position("9b2f-1", 2, 3)
    letters, _ = read([original_position_header(older, 0), original_position_header(HERE, 0)])
    assert (letters.has(HERE), letters.has(older)) == (True, False)


@pytest.mark.parametrize(
    "value",
    [
        b"\xff/2/7/0",
        b"9b2f-1/2/7",
        b"9b2f-1/two/7/0",
        b"9b2f-1/-2/7/0",
        b"9b2f-1/2/7/" + b"9" * 30,
        b"/2/7/0",
        b"x" * 10_000 + b"/2/7/0",
        b"9b2f-1/2/7/0\n",
    ],
)
def test_what_is_no_position_is_passed_over_and_counted(value: bytes) -> None:
    letters, bad = read([(ORIGINAL_POSITION, value)], [original_position_header(HERE, 0)])
    assert letters.has(HERE)
    assert bad == [("dlq", "bad_position")]


def test_a_letter_of_somebody_else_is_no_fault() -> None:
    letters, bad = read([("other", b"x")], [(ORIGINAL_POSITION, None)], [])
    assert (letters.has(HERE), bad) == (False, [])
