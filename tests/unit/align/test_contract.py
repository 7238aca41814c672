"""The job's directory: what is read, what is refused, and progress that is whole at any time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lte_runtime.align import jobdir
from lte_runtime.errors import BadRequest

JOB: dict[str, Any] = {
    "id": "r1",
    "name": "align-000002",
    "preset": "demo",
    "base": "/models/base",
    "base_fingerprint": "0" * 64,
    "incumbent": None,
    "facts": "facts.jsonl",
    "probes": "probes.jsonl",
    "anchor": None,
    "seed": 1,
    "epoch": 3,
    "deadline_s": None,
    "device": "cpu",
    "dtype": "auto",
    "max_memory_bytes": None,
}


def test_paths_are_taken_from_the_directory_unless_absolute(tmp_path: Path) -> None:
    (tmp_path / "job.json").write_text(json.dumps(JOB | {"incumbent": "/adapters/old"}))
    job = jobdir.read(tmp_path)
    assert job.facts == tmp_path / "facts.jsonl"
    assert job.incumbent == Path("/adapters/old")
    assert (job.anchor, job.fresh, job.halvings, job.neighbours) == (None, False, 0, "encoder")


@pytest.mark.parametrize(
    "change", [{"name": "../x"}, {"name": ""}, {"name": None}, {"seed": "x"}, {"facts": None}]
)
def test_a_job_of_the_wrong_kind_is_refused(tmp_path: Path, change: dict[str, object]) -> None:
    (tmp_path / "job.json").write_text(json.dumps(JOB | change))
    with pytest.raises(BadRequest, match=r"job\.json"):
        jobdir.read(tmp_path)


@pytest.mark.parametrize(
    "name", ["id", "name", "preset", "base", "base_fingerprint", "facts", "probes", "seed", "epoch"]
)
def test_what_has_no_default_must_be_there(tmp_path: Path, name: str) -> None:
    (tmp_path / "job.json").write_text(json.dumps({key: v for key, v in JOB.items() if key != name}))
    with pytest.raises(BadRequest):
        jobdir.read(tmp_path)


def test_progress_is_written_at_every_change_of_phase_and_at_the_end(tmp_path: Path) -> None:
    seen: list[tuple[str, int]] = []
    progress = jobdir.ProgressWriter(tmp_path, shown=lambda said: seen.append((said["phase"], said["step"])))
    for step in range(6):
        progress("building", step, 5)
    progress("training", 1, 4, 0.5, rows_each=8)
    assert seen[0] == ("building", 0)
    assert ("building", 5) in seen
    assert seen[-1] == ("training", 1)
    said = json.loads((tmp_path / "progress.json").read_text())
    assert said.keys() == {"phase", "step", "total", "loss", "rows_per_s", "remaining_s", "time"}
    assert (said["phase"], said["total"], said["loss"]) == ("training", 4, 0.5)
    assert [path.name for path in tmp_path.iterdir()] == ["progress.json"]


def test_a_silent_process_writes_no_progress(tmp_path: Path) -> None:
    jobdir.ProgressWriter(tmp_path, silent=True)("building", 5, 5)
    assert list(tmp_path.iterdir()) == []
