"""Events, memories and a small disk for the tests of this folder."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from event_log import NOW, Log

from lte_runtime.answer.encoder import StubEncoder
from lte_runtime.memory.edit_memory import EditMemory, EditMemorySettings


@pytest.fixture
def log() -> Log:
    return Log()


Opener = Callable[..., EditMemory]


@pytest.fixture
def open_memory(tmp_path: Path) -> Iterator[Opener]:
    """Opens memories on folders of the test; all are closed at its end."""
    opened: list[EditMemory] = []

    def make(name: str = "state", encoder: object = None, **settings: object) -> EditMemory:
        memory = EditMemory.open(
            tmp_path / name,
            encoder or StubEncoder(),  # type: ignore[arg-type]
            EditMemorySettings(**settings),  # type: ignore[arg-type]
            now=lambda: NOW,
        )
        opened.append(memory)
        return memory

    yield make
    for memory in opened:
        memory.close()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 1 MiB of its own."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if mounted.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)
