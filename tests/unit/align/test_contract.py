"""The contract of jobs: what is read, what is refused, and what comes back as it was written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lte_runtime.align import contract
from lte_runtime.align.contract import JobError, JobResult, JobSpec, Probe, Progress
from lte_runtime.align.job.reporting import ProgressWriter
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
    job = contract.read_job(tmp_path)
    assert job.facts == tmp_path / "facts.jsonl"
    assert job.incumbent == Path("/adapters/old")
    assert (job.anchor, job.fresh, job.halvings, job.neighbours) == (None, False, 0, "encoder")


@pytest.mark.parametrize(
    "change", [{"name": "../x"}, {"name": ""}, {"name": None}, {"seed": "x"}, {"facts": None}]
)
def test_a_job_of_the_wrong_kind_is_refused(tmp_path: Path, change: dict[str, object]) -> None:
    (tmp_path / "job.json").write_text(json.dumps(JOB | change))
    with pytest.raises(BadRequest, match=r"job\.json"):
        contract.read_job(tmp_path)


@pytest.mark.parametrize(
    "name", ["id", "name", "preset", "base", "base_fingerprint", "facts", "probes", "seed", "epoch"]
)
def test_what_has_no_default_must_be_there(tmp_path: Path, name: str) -> None:
    (tmp_path / "job.json").write_text(json.dumps({key: v for key, v in JOB.items() if key != name}))
    with pytest.raises(BadRequest):
        contract.read_job(tmp_path)


def test_progress_is_written_at_every_change_of_phase_and_at_the_end(tmp_path: Path) -> None:
    seen: list[tuple[str, int]] = []
    progress = ProgressWriter(tmp_path, shown=lambda now: seen.append((now.phase, now.step)))
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
    ProgressWriter(tmp_path, silent=True)("building", 5, 5)
    assert list(tmp_path.iterdir()) == []


def test_probes_are_read_and_refused_with_their_line(tmp_path: Path) -> None:
    path = tmp_path / "probes.jsonl"
    good = {"id": "a", "kind": "general", "question": "Why?", "facts": [], "answers": None}
    path.write_text(json.dumps(good) + "\n")
    assert contract.read_probes(path) == (Probe("a", "general", "Why?", (), None),)
    path.write_text(json.dumps(good) + "\n" + json.dumps({"id": "b"}) + "\n")
    with pytest.raises(BadRequest, match="line 2"):
        contract.read_probes(path)


def test_a_job_comes_back_as_it_was_written(tmp_path: Path) -> None:
    job_dir = tmp_path / "here"
    job_dir.mkdir()
    job = JobSpec.from_json(job_dir, JOB | {"anchor": "anchor.jsonl", "incumbent": "/adapters/old"})
    probes = [Probe("a", "general", "Why?", ("A fact.",), None), Probe("b", "safety", "Who?", (), ("Ann",))]
    contract.write_job(job, [{"edit_id": "e1"}], probes, [{"edit_id": "e2"}])
    assert contract.read_job(job_dir) == job
    assert list(contract.read_probes(job.probes)) == probes
    assert (job_dir / "anchor.jsonl").read_text() == '{"edit_id": "e2"}\n'
    written = json.loads((job_dir / "job.json").read_text())
    assert (written["facts"], written["incumbent"]) == ("facts.jsonl", "/adapters/old")
    elsewhere = job_dir.rename(tmp_path / "elsewhere")
    assert contract.read_job(elsewhere).facts == elsewhere / "facts.jsonl"


def test_a_halved_job_has_no_result_yet(tmp_path: Path) -> None:
    job = JobSpec.from_json(tmp_path, JOB)
    contract.write_job(job, (), (), ())
    contract.write_result(tmp_path, JobResult.failed("out_of_memory", "no room"))
    assert contract.halve(job).halvings == contract.read_job(tmp_path).halvings == 1
    assert contract.read_result(tmp_path) is None


@pytest.mark.parametrize(
    "result",
    [
        JobResult("done", "adapter", "h", {**contract.NO_JUDGEMENTS, "none": {"a": 1}}, 7, "d", 3, 0.5, 1.0),
        JobResult("cancelled", seconds=2.0),
        JobResult("failed", seconds=3.0, error=JobError("data", "no facts")),
    ],
)
def test_a_result_comes_back_as_it_was_written(tmp_path: Path, result: JobResult) -> None:
    contract.write_result(tmp_path, result)
    assert contract.read_result(tmp_path) == result


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("[]", JobResult.failed("other", "result.json is no JSON object")),
        ("{", JobResult.failed("other", "result.json is no JSON object")),
        ('{"status": "perhaps"}', JobResult("failed", error=JobError())),
        ('{"status": "failed", "error": {"kind": 3}}', JobResult("failed", error=JobError("3"))),
        ('{"status": "done", "judged": {"none": 1}, "rows": -1, "adapter_hash": []}', JobResult("done")),
        ('{"status": "done", "judged": [], "loss": NaN, "data_hash": 5}', JobResult("done")),
    ],
)
def test_a_result_of_the_wrong_kind_is_a_failure_or_holds_nothing(
    tmp_path: Path, text: str, result: JobResult
) -> None:
    (tmp_path / "result.json").write_text(text)
    assert contract.read_result(tmp_path) == result


def test_progress_of_the_wrong_kind_is_none(tmp_path: Path) -> None:
    contract.write_progress(tmp_path, Progress("training", 1, 2, 0.5))
    assert contract.read_progress(tmp_path) == Progress("training", 1, 2, 0.5)
    (tmp_path / "progress.json").write_text('{"step": "x"}')
    assert contract.read_progress(tmp_path) is None
