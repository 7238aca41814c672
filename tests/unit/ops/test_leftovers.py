"""What a killed `lte up` left is ended; a process that only has the same pid is not."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ops import leftovers


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as process:
        yield process
        process.kill()


def change(path: Path, **more: str) -> None:
    written = json.loads(path.read_text())
    written["children"]["daemon"] |= more
    path.write_text(json.dumps(written))


def test_a_noted_child_is_ended_and_the_note_goes(tmp_path: Path, sleeper: subprocess.Popen[bytes]) -> None:
    path = tmp_path / "children.json"
    leftovers.note(path, {"daemon": sleeper.pid})
    assert leftovers.end(path) == ["daemon"]
    assert sleeper.wait() == -15
    assert not path.exists()
    assert leftovers.end(path) == []


def test_a_process_that_got_the_pid_later_is_left_alone(
    tmp_path: Path, sleeper: subprocess.Popen[bytes]
) -> None:
    path = tmp_path / "children.json"
    leftovers.note(path, {"daemon": sleeper.pid})
    change(path, started="1")
    assert leftovers.end(path) == []
    assert sleeper.poll() is None


def test_a_note_from_before_a_reboot_ends_nothing(tmp_path: Path, sleeper: subprocess.Popen[bytes]) -> None:
    path = tmp_path / "children.json"
    leftovers.note(path, {"daemon": sleeper.pid})
    path.write_text(json.dumps({**json.loads(path.read_text()), "boot": "another"}))
    assert leftovers.end(path) == []
    assert sleeper.poll() is None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"boot": 1}', '{"children": {"daemon": 1}}'])
def test_a_damaged_note_ends_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "children.json").write_text(text)
    assert leftovers.end(tmp_path / "children.json") == []
