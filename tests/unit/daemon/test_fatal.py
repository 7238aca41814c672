"""After a fatal fault, wherever it appears, the process writes nothing more and ends with a clear line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from daemon.process import FAILED
from daemon.threads import Threads
from lte_runtime.answer.encoder import StubEncoder
from lte_runtime.errors import Fatal, on_fatal
from lte_runtime.memory.edit_memory import EditMemory

CHILD = Path(__file__).with_name("fatal_child.py")
ROOT = Path(__file__).parents[3]
WRITES = ["replay", "erase", "meta", "dead letters", "pointer", "snapshot", "announcements", "control"]


@pytest.mark.parametrize("write", WRITES)
def test_a_failed_fsync_ends_the_process_whoever_wrote(write: str, tmp_path: Path) -> None:
    command = [sys.executable, str(CHILD), str(tmp_path / "state"), write]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == FAILED, ended.stderr
    line = json.loads(ended.stderr.splitlines()[-1])
    assert (line["event"], line["level"]) == ("fatal", "critical")
    assert "fsync failed" in line["error"]
    memory = EditMemory.open(tmp_path / "state", StubEncoder())
    assert memory.verify().problems == ()
    assert memory.meta_get("after") is None
    memory.close()


def test_an_ingest_that_is_stuck_does_not_hold_up_the_end() -> None:
    let_go, heard, undo = threading.Event(), [], ExitStack()
    ingest: Any = SimpleNamespace(run=let_go.wait, stop=lambda: None)
    Threads(undo).start("ingest", ingest, stuck=lambda: "ingest has been reading for more than 60 s")
    with on_fatal(heard.append), pytest.raises(Fatal, match="ingest thread did not stop in 1 s"):
        undo.close()
    assert len(heard) == 1
    let_go.set()
