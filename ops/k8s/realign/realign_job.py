"""Runs an alignment in a Kubernetes Job: `realign.command` of a daemon in a pod. Needs Python alone.

    python realign_job.py JOBDIR --shared /var/lib/lte-shared

JOBDIR is copied to SHARED/jobs, a volume that the Job mounts too. The Job is made from the CronJob
`lte-realign`, which is a template only, with the directory's path as its last argument. Progress is copied
back while it runs, adapter and result at its end, the result last. SIGTERM, or a file `cancel` in JOBDIR,
removes the Job. The directory of a run that failed stays on the volume.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import socket
import ssl
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from uuid import uuid4

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
# The alignment's own names, declared in lte_runtime/align/contract.py, and what the daemon keeps beside them.
JOB, PROGRESS, RESULT, CANCEL, ADAPTER = "job.json", "progress.json", "result.json", "cancel", "adapter"
NOT_COPIED = ("log.txt", "child.json", CANCEL, PROGRESS, RESULT)
POLL_S = 2.0
REQUEST_S = 30.0


class ApiError(Exception):
    """What the API server answered, or why it could not be asked; `code` 0 for the latter."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(f"{code or 'no answer'}: {message[:500]}")
        self.code = code


class Api:
    """The batch API of the pod's namespace, as its service account. Raises `ApiError`."""

    def __init__(self, address: str, account: Path) -> None:
        self._account = account
        namespace = (account / "namespace").read_text("utf-8").strip()
        self._root = f"{address}/apis/batch/v1/namespaces/{namespace}"
        secure = address.startswith("https:")
        self._tls = ssl.create_default_context(cafile=str(account / "ca.crt")) if secure else None

    def template(self, name: str) -> dict[str, Any]:
        """The `jobTemplate` of a CronJob."""
        spec: dict[str, Any] = self._call("GET", f"cronjobs/{name}")["spec"]["jobTemplate"]
        return spec

    def create(self, job: dict[str, Any]) -> None:
        self._call("POST", "jobs", job)

    def job(self, name: str) -> dict[str, Any]:
        return self._call("GET", f"jobs/{name}")

    def delete(self, name: str) -> None:
        """With its pods; harmless when it is gone."""
        try:
            self._call("DELETE", f"jobs/{name}", {"propagationPolicy": "Background"})
        except ApiError as error:
            if error.code != 404:
                raise

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        token = (self._account / "token").read_text("utf-8").strip()  # it is renewed while the pod lives
        request = urllib.request.Request(
            f"{self._root}/{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=REQUEST_S, context=self._tls) as answer:
                content: dict[str, Any] = json.load(answer)
                return content
        except urllib.error.HTTPError as error:
            raise ApiError(error.code, error.read().decode("utf-8", "replace")) from error
        except OSError as error:
            raise ApiError(0, str(error)) from error


def copy_out(job_dir: Path, shared: Path) -> None:
    """The job's directory on the shared volume, with the incumbent adapter, which may lie elsewhere."""
    shutil.rmtree(shared, ignore_errors=True)
    shutil.copytree(job_dir, shared, ignore=shutil.ignore_patterns(*NOT_COPIED))
    job = json.loads((shared / JOB).read_text("utf-8"))
    incumbent = job.get("incumbent")
    if incumbent and Path(incumbent).is_absolute():
        shutil.copytree(incumbent, shared / "incumbent", dirs_exist_ok=True)
        write(shared / JOB, json.dumps(job | {"incumbent": "incumbent"}).encode())


def copy_back(shared: Path, job_dir: Path, names: Iterable[str]) -> None:
    """Files and folders that are there, each whole before it appears."""
    for name in names:
        source = shared / name
        if source.is_dir():
            scratch = job_dir / f"{name}.part"
            shutil.rmtree(scratch, ignore_errors=True)
            shutil.copytree(source, scratch)
            shutil.rmtree(job_dir / name, ignore_errors=True)
            scratch.rename(job_dir / name)
        elif source.is_file():
            write(job_dir / name, source.read_bytes())


def write(path: Path, content: bytes) -> None:
    """By rename, readable for the daemon's user."""
    scratch = path.with_name(f"{path.name}.part")
    scratch.write_bytes(content)
    scratch.replace(path)


def job_of(template: dict[str, Any], name: str, shared: Path) -> dict[str, Any]:
    """A Job over a directory."""
    spec = template["spec"]
    spec["template"]["spec"]["containers"][0]["args"] = [str(shared)]
    labels = {**template.get("metadata", {}).get("labels", {}), "app.kubernetes.io/component": "realign"}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "labels": labels},
        "spec": spec,
    }


def failure(job: dict[str, Any]) -> str:
    """Why a Job has failed for good; empty while it has not."""
    for condition in job.get("status", {}).get("conditions") or ():
        if condition["type"] == "Failed" and condition["status"] == "True":
            return f"the Job failed: {condition.get('reason')}: {condition.get('message')}"
    return ""


def follow(api: Api, name: str, shared: Path, job_dir: Path) -> str:
    """Wait for the result and copy it back; returns why there is none, empty when there is."""
    while not (job_dir / CANCEL).exists():
        copy_back(shared, job_dir, [PROGRESS])
        if (shared / RESULT).exists():
            copy_back(shared, job_dir, [ADAPTER, PROGRESS, RESULT])
            return ""
        try:
            fault = failure(api.job(name))
        except ApiError as error:
            if error.code == 404:
                return f"the Job {name} is gone"
            print(f"the API server does not say how {name} is: {error}", flush=True)
            fault = ""
        # The result may have been written between the look at it and the Job's end.
        if fault and not (shared / RESULT).exists():
            return fault
        time.sleep(POLL_S)
    return "cancelled"


def run(api: Api, template: str, job_dir: Path, root: Path) -> str:
    """One alignment; returns why it has no result, empty when it has one."""
    jobs = root / "jobs"
    jobs.mkdir(parents=True, exist_ok=True)
    # A daemon that was killed could not remove its Job: the next run in its pod does.
    leftover = jobs / f"{socket.gethostname()}.job"
    if leftover.exists():
        api.delete(leftover.read_text("utf-8").strip())
    shared = jobs / job_dir.name
    copy_out(job_dir, shared)
    name = f"{template}-{uuid4().hex[:10]}"
    job = job_of(api.template(template), name, shared)
    write(leftover, name.encode())
    try:
        api.create(job)
        print(f"made the Job {name} over {shared}", flush=True)
        fault = follow(api, name, shared, job_dir)
    except BaseException:
        api.delete(name)
        raise
    if fault:
        api.delete(name)
        return f"{fault}; its directory is {shared}, its log `kubectl logs job/{name}` while the Job is there"
    leftover.unlink()
    shutil.rmtree(shared, ignore_errors=True)
    return ""


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description="Run an alignment in a Kubernetes Job.")
    parser.add_argument("job_dir", type=Path, metavar="JOBDIR")
    parser.add_argument(
        "--shared", type=Path, required=True, help="mount point of the volume that the Job has too"
    )
    parser.add_argument("--template", default="lte-realign", help="the CronJob that holds the Job's template")
    parser.add_argument("--api", default="https://kubernetes.default.svc", help="the API server")
    parser.add_argument(
        "--account", type=Path, default=ACCOUNT, help="folder with token, ca.crt and namespace"
    )
    chosen = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    os.umask(0o077)
    try:
        fault = run(
            Api(chosen.api, chosen.account), chosen.template, chosen.job_dir.absolute(), chosen.shared
        )
    except (ApiError, OSError, KeyError, ValueError) as error:
        fault = f"{type(error).__name__}: {error}"
    if fault:
        print(f"no result: {fault}", file=sys.stderr, flush=True)
    return 1 if fault else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
