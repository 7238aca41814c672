"""State directories of earlier versions open in this one and give the same answers."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from make import answers

HERE = Path(__file__).parent
VERSIONS = sorted(int(path.stem.split("-")[1]) for path in HERE.glob("answers-*.json"))

CHANGED: Mapping[str, Mapping[str, Any]] = {}
"""What this version answers differently on purpose, by part and question."""


def unpacked(version: int, directory: Path) -> Path:
    with tarfile.open(HERE / f"state-{version}.tar.xz") as archive:
        archive.extractall(directory, filter="data")
    return directory / "state"


@pytest.fixture(params=VERSIONS)
def version(request: pytest.FixtureRequest) -> int:
    return int(request.param)


def test_a_state_of_an_earlier_version_gives_the_same_answers(version: int, tmp_path: Path) -> None:
    recorded = json.loads((HERE / f"answers-{version}.json").read_text("utf-8"))
    state = unpacked(version, tmp_path)
    first, again = answers(state), answers(state)
    assert again == first
    assert first["problems"] == []
    for part, values in recorded.items():
        if isinstance(values, dict):
            expected = values | CHANGED.get(part, {})
            differing = {name: (first[part].get(name), value) for name, value in expected.items()}
            assert {name: pair for name, pair in differing.items() if pair[0] != pair[1]} == {}
        else:
            assert first[part] == values, part
