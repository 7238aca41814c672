"""Memory: what one vector costs in the index, and what the daemon holds idle and with 100,000 edits."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from lte_runtime.answer.encoder import model_files
from lte_runtime.facts.events import EventLimits, decode
from lte_runtime.index.vector_index import VectorIndex
from lte_runtime.memory.edit_memory import EditMemory, EditMemorySettings
from lte_runtime.types import Batch, Position, RawRecord, Vectors
from ops.bench.result import SEED, BenchResult, machine, today
from ops.bench.texts import encoded
from ops.stack import Stack

BAR = "<= 2,200 bytes per vector"
DIMENSION = 384
_BLOCK = 2048
_MIB = 2**20


def run(quick: bool, progress: Callable[[str], None]) -> BenchResult:
    """`ours` is the growth of a process's resident memory per vector while it fills an index."""
    n = 20_000 if quick else 100_000
    progress(f"an index of {n} vectors in a process of its own")
    grown = _child(n)
    with tempfile.TemporaryDirectory() as name:
        idle, filled = _daemon(Path(name), n, progress)
    return BenchResult(
        name="memory",
        ours=grown["bytes_per_vector"],
        peer=None,
        ratio=None,
        unit="bytes per vector",
        n=n,
        bar=BAR,
        machine=machine(),
        date=today(),
        extra={"computed": grown["computed"], "rss_idle_mib": idle, "rss_filled_mib": filled, "edits": n},
    )


def resident(pid: int | str = "self") -> int:
    """Resident memory of a process in bytes."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"process {pid} tells no resident memory")


def _child(n: int) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, "-m", "ops.bench.memory", str(n)], check=True, stdout=subprocess.PIPE, text=True
    )
    grown: dict[str, float] = json.loads(done.stdout)
    return grown


def grow(n: int) -> dict[str, float]:
    """Fill an index of this process block by block, and see by how much the process grew."""
    encoder = RandomEncoder(SEED, "")
    VectorIndex(DIMENSION, mode="hnsw").add(range(600), encoder.draw(600))  # warms threads and allocator
    before = resident()
    index = VectorIndex(DIMENSION, mode="hnsw")
    for start in range(0, n, _BLOCK):
        ids = range(start, min(start + _BLOCK, n))
        index.add(ids, encoder.draw(len(ids)))
    return {"bytes_per_vector": (resident() - before) / n, "computed": index.nbytes / n}


class RandomEncoder:
    """Random vectors under a real encoder's name: memory does not depend on what they are."""

    dimension = DIMENSION

    def __init__(self, seed: int, fingerprint: str) -> None:
        self._rng = np.random.default_rng(seed)
        self.fingerprint = fingerprint

    def draw(self, n: int) -> Vectors:
        rows = self._rng.standard_normal((n, DIMENSION), np.float32)
        return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)

    def encode(self, texts: Sequence[str], *, query: bool = False) -> Vectors:
        del query
        return self.draw(len(texts))

    def windows(self, text: str) -> Sequence[str]:
        return (text,)


def _daemon(directory: Path, n: int, progress: Callable[[str], None]) -> tuple[float, float]:
    """Resident MiB of the whole daemon (default model), with an empty state and with `n` edits."""
    # So many edits are a reason to train: that is not what is measured here.
    settings = {"LTE_REALIGN__AUTOMATIC": "false"}
    with Stack(directory, settings=settings) as stack:
        stack.start_broker()
        progress("the daemon, idle")
        stack.start_daemon()
        idle = resident(stack.daemon_pid) / _MIB
        stack.stop_daemon()
        progress(f"a state of {n} edits")
        _fill(directory / "state", n)
        progress(f"the daemon with {n} edits")
        stack.start_daemon()
        return idle, resident(stack.daemon_pid) / _MIB


def _fill(directory: Path, n: int) -> None:
    fingerprint = model_files.read(model_files.locate(model_files.DEFAULT_NAMES[0])).fingerprint
    memory = EditMemory.open(directory, RandomEncoder(SEED, fingerprint), EditMemorySettings())
    values = encoded(n, SEED)
    for start in range(0, n, 1000):
        records = [
            RawRecord("bench", Position("bench", 0, start + i), None, value, (), 1_700_000_000_000)
            for i, value in enumerate(values[start : start + 1000])
        ]
        decoded = tuple(decode(record, EventLimits()) for record in records)
        memory.apply(Batch(decoded, (), {}))  # no offsets: the daemon reads a topic of its own
    memory.snapshot()
    memory.close()


if __name__ == "__main__":
    print(json.dumps(grow(int(sys.argv[1]))))
