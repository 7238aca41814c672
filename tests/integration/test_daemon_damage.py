"""Damaged files of the state: refused with a clear error or rebuilt, never served, never a crash."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from daemon_house import GUARD_S, House, fact, question, targets, until
from damage_child import without_log

from lte_runtime.errors import Damaged

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.timeout(1200)]
SEED = int(os.environ.get("LTE_TEST_SEED", "6"))
TRIALS = int(os.environ.get("LTE_TEST_DAMAGES", "60"))
CHILD = Path(__file__).with_name("damage_child.py")

GRAPH = {"LTE_MEMORY__INDEX_MODE": "hnsw"}  # only graphs are kept in snapshots


class Prepared(NamedTuple):
    """A state as a kill left it, with a snapshot and a log behind it, and the house that it came from."""

    state: Path
    house: House


@pytest.fixture(scope="module")
def prepared(make_module_house: Callable[..., House]) -> Prepared:
    house = make_module_house(**GRAPH).start()
    house.publish([fact(f"Lock {n}", f"Old {n}") for n in range(60)])
    at = house.publish([fact(f"Lock {n}", f"Keeper {n}") for n in range(60)])
    house.ask(question("Lock 1"), at)
    house.client.take_snapshot()
    at = house.publish([fact(f"Lock {n}", f"Keeper {n}") for n in range(60, 70)])
    house.ask(question("Lock 1"), at)
    house.stack.kill_daemon()
    return Prepared(house.state_dir, house)


def flip(path: Path, chance: random.Random) -> None:
    """Eight bytes somewhere in the middle half become others."""
    data = bytearray(path.read_bytes())
    at = chance.randrange(len(data) // 4, 3 * len(data) // 4)
    for place in range(at, min(at + 8, len(data))):
        data[place] ^= chance.randrange(1, 256)
    path.write_bytes(data)


def cut(path: Path, _: random.Random) -> None:
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)


def empty(path: Path, _: random.Random) -> None:
    """Zeros over the second half: what a file system may leave after a power cut."""
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(size // 2)
        file.write(bytes(size - size // 2))


def whole_store(state: Path) -> Path:
    """The database with its log taken in, so that damage to it cannot be healed by the log."""
    without_log(state)
    return state / "edits.db"


def log_file(state: Path) -> Path:
    return state / "edits.db-wal"


def manifest(state: Path) -> Path:
    return next(state.glob("snapshots/snapshot-*/manifest.json"))


def index_file(state: Path) -> Path:
    return max(state.glob("snapshots/snapshot-*/index-*/*"), key=lambda path: path.stat().st_size)


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        (whole_store, flip),
        (whole_store, cut),
        (whole_store, empty),
        (log_file, flip),
        (log_file, cut),
        (manifest, flip),
        (manifest, cut),
        (index_file, flip),
        (index_file, cut),
    ],
    ids=lambda function: function.__name__,
)
def test_refused_or_right(
    prepared: Prepared,
    make_house: Callable[..., House],
    tmp_path: Path,
    file: Callable[[Path], Path],
    damage: Callable[[Path, random.Random], None],
) -> None:
    """The whole daemon on a damaged copy of the state."""
    shutil.copytree(prepared.state, tmp_path / "state")
    damage(file(tmp_path / "state"), random.Random(SEED))
    topic = prepared.house.topic
    house = make_house(directory=tmp_path, topic=topic, LTE_KAFKA__GROUP_ID=f"lte-{tmp_path.name}", **GRAPH)
    process = house.stack.launch_daemon()
    until(lambda: process.poll() is not None or house.client.is_serving(), "an end or READY", 2 * GUARD_S)
    if process.poll() is None:
        asked_right_or_refused(house, rebuilt=file in (manifest, index_file))
        return
    assert process.returncode == 1, house.log[-2000:]
    told = house.log[house.log.rindex("error: ") :]
    assert "damaged" in told or "does not match" in told, told
    assert "Traceback" not in house.log
    assert file is whole_store, "logs and snapshots can always be done without"


def asked_right_or_refused(house: House, *, rebuilt: bool) -> None:
    """A fault that only a row's checksum shows refuses the questions that would need the row, as damaged."""
    refused = 0
    for number in range(70):
        try:
            answer = house.ask(question(f"Lock {number}"))
        except Damaged:
            refused += 1
        else:
            assert targets(answer) == [f"Keeper {number}"]
            assert answer["text"] == f"Keeper {number}"
    report = house.client.verify_index()
    sound = report["ok"]
    print(f"{refused} of 70 questions refused; problems: {report['problems']}")
    assert sound or not rebuilt
    assert not (refused and sound), "what refuses an answer is found by a check too"


def test_many_random_damages(prepared: Prepared, tmp_path: Path) -> None:
    """Any byte of any file, without the rest of the daemon: a child tries, so that a crash is seen."""
    command = [sys.executable, str(CHILD), str(prepared.state), str(tmp_path), str(SEED), str(TRIALS)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=GUARD_S, check=False)
    assert done.returncode == 0, done.stdout[-500:] + done.stderr[-2000:]
    outcomes = done.stdout.split()
    print(f"seed {SEED}, N = {len(outcomes)}:", {each: outcomes.count(each) for each in set(outcomes)})
    assert len(outcomes) == TRIALS
    assert set(outcomes) <= {"right", "refused"}
