"""Alignment in a Kubernetes Job, run by the daemon's own runner against an API server that keeps Jobs as
Kubernetes does: it makes a process of each one's container."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from daemon.realign.runner import LOG, Runner, RunnerSettings, RunningJob
from lte_runtime.align import contract
from lte_runtime.align.contract import ADAPTER, JobSpec, Probe, read_progress, read_result

PROGRAM = Path(__file__).resolve().parents[3] / "ops/k8s/realign/realign_job.py"
GUARD_S = 120.0
TOKEN = "a-token"


class Cluster:
    """Jobs by name, each with its process; `template` is what the CronJob holds."""

    def __init__(self) -> None:
        container = {"name": "align", "command": [sys.executable, "-m", "lte_runtime.align.stub_job"]}
        self.template: dict[str, Any] | None = {
            "spec": {"backoffLimit": 0, "template": {"spec": {"containers": [container]}}}
        }
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.deleted: list[str] = []
        self.refused = False

    def create(self, job: dict[str, Any]) -> None:
        (container,) = job["spec"]["template"]["spec"]["containers"]
        command = [*container["command"], *container["args"]]
        self.processes[job["metadata"]["name"]] = subprocess.Popen(command)

    def status(self, name: str) -> dict[str, Any]:
        code = self.processes[name].poll()
        failed = {"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded", "message": str(code)}
        return {"status": {"conditions": [failed] if code else []}}

    def delete(self, name: str) -> None:
        process = self.processes.pop(name)
        process.kill()
        process.wait()
        self.deleted.append(name)


class Handler(BaseHTTPRequestHandler):
    cluster: Cluster

    def do_GET(self) -> None:
        kind, name = self._place()
        if kind == "cronjobs" and self.cluster.template is not None:
            self._answer({"spec": {"jobTemplate": self.cluster.template}} if name == "lte-realign" else None)
        else:
            self._answer(self.cluster.status(name) if name in self.cluster.processes else None)

    def do_POST(self) -> None:
        self._place()
        job = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.cluster.refused:
            self._answer({"message": "jobs.batch is forbidden"}, 403)
            return
        self.cluster.create(job)
        self._answer(job, 201)

    def do_DELETE(self) -> None:
        _, name = self._place()
        if name in self.cluster.processes:
            self.cluster.delete(name)
            self._answer({})
        else:
            self._answer(None)

    def _place(self) -> tuple[str, str]:
        assert self.headers["Authorization"] == f"Bearer {TOKEN}"
        kind, _, name = self.path.removeprefix("/apis/batch/v1/namespaces/facts/").partition("/")
        return kind, name

    def _answer(self, content: dict[str, Any] | None, code: int = 200) -> None:
        self.send_response(404 if content is None else code)
        self.end_headers()
        self.wfile.write(json.dumps(content or {}).encode())

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    cluster = Cluster()
    yield cluster
    for name in list(cluster.processes):
        cluster.delete(name)


@pytest.fixture
def start(cluster: Cluster, tmp_path: Path) -> Iterator[Callable[..., RunningJob]]:
    handler = type("Bound", (Handler,), {"cluster": cluster})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    account = tmp_path / "account"
    account.mkdir()
    (account / "token").write_text(TOKEN)
    (account / "namespace").write_text("facts")
    command = (
        f"{sys.executable} {PROGRAM} {{jobdir}} --shared {tmp_path / 'shared'} "
        f"--api http://127.0.0.1:{server.server_port} --account {account}"
    )

    def run(behaviour: str = "promote", **values: object) -> RunningJob:
        job_dir = tmp_path / "run-1"
        job_dir.mkdir(exist_ok=True)
        job = {"id": "run-1", "name": "align-000002", "preset": f"stub:{behaviour}", "seed": 1, "epoch": 0}
        files = {"base": "stub", "base_fingerprint": "b", "facts": "facts.jsonl", "probes": "probes.jsonl"}
        probe = Probe("p1", "edit_success", "Who?", (), ("Ann",))
        spec = JobSpec.from_json(job_dir, job | files | values)
        contract.write_job(spec, [{"edit_id": "e1"}], [probe], ())
        return Runner(RunnerSettings(command=command, kill_after_s=20)).start(job_dir)

    yield run
    server.shutdown()
    thread.join()
    server.server_close()


def until(condition: Callable[[], object], job: RunningJob) -> None:
    deadline = time.monotonic() + GUARD_S
    while not condition():
        assert time.monotonic() < deadline, "the job does not get there"
        assert job.code is None
        time.sleep(0.05)


def finished(job: RunningJob, *, cancel: bool = False) -> None:
    deadline = time.monotonic() + GUARD_S
    while not job.over():
        assert time.monotonic() < deadline, "the job does not end"
        if cancel:
            job.cancel()
        time.sleep(0.05)
    job.close()


def test_the_result_comes_back_with_its_adapter(
    start: Callable[..., RunningJob], cluster: Cluster, tmp_path: Path
) -> None:
    incumbent = tmp_path / "incumbent"
    incumbent.mkdir()
    (incumbent / "weights").write_text("w")
    finished(start(incumbent=str(incumbent)))
    result, progress = read_result(tmp_path / "run-1"), read_progress(tmp_path / "run-1")
    assert result is not None
    assert result.status == "done"
    assert progress is not None
    assert progress.phase == "judging"
    assert any((tmp_path / "run-1" / ADAPTER).iterdir())
    (name,) = cluster.processes
    assert name.startswith("lte-realign-")
    assert list((tmp_path / "shared" / "jobs").iterdir()) == []


def test_a_job_reads_the_incumbent_on_the_shared_volume(
    start: Callable[..., RunningJob], tmp_path: Path
) -> None:
    incumbent = tmp_path / "incumbent"
    incumbent.mkdir()
    (incumbent / "weights").write_text("w")
    finished(start("crash", incumbent=str(incumbent)))
    shared = tmp_path / "shared" / "jobs" / "run-1"
    assert contract.read_job(shared).incumbent == shared / "incumbent"
    assert (shared / "incumbent" / "weights").read_text() == "w"


def test_a_failed_job_ends_the_run_with_its_reason(
    start: Callable[..., RunningJob], cluster: Cluster, tmp_path: Path
) -> None:
    job = start("crash")
    finished(job)
    assert job.code == 1
    assert read_result(tmp_path / "run-1") is None
    assert "the Job failed: BackoffLimitExceeded" in (tmp_path / "run-1" / LOG).read_text()
    assert len(cluster.deleted) == 1


def test_cancelling_removes_the_job(
    start: Callable[..., RunningJob], cluster: Cluster, tmp_path: Path
) -> None:
    job = start("slow")
    until(lambda: read_progress(tmp_path / "run-1"), job)
    finished(job, cancel=True)
    assert (len(cluster.deleted), cluster.processes) == (1, {})


def test_a_job_that_a_killed_daemon_left_is_removed_first(
    start: Callable[..., RunningJob], cluster: Cluster
) -> None:
    first = start("slow")
    until(lambda: cluster.processes, first)
    (left,) = cluster.processes
    first.kill()
    first.close()
    finished(start("promote"))
    assert cluster.deleted == [left]


@pytest.mark.parametrize("fault", ["refused", "no template"])
def test_what_the_api_refuses_is_said(
    start: Callable[..., RunningJob], cluster: Cluster, tmp_path: Path, fault: str
) -> None:
    if fault == "refused":
        cluster.refused = True
    else:
        cluster.template = None
    job = start()
    finished(job)
    assert job.code == 1
    assert ("403" if fault == "refused" else "404") in (tmp_path / "run-1" / LOG).read_text()
