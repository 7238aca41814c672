"""The store under faults: full disk, failing disk, damage, kill, another version, another encoder."""

from __future__ import annotations

import os
import random
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import apsw
import numpy as np
import pytest
from event_log import NOW, Log

from lte_runtime.answer.encoder import StubEncoder
from lte_runtime.errors import BadRequest, Damaged, Fatal, NotFound, Refused, Retry
from lte_runtime.facts.events import fact_key
from lte_runtime.memory.edit_memory import STORE_FILE, EditMemory, EditMemorySettings
from lte_runtime.store import db
from lte_runtime.store.db import SCHEMA_VERSION
from lte_runtime.types import TopicPartition

Opener = Callable[..., EditMemory]
PLACE = TopicPartition("T", 0)


def boss(memory: EditMemory) -> list[str]:
    return [fact.target for fact in memory.facts_of_subject("Acme", namespace="default")]


def filled(memory: EditMemory, log: Log, count: int = 30) -> None:
    memory.apply(log.batch(log.fact("Ann", id="a"), log.fact("Bo", id="b")))
    memory.apply(log.batch(*(log.fact(f"P{n}", subject=f"Firm {n}") for n in range(count))))


def test_a_full_disk_applies_nothing_and_is_tried_again(open_memory: Opener, log: Log) -> None:
    memory = open_memory()
    memory.apply(log.batch(log.fact("Ann", id="a")))
    before = memory.state_hash()
    writer = memory._store.connection
    pages = writer.execute("PRAGMA page_count").fetchone()[0]
    writer.execute(f"PRAGMA max_page_count={pages + 2}").fetchall()
    big = log.batch(*(log.fact("x" * 4000, subject=f"Firm {n}", topic="new") for n in range(40)))
    with pytest.raises(Retry):
        memory.apply(big)
    assert (memory.state_hash(), memory.next_offsets()) == (before, {PLACE: 1})
    assert len(memory.list_edits()) == 1
    writer.execute("PRAGMA max_page_count=1000000").fetchall()
    assert len(memory.apply(big).applied) == 40
    assert memory.verify().problems == ()


class FailingSync(apsw.VFS):  # type: ignore[misc]
    """A file system whose sync fails while `failing` is set."""

    failing = False

    def __init__(self) -> None:
        super().__init__("failing-sync", "unix", makedefault=True)

    def xOpen(self, name: object, flags: list[int]) -> apsw.VFSFile:
        return FailingFile("unix", name, flags)


class FailingFile(apsw.VFSFile):  # type: ignore[misc]
    def xSync(self, flags: int) -> None:
        if FailingSync.failing:
            raise apsw.IOError("fsync failed")
        super().xSync(flags)


@pytest.fixture
def failing_sync() -> Iterator[type[FailingSync]]:
    vfs = FailingSync()
    yield FailingSync
    FailingSync.failing = False
    vfs.unregister()


def test_a_failed_fsync_is_fatal(failing_sync: type[FailingSync], tmp_path: Path, log: Log) -> None:
    memory = EditMemory.open(tmp_path, StubEncoder(), EditMemorySettings(), now=lambda: NOW)
    memory.apply(log.batch(log.fact("Ann")))
    failing_sync.failing = True
    with pytest.raises(Fatal):
        memory.apply(log.batch(log.fact("Bo")))
    failing_sync.failing = False
    assert memory.next_offsets() == {PLACE: 1}
    memory.close()
    memory = EditMemory.open(tmp_path, StubEncoder(), EditMemorySettings(), now=lambda: NOW)
    assert memory.next_offsets() in ({PLACE: 1}, {PLACE: 2})
    assert memory.verify().problems == ()
    memory.close()


def test_a_newer_schema_is_refused(open_memory: Opener, tmp_path: Path) -> None:
    open_memory().close()
    path = tmp_path / "state" / STORE_FILE
    connection = apsw.Connection(str(path))
    connection.execute(f"PRAGMA user_version={SCHEMA_VERSION + 1}")
    connection.close()
    with pytest.raises(Refused, match="upgrade"):
        open_memory()


@pytest.mark.parametrize("size", [1, 300])
@pytest.mark.parametrize("seed", range(6))
def test_a_damaged_store_is_told_or_was_not_hurt(
    open_memory: Opener, log: Log, tmp_path: Path, seed: int, size: int
) -> None:
    memory = open_memory()
    filled(memory, log, 100)
    before, seen = memory.next_offsets(), everything(memory)
    memory.close()
    path = tmp_path / "state" / STORE_FILE
    data = bytearray(path.read_bytes())
    place = random.Random(1000 * size + seed).randrange(len(data))
    for at in range(place, min(place + size, len(data))):
        data[at] ^= 0x41
    path.write_bytes(data)
    with suppress(Damaged):
        memory = open_memory()
        assert (memory.next_offsets(), everything(memory)) == (before, seen)


def everything(memory: EditMemory) -> list[list[str]]:
    names = ["Acme", *(f"Firm {n}" for n in range(100))]
    return [[fact.target for fact in memory.facts_of_subject(name, namespace="default")] for name in names]


def test_changed_text_is_never_served(open_memory: Opener, log: Log, tmp_path: Path) -> None:
    """A change of the file fails its page's checksum; one through SQLite, the row's own."""
    memory = open_memory()
    filled(memory, log)
    memory.close()
    path = tmp_path / "state" / STORE_FILE
    intact = path.read_bytes()
    path.write_bytes(intact.replace(b'"Bo"', b'"Xo"'))
    with pytest.raises(Damaged):
        open_memory()
    path.write_bytes(intact)
    connection = apsw.Connection(str(path))
    connection.execute("""UPDATE edits SET body=replace(body, '"Bo"', '"Xo"')""")
    connection.close()
    memory = open_memory()
    with pytest.raises(Damaged):
        boss(memory)
    with pytest.raises(Damaged):
        memory.candidates("boss of Acme", None, namespace="default")
    assert any("hash" in problem for problem in memory.verify().problems)


def test_a_changed_vector_is_refused(open_memory: Opener, log: Log, tmp_path: Path) -> None:
    memory = open_memory()
    filled(memory, log)
    memory.close()
    connection = apsw.Connection(str(tmp_path / "state" / STORE_FILE))
    vector = np.zeros(64, np.float32).tobytes()
    connection.execute("UPDATE vectors SET vector=? WHERE rowid=1", (vector,))
    connection.close()
    with pytest.raises(Damaged, match="vector"):
        open_memory()


@pytest.mark.parametrize("mode", ["exact", "hnsw"])
def test_start_from_a_snapshot_and_what_came_after(open_memory: Opener, log: Log, mode: str) -> None:
    memory = open_memory(index_mode=mode)
    filled(memory, log)
    info = memory.snapshot()
    memory.apply(log.batch(log.fact("Cy", subject="Later"), log.retract(id="b"), log.retract(id="a")))
    before = memory.state_hash()
    memory.close()
    memory = open_memory(index_mode=mode)
    assert memory.status().snapshot == info
    assert (memory.state_hash(), boss(memory), memory.verify().problems) == (before, [], ())
    assert [fact.target for fact in memory.facts_of_subject("later", namespace="default")] == ["Cy"]


@pytest.mark.parametrize("harm", ["flip", "truncate", "manifest", "remove"])
def test_a_damaged_snapshot_is_put_aside(open_memory: Opener, log: Log, tmp_path: Path, harm: str) -> None:
    memory = open_memory(index_mode="hnsw")
    filled(memory, log)
    name = memory.snapshot().name
    memory.close()
    folder = tmp_path / "state" / "snapshots" / name
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    victim = (
        folder / "manifest.json" if harm == "manifest" else max(files, key=lambda path: path.stat().st_size)
    )
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 0x10
    if harm == "remove":
        victim.unlink()
    else:
        victim.write_bytes(data[:-7] if harm == "truncate" else data)
    memory = open_memory(index_mode="hnsw")
    assert memory.status().snapshot is None
    assert (boss(memory), memory.verify().problems) == (["Bo"], ())
    assert not folder.exists()


def test_a_snapshot_of_another_store_is_not_taken(open_memory: Opener, log: Log, tmp_path: Path) -> None:
    """As after a copy of the store was restored: its numbers may agree, its keys do not."""
    for name, firm in (("state", "Firm"), ("other", "Shop")):
        memory = open_memory(name)
        memory.apply(log.batch(*(log.fact("x", subject=f"{firm} {n}") for n in range(9))))
        memory.snapshot()
        memory.close()
    (tmp_path / "state" / "snapshots").rename(tmp_path / "own")
    (tmp_path / "other" / "snapshots").rename(tmp_path / "state" / "snapshots")
    memory = open_memory()
    assert memory.status().snapshot is None
    assert memory.verify().problems == ()


def test_rebuild_needs_no_encoder(open_memory: Opener, log: Log) -> None:
    memory = open_memory()
    filled(memory, log)
    before = memory.candidates("boss of Firm 7", None, namespace="default")
    memory.encoder = None  # type: ignore[assignment]
    memory.rebuild()
    vector = StubEncoder().encode(["boss of Firm 7"], query=True)
    assert memory.candidates("boss of Firm 7", vector, namespace="default") == before
    assert memory.verify().problems == ()


def test_another_encoder_encodes_everything_again(open_memory: Opener, log: Log, tmp_path: Path) -> None:
    memory = open_memory()
    filled(memory, log)
    memory.snapshot()
    old, before = memory.vectors_of([1, 2]), memory.state_hash()
    memory.close()
    progress: list[tuple[int, int]] = []
    memory = EditMemory.open(
        tmp_path / "state",
        StubEncoder(2),
        now=lambda: NOW,
        on_progress=lambda done, total: progress.append((done, total)),
    )
    assert progress == [(31, 31)]
    assert not np.allclose(memory.vectors_of([1, 2]), old)
    assert np.array_equal(memory.vectors_of([1])[0], StubEncoder(2).encode(["The boss of Acme"])[0])
    assert (memory.state_hash(), memory.verify().problems) == (before, ())
    assert memory.status().encoder == StubEncoder(2).fingerprint
    memory.close()


_CHILD = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from event_log import Log
from lte_runtime.answer.encoder import StubEncoder
from lte_runtime.memory.edit_memory import EditMemory, EditMemorySettings
memory = EditMemory.open(Path(sys.argv[1]), StubEncoder(), EditMemorySettings())
log = Log()
log.next = max(memory.next_offsets().values(), default=0)
while True:
    memory.apply(log.batch(*(log.fact(f"P{log.next}", id=f"e{log.next}") for _ in range(3))))
    print(log.next, flush=True)
"""


def test_a_kill_loses_and_doubles_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _CHILD, str(tmp_path), str(Path(__file__).parents[2])]
    for _ in range(3):
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout
            acknowledged = [int(child.stdout.readline()) for _ in range(20)][-1]
            child.send_signal(signal.SIGKILL)
        memory = EditMemory.open(tmp_path, StubEncoder(), now=lambda: NOW)
        reached = memory.next_offsets()[PLACE]
        assert reached >= acknowledged
        records = memory.history(fact_key("default", "Acme", "boss"))
        assert sorted(int(record.edit.id[1:]) for record in records) == list(range(reached))
        assert boss(memory) == [f"P{reached - 1}"]
        assert memory.verify().problems == ()
        memory.close()


def test_an_erasure_that_was_cut_short_is_finished_at_the_next_start(
    open_memory: Opener, log: Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = open_memory()
    filled(memory, log)
    memory.snapshot()
    monkeypatch.setattr("lte_runtime.memory.erase._scrub", lambda _: (_ for _ in ()).throw(Fatal("cut")))
    with pytest.raises(Fatal):
        memory.erase(fact_key("default", "Firm 7", "boss"))
    monkeypatch.undo()
    memory.close()
    memory = open_memory()
    memory.close()
    assert b'"P7"' not in (tmp_path / "state" / STORE_FILE).read_bytes()


@pytest.mark.parametrize("killed_after", [None, "reserve_bytes", "VACUUM", "_add_checksums"])
def test_a_store_of_before_checksums_gets_them(
    open_memory: Opener, log: Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed_after: str | None
) -> None:
    """Also after a kill in the middle of it."""
    path = tmp_path / "state" / STORE_FILE
    with monkeypatch.context() as before_checksums:
        before_checksums.setattr(db, "_CHECKSUM_BYTES", 0)
        before_checksums.setattr(db, "_CHECKED", 0)
        memory = open_memory()
        filled(memory, log)
        before = memory.state_hash()
        memory.close()
    assert path.read_bytes()[20] == 0
    if killed_after:
        killed = subprocess.run([sys.executable, "-c", _KILLED, str(path), killed_after], check=False)
        assert killed.returncode == -signal.SIGKILL
    memory = open_memory()
    assert memory.state_hash() == before
    memory.close()
    assert path.read_bytes()[20] == 8
    data = bytearray(path.read_bytes())
    data[-9] ^= 1
    path.write_bytes(data)
    with pytest.raises(Damaged):
        open_memory()


def test_a_copy_of_a_store_in_use_is_whole_and_checked(open_memory: Opener, log: Log, tmp_path: Path) -> None:
    path, copy = tmp_path / "state" / STORE_FILE, tmp_path / "copy.db"
    with pytest.raises(NotFound):
        db.copy_store(path, copy)
    memory = open_memory()
    filled(memory, log)
    db.copy_store(path, copy)
    before = memory.state_hash()
    memory.apply(log.batch(log.fact("Cy", id="c")))
    with pytest.raises(BadRequest, match="already exists"):
        db.copy_store(path, copy)
    memory.close()
    path.write_bytes(copy.read_bytes())
    restored = open_memory()
    assert restored.state_hash() == before
    restored.close()
    data = bytearray(path.read_bytes())
    data[-9] ^= 1
    path.write_bytes(data)
    with pytest.raises(Damaged):
        db.copy_store(path, tmp_path / "other.db")
    assert [file.name for file in tmp_path.glob("*.db*")] == ["copy.db"]


_KILLED = """
import os, pathlib, signal, sys
from lte_runtime.store import db
path, step = pathlib.Path(sys.argv[1]), sys.argv[2]
connection = db._connect_writer(path, 5000)
if step == "_add_checksums":
    db._add_checksums(connection, path, 5000)
else:
    connection.reserve_bytes(reserve=8)
    if step == "VACUUM":
        connection.execute("VACUUM")
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_every_file_of_a_state_is_private(open_memory: Opener, log: Log, tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        memory = open_memory(index_mode="hnsw")
        filled(memory, log)
        memory.snapshot()
        db.copy_store(tmp_path / "state" / STORE_FILE, tmp_path / "state" / "copy.db")
        with memory.attempts.watch():
            paths = list((tmp_path / "state").rglob("*"))
    finally:
        os.umask(before)
    wrong = [
        f"{path.name} {stat.S_IMODE(path.stat().st_mode):o}"
        for path in paths
        if stat.S_IMODE(path.stat().st_mode) != (0o700 if path.is_dir() else 0o600)
    ]
    assert {"edits.db-wal", "edits.db-shm", "attempt", "fault", "lock"} <= {path.name for path in paths}
    assert wrong == []
