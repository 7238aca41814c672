"""What a start does about files that others may read, or may have changed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from daemon.process import check_state_directory
from daemon.realign.realigner import JOBS
from lte_runtime.errors import Refused
from lte_runtime.locks import DirectoryLock


@pytest.fixture
def state(tmp_path: Path) -> Path:
    place = tmp_path / "state"
    place.mkdir()
    for name in ("edits.db", "edits.db-wal"):
        (place / name).touch()
        (place / name).chmod(0o644)
    return place


def test_one_line_says_how_many_files_were_tightened(state: Path) -> None:
    state.chmod(0o755)
    with capture_logs() as first:
        check_state_directory(state)
    with capture_logs() as second:
        check_state_directory(state)
    assert [(line["event"], line["files"]) for line in first] == [("permissions_tightened", 3)]
    assert second == []


def test_a_refusal_gives_the_directory_free(state: Path) -> None:
    (state / "edits.db").chmod(0o666)
    with pytest.raises(Refused, match="every user can write"):
        check_state_directory(state)
    DirectoryLock(state).release()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to another user")
def test_a_result_that_another_user_brought_hinders_no_start(state: Path) -> None:
    result = state / JOBS / "run-000001" / "result.json"
    result.parent.mkdir(parents=True)
    result.touch()
    os.chown(result, 12345, 12345)
    check_state_directory(state)
