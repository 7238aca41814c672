"""A backup is checked as a whole, and put into a state directory that nobody holds."""

from __future__ import annotations

import stat
from collections.abc import Callable
from pathlib import Path

import apsw
import pytest
from event_log import Log

from lte_runtime.errors import BadRequest, Damaged, NotFound, Refused
from lte_runtime.memory.edit_memory import STORE_FILE, EditMemory
from lte_runtime.store import backup, db
from lte_runtime.store.backup import restore_backup, summarise

Opener = Callable[..., EditMemory]


@pytest.fixture
def copy(open_memory: Opener, log: Log, tmp_path: Path) -> Path:
    """A backup of a memory with two facts, which holds a third one by now and is closed."""
    memory = open_memory()
    memory.apply(log.batch(log.fact("Ann", id="a"), log.fact("P", subject="Firm")))
    file = tmp_path / "copy.db"
    db.copy_store(tmp_path / "state" / STORE_FILE, file)
    memory.apply(log.batch(log.fact("Q", subject="Other")))
    memory.close()
    return file


def test_a_backup_is_restored_into_a_directory_of_its_own(
    open_memory: Opener, log: Log, copy: Path, tmp_path: Path
) -> None:
    summary = restore_backup(copy, tmp_path / "elsewhere" / STORE_FILE)
    assert (summary.edits, summary.current_facts) == (2, 2)
    assert summary == summarise(copy)
    assert stat.S_IMODE((tmp_path / "elsewhere" / STORE_FILE).stat().st_mode) == 0o600
    restored = open_memory("elsewhere")
    assert restored.state_hash() == summary.state_hash
    assert {(p.topic_id, p.partition): n for p, n in restored.next_offsets().items()} == summary.next_offsets
    restored.apply(log.batch(log.fact("Q", subject="Other")))
    assert restored.verify().problems == ()


def test_a_store_that_is_there_goes_only_when_told(open_memory: Opener, copy: Path, tmp_path: Path) -> None:
    store = tmp_path / "state" / STORE_FILE
    with pytest.raises(Refused, match="--replace"):
        restore_backup(copy, store)
    assert summarise(store).edits == 3
    store.with_name("edits.db-wal").write_bytes(b"a log of the old store")
    restore_backup(copy, store, replace=True)
    assert summarise(store).edits == 2
    assert open_memory().verify().problems == ()


def test_a_directory_in_use_is_refused(open_memory: Opener, copy: Path, tmp_path: Path) -> None:
    memory = open_memory()
    with pytest.raises(Refused, match="in use by pid"):
        restore_backup(copy, tmp_path / "state" / STORE_FILE, replace=True)
    assert memory.verify().problems == ()


@pytest.mark.usefixtures("copy")
def test_what_is_no_backup_is_named(tmp_path: Path) -> None:
    store = tmp_path / "elsewhere" / STORE_FILE
    with pytest.raises(NotFound, match="there is no file"):
        restore_backup(tmp_path / "nothing.db", store)
    (tmp_path / "text.db").write_text("not a store" * 1000)
    with pytest.raises(Damaged, match="no backup"):
        restore_backup(tmp_path / "text.db", store)
    apsw.Connection(str(tmp_path / "other.db")).execute("CREATE TABLE meta(name)")
    with pytest.raises(BadRequest, match="no backup of a store"):
        restore_backup(tmp_path / "other.db", store)
    (tmp_path / "empty.db").touch()
    with pytest.raises(BadRequest, match="no backup of a store"):
        restore_backup(tmp_path / "empty.db", store)
    with pytest.raises(BadRequest, match="the store itself"):
        restore_backup(tmp_path / "state" / STORE_FILE, tmp_path / "state" / STORE_FILE, replace=True)
    assert not store.exists()


@pytest.mark.parametrize("at", [0.3, 0.6, 0.9])
def test_a_damaged_backup_changes_nothing(copy: Path, tmp_path: Path, at: float) -> None:
    store = tmp_path / "state" / STORE_FILE
    data = bytearray(copy.read_bytes())
    data[int(len(data) * at)] ^= 1
    copy.write_bytes(data)
    with pytest.raises(Damaged, match="nothing was changed"):
        restore_backup(copy, store, replace=True)
    assert summarise(store).edits == 3
    assert list(store.parent.glob("*.restored*")) == []


def test_a_backup_of_a_newer_version_is_refused(
    copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backup, "SCHEMA_VERSION", db.SCHEMA_VERSION - 1)
    with pytest.raises(Refused, match="upgrade the program"):
        restore_backup(copy, tmp_path / "elsewhere" / STORE_FILE)
