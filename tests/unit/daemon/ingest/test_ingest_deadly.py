"""A record over which the process dies twice is put aside; one that somebody else killed it over is not."""

from __future__ import annotations

import itertools
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lte_runtime.answer.encoder import StubEncoder
from lte_runtime.memory.attempts import Attempts
from lte_runtime.memory.edit_memory import EditMemory
from lte_runtime.types import Position

ROOT = Path(__file__).parents[4]
_CHILD = """
import json, os, sys
from pathlib import Path
from daemon.ingest.ingest import Ingest, IngestSettings
from daemon.kafka.memory_source import MemoryLog, MemorySource
from daemon.lifecycle import Lifecycle
from lte_runtime.answer.encoder import StubEncoder
from lte_runtime.facts import events
from lte_runtime.memory.edit_memory import EditMemory
directory, stage, number = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
def die():
    os.kill(os.getpid(), number)
class Encoder(StubEncoder):
    def encode(self, texts, *, query=False):
        if stage == "encode" and any("deadly" in text for text in texts):
            die()
        return super().encode(texts, query=query)
def decode(record, limits):
    if stage == "decode" and b"deadly" in record.value:
        die()
    return events.decode(record, limits)
memory = EditMemory.open(directory, Encoder())
if stage == "store":
    put = memory._store.write_batch
    def apply(edits, *more):
        if any(edit.subject == "deadly" for edit in edits):
            die()
        return put(edits, *more)
    memory._store.write_batch = apply
log = MemoryLog(partitions=1)
for n in range(6):
    subject = "deadly" if n == 3 else f"Firm {n}"
    log.append(json.dumps({"subject": subject, "relation": "boss", "target": "x"}).encode(), timestamp_ms=n)
ingest = Ingest(memory, MemorySource(log), Lifecycle(), IngestSettings(poll_s=0.01), decode=decode)
with memory.attempts.watch():
    while sum(memory.next_offsets().values()) < 6:
        ingest.step()
"""


def run(directory: Path, stage: str, number: int) -> int:
    command = [sys.executable, "-c", _CHILD, str(directory), stage, str(number)]
    return subprocess.run(command, cwd=ROOT, check=False, capture_output=True, timeout=120).returncode


@pytest.mark.parametrize("stage", ["decode", "encode", "store"])
def test_a_record_that_kills_the_process_is_put_aside(tmp_path: Path, stage: str) -> None:
    """The first death leaves the batch under suspicion, two more the one record."""
    codes = [run(tmp_path, stage, signal.SIGSEGV) for _ in range(4)]
    assert codes == [-signal.SIGSEGV] * 3 + [0]
    memory = EditMemory.open(tmp_path, StubEncoder())
    (row,) = memory.quarantined()
    assert (row.code, row.record.position.offset) == ("crashed", 3)
    assert (memory.status().edits, sum(memory.next_offsets().values())) == (5, 6)
    memory.close()


def test_a_kill_from_outside_condemns_no_record(tmp_path: Path) -> None:
    codes = [run(tmp_path, "store", signal.SIGKILL) for _ in range(4)]
    assert codes == [-signal.SIGKILL] * 4
    assert run(tmp_path, "nowhere", 0) == 0
    memory = EditMemory.open(tmp_path, StubEncoder())
    assert (memory.quarantined(), memory.status().edits) == ([], 6)
    memory.close()


def test_a_kill_for_want_of_memory_counts(tmp_path: Path) -> None:
    place, kills, open_work = Position("T", 0, 7), itertools.count(5), []
    told = []
    for _ in range(3):
        attempts = Attempts(tmp_path, lambda: next(kills))
        told.append((attempts.careful, attempts.is_deadly(place)))
        open_work.append(attempts.trying([place]))
        open_work[-1].__enter__()
    assert told == [(0, False), (1, False), (1, True)]
    assert Attempts(tmp_path, lambda: 7).careful == 0


@pytest.mark.parametrize("note", ["", "{", "[]", '{"first": "x"}', '{"crashes": [], "count": 0, "kills": 0}'])
def test_a_note_that_was_cut_short_counts_as_none(tmp_path: Path, note: str) -> None:
    (tmp_path / "attempt").write_text(note)
    assert Attempts(tmp_path).careful == 0
