"""State directories of earlier versions open in this one and give the same answers."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import apsw
import make
import pytest
from make import answers

from lte_runtime.errors import Refused
from lte_runtime.store.db import SCHEMA_VERSION

HERE = Path(__file__).parent
VERSIONS = sorted(int(path.stem.split("-")[1]) for path in HERE.glob("answers-*.json"))

WEEK_3, NOW_AND_THEN = 1_768_953_600_000, (None, *make.TIMES[1:])
FERRY = "default\x1fferry 1\x1fcaptain"
CHANGED: Mapping[int, Mapping[str, Mapping[str, Any]]] = {
    2: {
        # The same value for another time is another edit, although both have one revision.
        "answers": {f"Who is the guard of Gate rota?@{WEEK_3}": ["Nils", "edited", ["rota-2"]]},
        "facts": {f"default/Gate rota@{WEEK_3}": [["rota-2", "guard", "Nils", 0, 111]]}
        # A retraction reaches what stands before it in its partition, whatever the publishers' clocks say.
        | {f"default/Buoy 1@{at_ms}": [] for at_ms in NOW_AND_THEN},
        "edits": {
            "rota-0/assert": ["default\x1fgate rota\x1fguard", "expired", None, [], [[0, 109]]],
            "rota-2/assert": ["default\x1fgate rota\x1fguard", "expired", None, [], [[0, 111]]],
            "buoy-1/assert": [
                "default\x1fbuoy 1\x1fcolour",
                "retracted",
                "golden-topic-id:1:64",
                [],
                [[1, 63]],
            ],
            # One id of two sources was listed four times, each with the deliveries of both.
            "ferry-1/assert": [FERRY, "current", None, [], [[0, 117]]],
            "ferry-1/assert#2": [FERRY, "superseded", "ferry-1", [], [[0, 113], [0, 114], [0, 115]]],
            "ferry-1/assert#3": None,
            "ferry-1/assert#4": None,
        },
    },
}
"""What this version answers differently on purpose, by schema, part and question; None: no more."""


def unpacked(version: int, directory: Path) -> Path:
    with tarfile.open(HERE / f"state-{version}.tar.xz") as archive:
        archive.extractall(directory, filter="data")
    return directory / "state"


@pytest.fixture(params=VERSIONS)
def version(request: pytest.FixtureRequest) -> int:
    return int(request.param)


def test_a_state_of_an_earlier_version_gives_the_same_answers(version: int, tmp_path: Path) -> None:
    recorded = parts(json.loads((HERE / f"answers-{version}.json").read_text("utf-8")))
    state = unpacked(version, tmp_path)
    first, again = answers(state), answers(state)
    assert again == first
    assert first["problems"] == []
    for part, values in parts(first).items():
        expected = recorded[part]
        if isinstance(expected, dict):
            changed = expected | CHANGED.get(version, {}).get(part, {})
            expected = {name: value for name, value in changed.items() if value is not None}
            differing = {name: (values.get(name), value) for name, value in expected.items()}
            assert {name: pair for name, pair in differing.items() if pair[0] != pair[1]} == {}
            assert values.keys() == expected.keys()
        else:
            assert values == expected, part


def parts(recorded: dict[str, Any]) -> dict[str, Any]:
    """Answers by part; edits by id and operation, and numbered where several have the same.

    The text of an answer about a set is left out: the first version told its members one by one, later ones
    as one list. That the same members are cited is compared.
    """
    about_sets = {
        name: [None, *evidence]
        for name, (_, *evidence) in recorded["answers"].items()
        if " member of " in name
    }
    edits: dict[str, Any] = {}
    for edit_id, op, *about in recorded["edits"]:
        alike = sum(name.partition("#")[0] == f"{edit_id}/{op}" for name in edits)
        edits[f"{edit_id}/{op}#{alike + 1}" if alike else f"{edit_id}/{op}"] = about
    return recorded | {"edits": edits, "answers": recorded["answers"] | about_sets}


def test_the_store_of_before_is_kept(version: int, tmp_path: Path) -> None:
    state = unpacked(version, tmp_path)
    before = (state / "edits.db").read_bytes()
    answers(state)
    copy = state / f"edits.db.before-{SCHEMA_VERSION}"
    assert copy.exists() == (version < SCHEMA_VERSION)
    if copy.exists():
        assert rows_of(copy) == rows_of_bytes(before, tmp_path)


def rows_of(path: Path) -> list[tuple[object, ...]]:
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    tables = ("edits", "positions", "keys", "facts", "offsets", "quarantine", "meta", "activations")
    rows = [row for table in tables for row in connection.execute(f"SELECT * FROM {table}")]
    connection.close()
    return rows


def rows_of_bytes(data: bytes, scratch: Path) -> list[tuple[object, ...]]:
    path = scratch / "as-it-was.db"
    path.write_bytes(data)
    return rows_of(path)


KILLED_IN_MIGRATION = """
import os, signal, sys
from pathlib import Path
from lte_runtime.store import writer

at, refold = int(sys.argv[2]), writer.BatchWriter.refold
count = 0

def dying(batch_writer, keys):
    global count
    count += 1
    if count == at:
        os.kill(os.getpid(), signal.SIGKILL)
    return refold(batch_writer, keys)

writer.BatchWriter.refold = dying
writer.Store(Path(sys.argv[1]))
"""


@pytest.mark.parametrize("at", [1, 60])
def test_a_kill_in_the_migration_leaves_the_store_as_it_was(version: int, at: int, tmp_path: Path) -> None:
    if version == SCHEMA_VERSION:
        pytest.skip("a store of this version is not migrated")
    recorded = answers(unpacked(version, tmp_path / "whole"))
    state = unpacked(version, tmp_path / "killed")
    command = [sys.executable, "-c", KILLED_IN_MIGRATION, str(state / "edits.db"), str(at)]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    connection = apsw.Connection(str(state / "edits.db"))
    assert connection.pragma("user_version") == version
    connection.close()
    assert answers(state) == recorded


def test_the_program_before_refuses_a_store_of_this_one(tmp_path: Path) -> None:
    state = unpacked(VERSIONS[0], tmp_path)
    answers(state)
    connection = apsw.Connection(str(state / "edits.db"))
    connection.pragma("user_version", SCHEMA_VERSION + 1)
    connection.close()
    with pytest.raises(Refused, match="upgrade the program"):
        answers(state)
