"""A store of before, in which spellings of a name had keys of their own, becomes what this version makes."""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import apsw
import pytest
import spellings
from make import NOW, batches

from lte_runtime.answer.encoder.stub import StubEncoder
from lte_runtime.errors import BadRequest, NotFound, Refused
from lte_runtime.facts.events import fact_key
from lte_runtime.memory.edit_memory import STORE_FILE, EditMemory
from lte_runtime.store.backup import restore_backup, summarise
from lte_runtime.store.db import SCHEMA_VERSION, copy_store
from lte_runtime.store.rekey import KEYS_JOINED
from lte_runtime.store.rows import TEXT_ERASED
from lte_runtime.store.upgrade import rekey_report, rekey_store

HERE = Path(__file__).parent
BEFORE = 3
DEPOT = fact_key("default", "Dun-Laoghaire depot", "opening time")


def unpacked(name: str, directory: Path) -> Path:
    with tarfile.open(HERE / f"{name}-{BEFORE}.tar.xz") as archive:
        archive.extractall(directory, filter="data")
    return directory / "state"


@contextmanager
def opened(state: Path) -> Iterator[EditMemory]:
    memory = EditMemory.open(state, StubEncoder(), now=lambda: NOW)
    try:
        yield memory
    finally:
        memory.close()


def seen(state: Path) -> dict[str, Any]:
    """All that a store says of its facts; its check must have no complaints."""
    with opened(state) as memory:
        assert memory.verify().problems == ()
        records = [
            record for record in memory.list_edits(limit=10_000) if TEXT_ERASED not in record.edit.flags
        ]
        edits = {(record.edit.id, record.edit.namespace): record for record in records}
        assert len(edits) == len(records)
        return {
            "hash": memory.state_hash(),
            "edits": {
                name: (
                    record.state,
                    record.winner_id,
                    record.edit.key,
                    record.edit.content_hash,
                    record.positions,
                )
                for name, record in edits.items()
            },
            "offsets": memory.next_offsets(),
            "keys": (memory.status().keys, memory.status().current_facts, memory.status().vectors_live),
        }


def schema_of(state: Path) -> int:
    connection = apsw.Connection(str(state / STORE_FILE), flags=apsw.SQLITE_OPEN_READONLY)
    version = int(connection.pragma("user_version"))
    connection.close()
    return version


def key_rows(state: Path) -> list[tuple[object, ...]]:
    """The keys as they are stored, but for their numbers; names without their order."""
    connection = apsw.Connection(str(state / STORE_FILE), flags=apsw.SQLITE_OPEN_READONLY)
    columns = "key, namespace, subject, relation, view, view_hash, facts, chain, names"
    rows = connection.execute(f"SELECT {columns} FROM keys WHERE subject<>'' ORDER BY key").fetchall()
    connection.close()
    return [(*values, dict(json.loads(names))) for *values, names in rows]


def test_an_upgraded_store_is_what_a_new_reader_of_the_topic_has(tmp_path: Path) -> None:
    state = unpacked(spellings.SPELLINGS, tmp_path)
    spellings.fill(tmp_path / "new", spellings.SPELLINGS)
    upgraded = seen(state)
    assert upgraded == seen(tmp_path / "new") == seen(state)
    assert key_rows(state) == key_rows(tmp_path / "new")
    assert (state / f"{STORE_FILE}.before-{SCHEMA_VERSION}").exists()


def test_all_spellings_name_the_fact(tmp_path: Path) -> None:
    with opened(unpacked(spellings.SPELLINGS, tmp_path)) as memory:
        for subject in ("O'Hanlon Creamery", "O’HANLON CREAMERY", "Oʼhanlon\u200b Creamery", "O'Hanlon’s"):
            facts = memory.facts_of_subject(subject, namespace="default")
            assert [fact.target for fact in facts] == ["€2.50"]
        history = memory.history(fact_key("default", "Işıklı Mobilya", "head office"))
        assert [(record.edit.target, record.state) for record in history] == [
            ("Eskişehir", "current"),
            ("Bursa", "superseded"),
        ]
        crew = memory.facts_of_subject("night crew", namespace="default")
        assert [fact.target for fact in crew] == ["Quist"]
        assert memory.facts_of_subject("Hall 2", namespace="lloyd's")[0].target == "of Lloyd's"
        assert memory.status().joined_keys == 0


def test_what_is_sent_once_more_is_a_duplicate_after_the_upgrade(tmp_path: Path) -> None:
    """Ids and content are compared in the new form too."""
    state = unpacked(spellings.SPELLINGS, tmp_path)
    before = seen(state)
    with opened(state) as memory:
        for batch in batches(spellings.records(spellings.SPELLINGS)):
            again = tuple(
                replace(edit, position=replace(edit.position, offset=edit.position.offset + 1000))
                for edit in batch.edits
                if edit.publisher or edit.id.startswith(("hall", "tug"))
            )
            applied = memory.apply(replace(batch, edits=again, rejected=(), next_offsets={}))
            assert (applied.applied, applied.rejected) == ((), 0)
    after = seen(state)
    assert after["hash"] == before["hash"]
    assert after["edits"].keys() == before["edits"].keys()


def test_keys_of_different_publishers_wait_for_a_word(tmp_path: Path) -> None:
    state = unpacked(spellings.PUBLISHERS, tmp_path)
    with pytest.raises(Refused, match=r"1 in all.*rekey --join-publishers"):
        EditMemory.open(state, StubEncoder())
    with pytest.raises(Refused, match="rekey --dry-run"):
        rekey_store(state / STORE_FILE)
    assert schema_of(state) == BEFORE
    assert not list(state.glob("*.before-*")), "nothing is changed and nothing is left"

    expected = rekey_report(state / STORE_FILE)
    assert (expected.pending, expected.across_publishers) == (True, 1)
    assert expected.joined[0].key == DEPOT, "those of different publishers come first"
    assert [former.publishers for former in expected.joined[0].former] == [("shop",), ("cms",)]
    assert rekey_store(state / STORE_FILE, join_publishers=True) == expected
    done = rekey_report(state / STORE_FILE)
    assert (done.pending, done.changed, done.across_publishers) == (False, 0, 1)
    assert {joined.key: set(joined.former) for joined in done.joined} == {
        joined.key: set(joined.former) for joined in expected.joined
    }
    assert rekey_store(state / STORE_FILE) == done, "once is enough"


def test_joined_histories_of_publishers_are_flagged_and_counted(tmp_path: Path) -> None:
    state = unpacked(spellings.PUBLISHERS, tmp_path)
    rekey_store(state / STORE_FILE, join_publishers=True)
    spellings.fill(tmp_path / "new", spellings.PUBLISHERS)
    assert seen(state) == seen(tmp_path / "new")
    with opened(state) as memory:
        records = memory.list_edits(limit=10_000)
        flagged = {record.edit.id for record in records if KEYS_JOINED in record.edit.flags}
        assert flagged == {"shop-1", "cms-1"}
        assert KEYS_JOINED in memory.facts_of_subject("dun-laoghaire depot", namespace="default")[0].flags
        assert memory.status().joined_keys == 1
        memory.erase(DEPOT)
        assert memory.status().joined_keys == 0
    assert b"laoghaire" not in (state / STORE_FILE).read_bytes().lower()


def test_a_copy_of_an_earlier_attempt_is_replaced(tmp_path: Path) -> None:
    """The earlier version may have gone on with the store."""
    state = unpacked(spellings.SPELLINGS, tmp_path)
    copy = state / f"{STORE_FILE}.before-{SCHEMA_VERSION}"
    copy.write_bytes(b"of last week")
    seen(state)
    assert summarise(copy).state_hash.startswith("1-")


def test_a_backup_of_before_is_restored_and_upgraded(tmp_path: Path) -> None:
    state = unpacked(spellings.SPELLINGS, tmp_path)
    copy_store(state / STORE_FILE, tmp_path / "backup.db")
    summary = restore_backup(tmp_path / "backup.db", tmp_path / "restored" / STORE_FILE)
    assert summary.state_hash.startswith("1-"), "its keys have the form of before"
    upgraded = seen(tmp_path / "restored")
    assert upgraded == seen(state)
    assert upgraded["hash"].startswith("2-")


def test_a_rekey_names_what_it_cannot_do(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no store"):
        rekey_report(tmp_path / STORE_FILE)
    apsw.Connection(str(tmp_path / "other.db")).execute("CREATE TABLE other(a)")
    with pytest.raises(BadRequest, match="no store"):
        rekey_report(tmp_path / "other.db")
    state = unpacked(spellings.SPELLINGS, tmp_path)
    with opened(state), pytest.raises(Refused, match="in use by pid"):
        rekey_store(state / STORE_FILE)


KILLED_AT_EACH_STEP = """
import json, os, shutil, signal, sys
from pathlib import Path
import apsw
from lte_runtime.store import batch_writer, db, rekey, writer

source, scratch = map(Path, sys.argv[1:])
STEPS = ((db, "copy_store"), (rekey, "_note"), (rekey, "_rename"), (rekey, "rehashed"),
         (rekey, "_join_twins"), (batch_writer.BatchWriter, "refold"))

def die_at(step):
    count = 0
    def dying(function):
        def run(*arguments, **options):
            nonlocal count
            done = function(*arguments, **options)
            count += 1
            if count == step:
                os.kill(os.getpid(), signal.SIGKILL)
            return done
        return run
    for owner, name in STEPS:
        setattr(owner, name, dying(getattr(owner, name)))

def version(path):
    connection = apsw.Connection(str(path))
    value = connection.pragma("user_version")
    connection.close()
    return value

step, killed = 0, True
while killed:
    step += 1
    state = scratch / str(step)
    shutil.copytree(source, state)
    child = os.fork()
    if not child:
        die_at(step)
        writer.Store(state / "edits.db")
        os._exit(0)
    _, status = os.waitpid(child, 0)
    killed = os.WIFSIGNALED(status)
    print(json.dumps([step, killed, version(state / "edits.db")]), flush=True)
"""


def test_a_kill_at_any_step_leaves_the_store_as_it_was_and_the_next_start_ends_it(tmp_path: Path) -> None:
    state = unpacked(spellings.SPELLINGS, tmp_path / "source")
    (tmp_path / "killed").mkdir()
    command = [sys.executable, "-c", KILLED_AT_EACH_STEP, str(state), str(tmp_path / "killed")]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    steps = [tuple(json.loads(line)) for line in lines]
    assert len(steps) > 30
    assert all((killed, version) == (True, BEFORE) for _, killed, version in steps[:-1])
    assert steps[-1][1:] == (False, SCHEMA_VERSION)
    expected = seen(state)
    for step, _, _ in steps[::7]:
        assert seen(tmp_path / "killed" / str(step)) == expected, step
