"""Start-up: the command line's commands as whole processes, and a daemon on a state of 100,000 edits."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from lte_runtime.answer.encoder import load_encoder
from lte_runtime.facts.events import EventLimits, decode
from lte_runtime.memory.edit_memory import EditMemory, EditMemorySettings
from lte_runtime.types import Batch, Position, RawRecord
from ops.bench.result import SEED, BenchResult, Spread, machine, today
from ops.bench.texts import encoded
from ops.stack import Stack

BAR = "<= 0.4 s"
STUBS = {"LTE_ENCODER__MODEL": "stub", "LTE_MODEL__PATH": "stub"}


def run(quick: bool, progress: Callable[[str], None]) -> BenchResult:
    """`ours` is the slowest of the three commands' medians in seconds; `ready_s` is the daemon's."""
    edits, repeats = (2_000, 3) if quick else (100_000, 7)
    with tempfile.TemporaryDirectory() as name:
        progress(f"a state of {edits} edits")
        _fill(Path(name) / "state", edits)
        with Stack(Path(name), settings=STUBS) as stack:
            stack.start_broker()
            ready = stack.start_daemon()
            at = stack.addresses
            commands: dict[str, Sequence[str]] = {
                "--help": ["--help"],
                "ask": ["ask", "What is the capital of Kenya?", "--socket", at.socket, "--json"],
                "publish": ["publish", "-s", "Arven", "-r", "price", "-t", "9 EUR", "--bootstrap", at.kafka,
                            "--topic", at.topic, "--json"],
            }  # fmt: skip
            progress("starting commands")
            medians = {name: _seconds(command, repeats) for name, command in commands.items()}
    slowest = max(medians.values())
    return BenchResult(
        name="start",
        ours=slowest,
        peer=None,
        ratio=None,
        unit="s, the slowest command",
        n=repeats,
        bar=BAR,
        machine=machine(),
        date=today(),
        extra={
            **{f"{name}_s": seconds for name, seconds in medians.items()},
            "ready_s": ready,
            "edits": edits,
        },
    )


def _seconds(command: Sequence[str], repeats: int) -> float:
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        subprocess.run([sys.executable, "-m", "daemon", *command], check=True, capture_output=True)
        times.append(time.perf_counter() - begin)
    return Spread.of(times).median


def _fill(directory: Path, edits: int) -> None:
    """A state as a daemon leaves it: SQLite and a snapshot."""
    memory = EditMemory.open(directory, load_encoder("stub"), EditMemorySettings())
    values = encoded(edits, SEED)
    for start in range(0, edits, 1000):
        records = [
            RawRecord("bench", Position("bench", 0, start + i), None, value, (), 1_700_000_000_000)
            for i, value in enumerate(values[start : start + 1000])
        ]
        decoded = tuple(decode(record, EventLimits()) for record in records)
        memory.apply(Batch(decoded, (), {}))  # no offsets: the daemon will read a topic of its own
    memory.snapshot()
    memory.close()
