"""A start on a full disk, and on one that is mounted read-only: one clear error, or a memory that answers."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from event_log import Log

from lte_runtime.answer.encoder import StubEncoder
from lte_runtime.errors import Refused
from lte_runtime.memory.edit_memory import STORE_FILE, EditMemory
from lte_runtime.store import db
from lte_runtime.store.writer import Store

KILLED = """
import os, sys
from pathlib import Path
from lte_runtime.answer.encoder import StubEncoder
from lte_runtime.memory.edit_memory import EditMemory
memory = EditMemory.open(Path(sys.argv[1]), StubEncoder())
memory.meta_set("seen", "yes")
os._exit(9)
"""


def fill(disk: Path) -> None:
    with (disk / "filler").open("wb", 0) as file, suppress(OSError):
        while True:
            file.write(b"x" * 4096)
    assert os.statvfs(disk).f_bavail == 0


def opened(disk: Path) -> EditMemory:
    return EditMemory.open(disk / "state", StubEncoder())


def test_a_full_disk_is_told_and_the_start_works_once_there_is_space(disk: Path, log: Log) -> None:
    memory = opened(disk)
    memory.apply(log.batch(log.fact("Ann", id="a")))
    before = memory.state_hash()
    memory.close()
    fill(disk)
    with pytest.raises(Refused, match=r"cannot write to .*edits\.db: No space left .* free some space"):
        opened(disk)
    (disk / "filler").unlink()
    again = opened(disk)
    assert again.state_hash() == before
    again.close()


def test_after_a_kill_a_full_disk_does_not_hinder_the_start(disk: Path) -> None:
    subprocess.run([sys.executable, "-c", KILLED, str(disk / "state")], check=False)
    assert (disk / "state" / f"{STORE_FILE}-shm").exists()
    fill(disk)
    memory = opened(disk)
    assert memory.meta_get("seen") == "yes"
    memory.close()


@pytest.mark.parametrize("open_it", [opened, lambda disk: Store(disk / "state" / STORE_FILE, 10)])
def test_a_disk_that_is_read_only_is_told(disk: Path, open_it: Callable[[Path], object]) -> None:
    opened(disk).close()
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    with pytest.raises(Refused, match=r"cannot write to .*: Read-only file system.*mount it for writing"):
        open_it(disk)


def test_a_copy_from_a_disk_that_is_read_only_is_told(disk: Path, tmp_path: Path) -> None:
    opened(disk).close()
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    with pytest.raises(Refused, match="Read-only file system"):
        db.copy_store(disk / "state" / STORE_FILE, tmp_path / "copy.db")
    assert os.listdir(tmp_path) == ["disk"]
