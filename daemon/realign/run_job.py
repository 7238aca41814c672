"""From a job directory to its result: the job is started, followed, and ended where it must not go on."""

from __future__ import annotations

import time

import structlog

from daemon.realign.parts import RunEnded
from daemon.realign.records import RunRecords
from daemon.realign.runner import Runner, RunningJob
from daemon.realign.signals import RunSignals
from lte_runtime.align import contract
from lte_runtime.align.contract import JobResult, JobSpec
from lte_runtime.align.runs import RunState

log = structlog.get_logger(__name__)

POLL_S = 0.2
OUT_OF_MEMORY = "out_of_memory"
# Characters of a job's own message in a run's record.
MAX_MESSAGE = 500


def run_job(
    job: JobSpec, runner: Runner, runs: RunRecords, signals: RunSignals, deadline_s: float
) -> JobResult:
    """The result of a job that was done; started once more with half the batch when memory did not suffice.

    Raises `RunEnded` for a job that failed, was cancelled or had not finished in time.
    """
    deadline = time.monotonic() + deadline_s
    result = _attempt(job, runner, runs, signals, deadline)
    if result.error is not None and result.error.kind == OUT_OF_MEMORY:
        log.warning("realign_out_of_memory", run=job.id, message=_failure_text(result))
        if runs.get(job.id).state is RunState.JUDGING:
            runs.move(job.id, RunState.TRAINING)
        runs.update(job.id, attempt=2)
        result = _attempt(contract.halve(job), runner, runs, signals, deadline)
    if result.status == contract.CANCELLED:
        raise RunEnded(RunState.CANCELLED, "cancelled")
    if result.status != contract.DONE:
        raise RunEnded(RunState.FAILED, _failure_text(result))
    return result


def _attempt(
    job: JobSpec, runner: Runner, runs: RunRecords, signals: RunSignals, deadline: float
) -> JobResult:
    running = runner.start(job.job_dir)
    try:
        end = _follow(job, running, runs, signals, deadline)
    finally:
        running.close()
    if end is not None:
        raise end
    return contract.read_result(job.job_dir) or _without_result(running)


def _follow(
    job: JobSpec, running: RunningJob, runs: RunRecords, signals: RunSignals, deadline: float
) -> RunEnded | None:
    """Wait until the job is over; the reason, if it was made to end."""
    end: RunEnded | None = None
    while not running.over():
        end = end or signals.reason_to_end(job.id) or _too_late(job, deadline)
        if end is not None:
            running.cancel()
        if signals.kill_now:
            running.kill()
        runs.show_progress(job.id, contract.read_progress(job.job_dir))
        signals.wait(POLL_S)
    return end


def _too_late(job: JobSpec, deadline: float) -> RunEnded | None:
    if time.monotonic() < deadline:
        return None
    return RunEnded(RunState.FAILED, f"not finished within {job.deadline_s:.0f} s")


def _without_result(running: RunningJob) -> JobResult:
    """What the end of a child amounts to that wrote no result."""
    code = running.code
    if code is not None and code < 0 and not running.killed:
        # Nobody here killed it: on a machine short of memory that is the kernel's way.
        kind = OUT_OF_MEMORY if code == -9 else "other"
        return JobResult.failed(kind, f"ended by signal {-code} without a result")
    return JobResult.failed("other", f"ended with status {code} and without a result")


def _failure_text(result: JobResult) -> str:
    error = result.error or contract.JobError()
    return f"{error.kind}: {error.message[:MAX_MESSAGE]}"
