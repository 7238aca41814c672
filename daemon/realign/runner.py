"""Runs an alignment job over its directory: as a child process, or by a command that brings it elsewhere.

Contract of both (one suite in tests/unit/daemon/realign/test_runner.py runs on both): the job is over when
`result.json` stands in the directory, or when the process has ended without one in a way that promises none.
Nothing that a job writes or does reaches the daemon but through that file and `progress.json`.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import lte_runtime
from lte_runtime.align import contract
from lte_runtime.errors import BadRequest

LOG, CHILD = "log.txt", "child.json"
# What the child needs to find its libraries and its devices; nothing else of the daemon's environment.
INHERITED_NAMES = frozenset(
    {
        "PATH", "HOME", "USER", "LANG", "LC_ALL", "TMPDIR", "TZ", "LD_LIBRARY_PATH", "VIRTUAL_ENV",
        "CUDA_HOME", "CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES", "HF_HOME", "XDG_CACHE_HOME",
    }
)  # fmt: skip

# Largest file that a child may write: far above an adapter with its optimiser, and a fault in a loop still
# leaves room on the disk.
MAX_FILE_BYTES = 8 << 30


@dataclass(frozen=True, slots=True)
class RunnerSettings:
    """`command` None: the child process of this machine. `threads` 0 leaves the choice to the libraries."""

    command: str | None = None
    module: str = "lte_runtime.align.job"
    nice: int = 10
    threads: int = 0
    max_file_bytes: int = MAX_FILE_BYTES
    kill_after_s: float = 10.0


class Runner:
    """Starts jobs. A job's process dies with the thread that started it, whatever kills that."""

    def __init__(self, settings: RunnerSettings) -> None:
        self._settings = settings
        if settings.command is not None:
            _argv(settings.command, Path("JOBDIR"))

    def start(self, job_dir: Path) -> RunningJob:
        """Raises OSError when the program cannot be started."""
        job_dir = job_dir.absolute()  # The program works in it, where a relative path leads nowhere.
        chosen = self._settings
        if chosen.command is None:
            argv = [sys.executable, "-m", chosen.module, str(job_dir)]
        else:
            argv = _argv(chosen.command, job_dir)
        bound = [sys.executable, "-m", "daemon.realign.launch", str(os.getpid())]
        limits = [str(chosen.nice), str(chosen.max_file_bytes)]
        with (job_dir / LOG).open("ab") as log:
            process = subprocess.Popen(
                [*bound, *limits, *argv],
                cwd=job_dir,
                env=environment(os.environ, chosen.threads),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                close_fds=True,
            )
        note = {"pid": process.pid, "started": started_at(process.pid)}
        contract.write_json(job_dir / CHILD, note)
        return RunningJob(job_dir, process, chosen.kill_after_s, remote=chosen.command is not None)


class RunningJob:
    """A job under way. `remote`: a command may end well before its job, as `sbatch` does."""

    def __init__(
        self, job_dir: Path, process: subprocess.Popen[bytes], kill_after_s: float, *, remote: bool
    ) -> None:
        self._job_dir, self._process = job_dir, process
        self._kill_after_s, self._remote = kill_after_s, remote
        self._cancelled_at: float | None = None
        self._result_at: float | None = None
        self.killed = False

    def over(self) -> bool:
        """Whether there is nothing more to wait for; a process that outlives its result is ended."""
        code = self._process.poll()
        if (self._job_dir / contract.RESULT).exists():
            return code is not None or self._lingers()
        if self._remote and code == 0:
            return self.killed
        return code is not None

    def _lingers(self) -> bool:
        """Still there with its result written: told to end after a while. Never over while it can write."""
        now = time.monotonic()
        if self._result_at is None:
            self._result_at = now
        elif now - self._result_at >= self._kill_after_s:
            self.cancel()
        return False

    def cancel(self) -> None:
        """Asks once, kills the whole group when that had its time; to be called until `over`."""
        now = time.monotonic()
        if self._cancelled_at is None:
            self._cancelled_at = now
            (self._job_dir / contract.CANCEL).touch()
            self._signal(signal.SIGTERM)
        elif now - self._cancelled_at >= self._kill_after_s:
            self.kill()

    def kill(self) -> None:
        """SIGKILL to everything in the job's process group."""
        self.killed = True
        self._signal(signal.SIGKILL)

    def close(self) -> None:
        """Leave nothing of the group behind, and no zombie."""
        self._signal(signal.SIGKILL)
        self._process.wait()

    @property
    def code(self) -> int | None:
        """Exit status, negative for a signal; None while it runs."""
        return self._process.poll()

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)


def environment(environ: Mapping[str, str], threads: int = 0) -> dict[str, str]:
    """A child's environment: no settings, no secrets, no hub, and the daemon's own code."""
    inherited = {name: value for name, value in environ.items() if name in INHERITED_NAMES}
    mine = {
        "PYTHONPATH": str(Path(str(lte_runtime.__file__)).parents[1]),
        "PYTHONUNBUFFERED": "1",
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    if threads:
        mine |= {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    return {**inherited, **mine}


def _argv(template: str, job_dir: Path) -> list[str]:
    """The template's words with {jobdir} filled in; no shell reads them. Raises `BadRequest`."""
    try:
        words = shlex.split(template)
    except ValueError as error:
        raise BadRequest(f"realign.command: {error}") from None
    if not words or not any("{jobdir}" in word for word in words):
        raise BadRequest("realign.command must name {jobdir}")
    return [word.replace("{jobdir}", str(job_dir)) for word in words]


def started_at(pid: int) -> str:
    """When a process started, in the kernel's ticks, so that a pid that was used again is noticed."""
    try:
        return Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()[19]
    except OSError:
        return ""


def end_leftover(job_dir: Path, wait: Callable[[float], None] = time.sleep) -> bool:
    """Kill the process group of a job that an earlier daemon started; whether there was one.

    The kernel ends the child with the daemon; this is for what the child itself had started.
    """
    note = contract.read_json(job_dir / CHILD)
    pid = note.get("pid") if note else None
    if not isinstance(pid, int) or pid <= 1 or not _group_of(pid):
        return False
    started = started_at(pid)
    if started and started != (note or {}).get("started"):
        return False
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
        wait(0.05)
    return True


def _group_of(pid: int) -> Sequence[int]:
    """Processes of the session that began with `pid`; what is dead and not yet collected does not count."""
    pids = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = path.read_text("ascii", "replace").rpartition(")")[2].split()
            if int(fields[3]) == pid and fields[0] != "Z":
                pids.append(int(path.parent.name))
    return pids
