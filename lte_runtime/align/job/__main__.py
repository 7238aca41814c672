"""One alignment job, `python -m lte_runtime.align.job JOBDIR`: builds data, trains, judges, writes a result.

A process of its own, so that it may crash, hang or run out of memory without a question noticing. Started
again on the same directory it goes on from where it was. It writes `result.json` last; its exit status is 0
whenever there is a result, be it a failure. Run under torchrun it trains in all processes; a preset for
several starts them itself.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path

from lte_runtime.align import contract, presets
from lte_runtime.align.job.reporting import Signals
from lte_runtime.errors import BadRequest, Cancelled

_PR_SET_PDEATHSIG = 1


def _processes(job_dir: Path) -> int:
    """How many processes this one has to start: none where torchrun did, or where one is enough."""
    if "WORLD_SIZE" in os.environ:
        return 1
    try:
        job = contract.read_job(job_dir)
        return presets.adjusted(presets.preset(job.preset), job.changes).processes
    except BadRequest:
        return 1  # the one process writes the failure


def _launch(job_dir: Path, processes: int, signals: Signals) -> None:
    """Runs the job under torchrun and hands on the signal to stop."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += [f"--nproc-per-node={processes}", "-m", "lte_runtime.align.job", str(job_dir)]
    # torchrun ends its processes when it is asked to: none of them outlives this one.
    child = subprocess.Popen(command, preexec_fn=partial(_end_with_parent, signal.SIGTERM))
    terminated = False
    while child.poll() is None:
        if signals.cancelled and not terminated:
            child.terminate()
            terminated = True
        time.sleep(0.2)
    if not (job_dir / contract.RESULT).exists():
        from lte_runtime.align.job import work

        error: Exception = Cancelled("")
        if not terminated:
            error = RuntimeError(f"the training processes ended with status {child.returncode} and no result")
        contract.write_result(job_dir, work.ended(error))


def _end_with_parent(number: int) -> None:
    """Asks the kernel for the signal when the parent dies, however it dies."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number)


def _work(job_dir: Path, signals: Signals) -> None:
    """The job in this process, which may be one of several."""
    # oneDNN keeps a kernel with its memory for every shape it meets, and rows come in hundreds of shapes.
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "32")
    import torch
    import torch.distributed as dist

    from lte_runtime.align.job import work

    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        _end_with_parent(signal.SIGKILL)
        gpu = torch.cuda.is_available()
        if gpu:
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        # The others wait while the first one builds the data.
        dist.init_process_group("nccl" if gpu else "gloo", timeout=timedelta(hours=12))
    else:
        torch.set_num_threads(1)
    try:
        work.run(job_dir, signals)
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def main(arguments: Sequence[str]) -> int:
    """The exit status: 0 where `result.json` was written."""
    if len(arguments) != 1 or arguments[0].startswith("-"):
        print("usage: python -m lte_runtime.align.job JOBDIR", file=sys.stderr)
        return 2
    job_dir, signals = Path(arguments[0]).absolute(), Signals()

    def stop(_number: int, _frame: object) -> None:
        signals.cancelled = True

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    if os.environ.get("RANK", "0") == "0":
        (job_dir / contract.RESULT).unlink(missing_ok=True)
    processes = _processes(job_dir)
    if processes > 1:
        _launch(job_dir, processes, signals)
    else:
        _work(job_dir, signals)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
