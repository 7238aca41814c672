"""Damages copies of a state at random and opens them; prints `right`, `refused` or what was wrong, one each.

A fault that SQLite cannot see may show only when the row is read: a question that is refused as damaged is as
good as a refused start.
"""

from __future__ import annotations

import random
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from lte_runtime.answer.encoder.stub import StubEncoder
from lte_runtime.errors import LteError
from lte_runtime.memory.edit_memory import EditMemory
from lte_runtime.store.writer import Store
from lte_runtime.types import Candidate

QUESTIONS = [f"What is the owner of Lock {number}?" for number in range(70)]
Seen = list[tuple[str, str, int]]
# Scores closer than this are a tie.
TIE = 1e-5


def seen(memory: EditMemory) -> list[Seen]:
    """What retrieval finds for each question: id, target and offset of the nearest facts.

    Those as far away as the farthest are left out: which of several equally far facts is still found depends
    on how a processor rounds, and a graph and a scan round differently.
    """
    searches = (memory.candidates(question, None, namespace="default", k=3).items for question in QUESTIONS)
    return [
        [(c.fact.edit_id, c.fact.target, c.fact.position.offset) for c in _clear(items)] for items in searches
    ]


def _clear(candidates: Sequence[Candidate]) -> list[Candidate]:
    farthest = min((c.dense for c in candidates if not c.lexical), default=-1.0)
    return [c for c in candidates if c.lexical or c.dense > farthest + TIE]


def state_of(directory: Path) -> object:
    memory = EditMemory.open(directory, StubEncoder())
    try:
        return seen(memory), dict(memory.next_offsets()), memory.state_hash()
    finally:
        memory.close()


def without_log(directory: Path) -> None:
    """SQLite's log taken into the database: a cut log is an older state, which Kafka completes."""
    store = Store(directory / "edits.db")
    store.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    store.close()


def damage(directory: Path, chance: random.Random) -> str:
    """One of the usual ways in which a disk lies, at a random place of a random file."""
    files = sorted(path for path in directory.rglob("*") if path.is_file() and path.name != "lock")
    weights = [8 if path.name == "edits.db" else 1 for path in files]
    path = chance.choices(files, weights)[0]
    data = bytearray(path.read_bytes())
    at, kind = chance.randrange(max(1, len(data))), chance.choice(("bit", "bytes", "zeros", "cut"))
    if kind == "bit" and data:
        data[at] ^= 1 << chance.randrange(8)
    elif kind == "bytes":
        data[at : at + 16] = chance.randbytes(len(data[at : at + 16]))
    elif kind == "zeros":
        data[at : at + 512] = bytes(len(data[at : at + 512]))
    elif kind == "cut":
        del data[at:]
    path.write_bytes(data)
    return f"{path.relative_to(directory)}:{kind}@{at}"


def main(state: Path, scratch: Path, seed: int, trials: int) -> None:
    chance = random.Random(seed)
    shutil.copytree(state, scratch / "whole")
    without_log(scratch / "whole")
    shutil.copytree(scratch / "whole", scratch / "source")
    expected = state_of(scratch / "whole")
    for _ in range(trials):
        shutil.rmtree(scratch / "copy", ignore_errors=True)
        shutil.copytree(scratch / "source", scratch / "copy")
        where = damage(scratch / "copy", chance)
        try:
            outcome = "right" if state_of(scratch / "copy") == expected else f"WRONG:{where}"
        except LteError:
            outcome = "refused"
        except Exception as error:  # noqa: BLE001 - told to the test, which fails
            outcome = f"{type(error).__name__}:{where}"
        print(outcome, flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
