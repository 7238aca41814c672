"""Files that only their owner may read, and what is refused because others may have changed it."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from pathlib import Path

import pytest

from lte_runtime import private_files
from lte_runtime.errors import Refused
from lte_runtime.locks import DirectoryLock

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to another user")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A state directory as earlier versions left it."""
    place = tmp_path / "state"
    (place / "snapshots" / "one").mkdir(parents=True)
    for name in ("edits.db", "snapshots/one/ids"):
        (place / name).write_text("x")
        (place / name).chmod(0o644)
    for directory in (place, place / "snapshots", place / "snapshots" / "one"):
        directory.chmod(0o755)
    return place


def test_what_others_may_read_is_tightened_and_counted(state: Path) -> None:
    assert private_files.tighten(state) == 5
    assert mode(state) == 0o710
    assert {mode(path) for path in state.rglob("*") if path.is_dir()} == {0o700}
    assert {mode(path) for path in state.rglob("*") if path.is_file()} == {0o600}
    assert private_files.tighten(state) == 0


def test_a_stricter_mode_stays(state: Path) -> None:
    state.chmod(0o2700)
    (state / "edits.db").chmod(0o400)
    private_files.tighten(state)
    assert mode(state) == 0o2700
    assert mode(state / "edits.db") == 0o400


@pytest.mark.parametrize("name", [".", "snapshots", "edits.db", "snapshots/one/ids"])
def test_what_everybody_may_write_is_refused_with_the_command_that_mends_it(state: Path, name: str) -> None:
    path = state / name
    path.chmod(0o777)
    with pytest.raises(Refused, match=r"has mode 0777: every user can write .*`chmod o-w ") as refused:
        private_files.tighten(state)
    assert str(path) in str(refused.value)


@needs_root
@pytest.mark.parametrize("name", [".", "snapshots", "edits.db"])
def test_what_another_user_owns_is_refused(state: Path, name: str) -> None:
    os.chown(state / name, 12345, -1)
    with pytest.raises(Refused, match=r"belongs to user 12345, but the daemon runs as user 0.*chown -R 0 "):
        private_files.tighten(state)


@needs_root
def test_what_a_training_command_of_another_user_leaves_is_accepted(state: Path) -> None:
    job = state / "realign" / "run-1"
    job.mkdir(parents=True)
    (job / "result.json").write_text("{}")
    os.chown(job / "result.json", 12345, -1)
    (job / "log.txt").touch()
    (job / "log.txt").chmod(0o666)
    private_files.tighten(state, scratch="realign")
    assert mode(job) == 0o700
    assert mode(job / "log.txt") == 0o600


@needs_root
def test_a_directory_that_a_training_command_keeps_to_itself_is_passed_over(state: Path) -> None:
    """Read without root's rights, which pass every mode; pytest's own directory is closed to other users."""
    open_place = Path(tempfile.mkdtemp(prefix="lte-"))
    open_place.chmod(0o711)
    state = state.rename(open_place / "state")
    (state / "realign" / "run-1").mkdir(parents=True)
    (state / "realign" / "run-1").chmod(0o700)
    os.chown(state / "realign" / "run-1", 12345, 12345)
    pid = os.fork()
    if pid == 0:
        try:
            for path in (state, *state.rglob("*")):
                if path.name != "run-1":
                    os.chown(path, 12346, 12346)
            os.setgroups([])
            os.setgid(12346)
            os.setuid(12346)
            os._exit(0 if private_files.tighten(state, scratch="realign") == 6 else 1)
        finally:
            os._exit(2)
    status = os.waitpid(pid, 0)[1]
    shutil.rmtree(open_place)
    assert os.waitstatus_to_exitcode(status) == 0


def test_links_are_not_followed_and_sockets_stay_open_to_their_group(state: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.touch()
    outside.chmod(0o644)
    (state / "link").symlink_to(outside)
    os.mkfifo(state / "lte.sock")
    (state / "lte.sock").chmod(0o660)
    private_files.tighten(state)
    assert mode(outside) == 0o644
    assert mode(state / "lte.sock") == 0o660


def test_a_state_directory_by_a_link_is_tightened(state: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(state)
    private_files.tighten(tmp_path / "link")
    assert mode(state) == 0o710


def test_a_new_state_directory_lets_its_group_pass(tmp_path: Path) -> None:
    DirectoryLock(tmp_path / "a" / "state").release()
    assert [mode(tmp_path / "a"), mode(tmp_path / "a" / "state")] == [0o710, 0o710]
    assert mode(tmp_path / "a" / "state" / "lock") == 0o600


def test_a_directory_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Refused, match=r"cannot write to .*/file: File exists"):
        DirectoryLock(tmp_path / "file" / "state")
