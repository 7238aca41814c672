"""One contract for both runners: the child process of this machine, and a command over the job directory."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from daemon.realign.runner import (
    Runner,
    RunnerSettings,
    RunningJob,
    end_leftover,
    environment,
    started_at,
)
from lte_runtime.align import contract
from lte_runtime.align.contract import RESULT, JobResult, JobSpec, Probe, read_progress, read_result
from lte_runtime.errors import BadRequest

GUARD_S = 60.0
STUB = "lte_runtime.align.stub_job"
Start = Callable[..., RunningJob]


@pytest.fixture(params=["local", "command"])
def start(request: pytest.FixtureRequest, tmp_path: Path) -> Start:
    """Starts the stub's job with a behaviour, by the runner of the parameter."""

    def make(behaviour: str = "promote", job_dir: Path = tmp_path, **more: Any) -> RunningJob:
        command = f"{sys.executable} -m {STUB} {{jobdir}}" if request.param == "command" else None
        settings = RunnerSettings(command=command, module=STUB, kill_after_s=0.2, **more)
        write_job(tmp_path, behaviour)
        return Runner(settings).start(job_dir)

    return make


def write_job(job_dir: Path, behaviour: str) -> None:
    job = {"id": "run-1", "name": "align-000002", "preset": f"stub:{behaviour}", "seed": 1, "epoch": 0}
    files = {"base": "stub", "base_fingerprint": "b", "facts": "facts.jsonl", "probes": "probes.jsonl"}
    probe = Probe("p1", "edit_success", "Who?", (), ("Ann",))
    contract.write_job(JobSpec.from_json(job_dir, job | files), [{"edit_id": "e1"}], [probe], ())


def status(job_dir: Path) -> str:
    result = read_result(job_dir)
    return result.status if result else ""


def finished(job: RunningJob, *, cancel: bool = False) -> None:
    deadline = time.monotonic() + GUARD_S
    while not job.over():
        assert time.monotonic() < deadline, "the job does not end"
        if cancel:
            job.cancel()
        time.sleep(0.02)
    job.close()


def started(job: RunningJob, jobdir: Path) -> None:
    """The job says that it is under way."""
    deadline = time.monotonic() + GUARD_S
    while read_progress(jobdir) is None:
        assert time.monotonic() < deadline, "the job does not start"
        assert job.code is None
        time.sleep(0.02)


def alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False


def test_a_job_finds_a_directory_given_by_a_relative_path(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path.parent)
    finished(start(job_dir=Path(tmp_path.name)))
    result = read_result(tmp_path)
    assert result is not None
    assert result.status == "done"


def test_a_job_ends_in_its_result(start: Start, tmp_path: Path) -> None:
    job = start()
    finished(job)
    assert status(tmp_path) == "done"
    now = read_progress(tmp_path)
    assert now is not None
    assert (now.phase, now.step, now.total) == ("judging", 1, 1)


@pytest.mark.parametrize(("behaviour", "code"), [("crash", 3), ("abort", -6), ("killed", -9)])
def test_an_end_without_a_result_is_over(start: Start, tmp_path: Path, behaviour: str, code: int) -> None:
    job = start(behaviour)
    finished(job)
    assert job.code == code
    assert read_result(tmp_path) is None


def test_garbage_is_no_result_and_no_progress(start: Start, tmp_path: Path) -> None:
    finished(start("garbage"))
    assert read_result(tmp_path) == JobResult.failed("other", "result.json is no JSON object")
    assert read_progress(tmp_path) is None


def test_a_hung_job_is_told_to_end(start: Start, tmp_path: Path) -> None:
    job = start("hang")
    started(job, tmp_path)
    finished(job, cancel=True)
    assert status(tmp_path) == "cancelled"


def test_a_deaf_job_is_killed(start: Start, tmp_path: Path) -> None:
    job = start("deaf")
    started(job, tmp_path)
    finished(job, cancel=True)
    assert job.killed
    assert job.code == -9


def test_what_a_job_started_itself_does_not_outlive_it(start: Start, tmp_path: Path) -> None:
    job = start("orphan")
    started(job, tmp_path)
    grandchild = int((tmp_path / "grandchild").read_text())
    assert alive(grandchild)
    finished(job, cancel=True)
    deadline = time.monotonic() + GUARD_S
    while alive(grandchild):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_file_has_a_limit(start: Start, tmp_path: Path) -> None:
    job = start("floods", max_file_bytes=4 << 20)
    finished(job)
    assert job.code == -25
    assert (tmp_path / "flood").stat().st_size <= 4 << 20


def test_a_command_may_end_before_its_job(tmp_path: Path) -> None:
    """As a scheduler's submit command does: what counts is the result."""
    write_job(tmp_path, "promote")
    job = Runner(RunnerSettings(command="true {jobdir}", kill_after_s=0.2)).start(tmp_path)
    deadline = time.monotonic() + GUARD_S
    while job.code is None:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert not job.over()
    (tmp_path / RESULT).write_text("{}")
    assert job.over()
    job.close()


@pytest.mark.parametrize("template", ["sbatch job.sh", "", "run '{jobdir}"])
def test_a_template_must_be_words_with_the_directory(template: str) -> None:
    with pytest.raises(BadRequest, match=r"realign\.command"):
        Runner(RunnerSettings(command=template))


def test_the_environment_holds_no_settings_and_no_secrets() -> None:
    given = {"PATH": "/bin", "LTE_KAFKA__SECURITY__SASL_PLAIN_PASSWORD": "x", "AWS_SECRET_ACCESS_KEY": "x"}
    found = environment({**given, "CUDA_VISIBLE_DEVICES": "1"}, threads=1)
    assert "x" not in found.values()
    assert (found["PATH"], found["CUDA_VISIBLE_DEVICES"], found["OMP_NUM_THREADS"]) == ("/bin", "1", "1")
    assert found["HF_HUB_OFFLINE"] == found["TRANSFORMERS_OFFLINE"] == "1"


_PARENT = """
import sys, time
from pathlib import Path
from daemon.realign.runner import Runner, RunnerSettings
Runner(RunnerSettings(module="lte_runtime.align.stub_job")).start(Path(sys.argv[1]))
time.sleep(600)
"""


@pytest.mark.parametrize("behaviour", ["deaf", "orphan"])
def test_a_killed_daemon_leaves_no_orphan(tmp_path: Path, behaviour: str) -> None:
    write_job(tmp_path, behaviour)
    parent = subprocess.Popen([sys.executable, "-c", _PARENT, str(tmp_path)])
    deadline = time.monotonic() + GUARD_S
    while read_progress(tmp_path) is None:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    child = json.loads((tmp_path / "child.json").read_text())["pid"]
    assert alive(child)
    parent.kill()
    parent.wait()
    while alive(child):
        assert time.monotonic() < deadline, "the kernel did not end the child"
        time.sleep(0.02)
    left = behaviour == "orphan"
    assert end_leftover(tmp_path) is left
    if left:
        grandchild = int((tmp_path / "grandchild").read_text())
        while alive(grandchild):
            assert time.monotonic() < deadline
            time.sleep(0.02)


def test_another_process_with_the_old_number_is_left_alone(tmp_path: Path) -> None:
    other = subprocess.Popen(["sleep", "60"], start_new_session=True)
    note = {"pid": other.pid, "started": "1"}
    (tmp_path / "child.json").write_text(json.dumps(note))
    assert not end_leftover(tmp_path)
    assert alive(other.pid)
    (tmp_path / "child.json").write_text(json.dumps({**note, "started": started_at(other.pid)}))
    assert end_leftover(tmp_path)
    assert other.wait(GUARD_S) == -9
