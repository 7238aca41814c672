"""Re-alignment: one run at a time, from the facts to a promoted adapter or a reason why not.

A run is a record in the store that moves through its states (`lte_runtime.align.runs`). Whoever asks (drift,
an operator, a record on the control topic) asks here. What a daemon that died left behind is ended and swept
at the next start.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import structlog

from daemon.drift_watch import DriftReport
from daemon.realign import runner
from daemon.realign.accept_result import accept_result
from daemon.realign.build_job import build_job
from daemon.realign.parts import RealignerSettings, RealignParts, RunEnded
from daemon.realign.records import RunRecords
from daemon.realign.run_job import run_job
from daemon.realign.signals import RunSignals
from lte_runtime.align import contract, runs
from lte_runtime.align.runs import Run, RunState, Trigger
from lte_runtime.drift.decide import Situation
from lte_runtime.errors import Fatal, LteError, Refused, Retry
from lte_runtime.types import AdapterRef

log = structlog.get_logger(__name__)

# Below the state directory: one directory for each job.
JOBS = "realign"
# Job directories kept, without weights: what the last run learned from, and two to compare it with.
KEPT_JOBS = 3
# Of a run that promoted nothing these go at once: they are large, and nobody may use them by accident.
SWEPT = (contract.ADAPTER, f".{contract.ADAPTER}.new", contract.CHECKPOINTS, contract.DATA)


class Realigner:
    """Single flight. `run` is the loop of one thread, all else may be called from any."""

    def __init__(self, directory: Path, parts: RealignParts, settings: RealignerSettings) -> None:
        self._directory, self._parts, self._settings = directory, parts, settings
        self.runs = RunRecords(parts.memory, parts.on_change, parts.now)
        self._changed = self.runs.changed
        self._signals = RunSignals(self._changed)
        self._working: str | None = None
        self._halts = 0
        self._requests: list[tuple[Trigger, tuple[str, ...], str]] = []
        self._reported_reasons: frozenset[tuple[str, str]] = frozenset()
        self._end_leftovers()

    def trigger(
        self, trigger: Trigger, reasons: Sequence[str], *, tainted: bool = False, control_id: str = ""
    ) -> Run:
        """Queue a run. Raises `Refused` while one is under way, or when this daemon must not re-align."""
        epoch = self._parts.epoch()
        with self._changed:
            active = self.runs.active()
            if active is not None:
                raise Refused(f"{active.id} is running ({active.state}): re-alignments run one at a time")
            if self._signals.stopping:
                raise Refused("the daemon is stopping")
            number = self.runs.next_number()
            run = Run(
                id=f"run-{number:06d}",
                state=RunState.QUEUED,
                trigger=trigger,
                reasons=tuple(reasons),
                created_ms=self._parts.now(),
                tainted=tainted or self._parts.tainted() > 0,
                epoch=epoch,
                seed=number,
                control_id=control_id,
            )
            return self.runs.save(run)

    def enqueue(self, trigger: Trigger, reasons: Sequence[str], control_id: str) -> None:
        """Queue a run from the thread of the loop, which may ask for the epoch; returns at once."""
        with self._changed:
            self._requests.append((trigger, tuple(reasons), control_id))
            self._changed.notify_all()

    def consider(self, report: DriftReport) -> Run | None:
        """Start a run when the watch on drift says so; None when it does not."""
        self._report_reasons(report)
        if not report.decision.start or self.runs.active() is not None:
            return None
        reasons = [f"{reason.name}: {reason.detail}" for reason in report.decision.reasons]
        tainted = any(reason.kind == "taint" for reason in report.decision.reasons)
        return self.trigger(Trigger.DRIFT, reasons, tainted=tainted)

    def _report_reasons(self, report: DriftReport) -> None:
        """To the audit when other reasons stand than before; the owner speaks for all."""
        now = frozenset((reason.kind, reason.name) for reason in report.decision.reasons)
        if now == self._reported_reasons or not self._parts.owned():
            return
        self._reported_reasons = now
        reasons = {f"{reason.kind} {reason.name}": reason.detail for reason in report.decision.reasons}
        blocks = {block.name: block.detail for block in report.decision.blocks}
        self._parts.audit("drift", {"reasons": reasons, "held_back_by": blocks})
        log.info("drift", reasons=list(reasons), held_back_by=list(blocks))

    def cancel(self, run_id: str) -> Run:
        """Ask a run to end; raises `NotFound`, or `Refused` for one that has ended."""
        with self._changed:
            run = self.runs.get(run_id)
            if not run.state.active or run.state is RunState.PROMOTING:
                raise Refused(f"{run_id} is {run.state}: too late to cancel")
            if run.state is RunState.QUEUED and run_id != self._working:
                return self.runs.move(run_id, RunState.CANCELLED, "cancelled before it began")
            self._signals.cancel(run_id)
        return run

    @contextmanager
    def halted(self, timeout_s: float) -> Iterator[None]:
        """No run works inside: the one at work is cancelled and waited for, queued ones begin afterwards.
        Raises `Retry` when it does not end in time."""
        with self._changed:
            self._halts += 1
        try:
            self._end_work(time.monotonic() + timeout_s)
            yield
        finally:
            with self._changed:
                self._halts -= 1
                self._changed.notify_all()

    def _end_work(self, deadline: float) -> None:
        with self._changed:
            while self._working is not None:
                self._signals.cancel(self._working)
                if not self._changed.wait(deadline - time.monotonic()):
                    raise Retry(f"{self._working} has not ended yet: try again")

    def relations(self, adapter: AdapterRef) -> Sequence[str] | None:
        """Relations that an adapter of ours was aligned on; None for one from elsewhere."""
        runs_of_it = [run for run in self.runs.oldest_first() if run.adapter_sha256 == adapter.sha256]
        return runs_of_it[-1].relations if runs_of_it else None

    def situation(self) -> Situation:
        """What runs mean for the decision."""
        situation = runs.situation(
            self.runs.oldest_first(),
            self._parts.now(),
            backoff_ms=round(self._settings.backoff_s * 1000),
            window_open=self._parts.window_open(),
        )
        return replace(situation, tainted=self._parts.tainted(), owned=self._parts.owned())

    def run(self) -> None:
        """Do queued runs until `stop`. Only a failed disk ends it otherwise."""
        while not self._signals.stopping:
            run = self._next()
            if run is not None:
                self._run_once(run.id)

    def stop(self) -> None:
        """End the loop; the run under way is cancelled, its job gone soon."""
        self._signals.stop()

    def _next(self) -> Run | None:
        """A queued run; None to look again, once the requests are queued."""
        with self._changed:
            queued = next((run for run in self.runs.oldest_first() if run.state is RunState.QUEUED), None)
            if queued is not None and not self._halts:
                self._working = queued.id
                return queued
            if (self._halts or not self._requests) and not self._signals.stopping:
                self._changed.wait()
            requests, self._requests = self._requests, []
        for trigger, reasons, control_id in requests:
            try:
                self.trigger(trigger, reasons, control_id=control_id)
            except LteError as error:
                log.warning("realign_refused", trigger=trigger, control_id=control_id, error=str(error))
        return None

    def _run_once(self, run_id: str) -> None:
        job_dir = self.job_dir(run_id)
        try:
            self._realign(run_id, job_dir)
        except RunEnded as end:
            self.runs.move(run_id, end.state, str(end))
        except Fatal:
            raise
        except (LteError, OSError) as error:
            self.runs.move(run_id, RunState.FAILED, str(error))
        except Exception as error:
            # A fault of ours must not take the daemon with it: the run failed, and the log has it.
            log.exception("realign_fault", run=run_id)
            self.runs.move(run_id, RunState.FAILED, f"internal fault: {type(error).__name__}")
        finally:
            self._signals.forget(run_id)
            # What was promoted lives in the registry by now.
            _remove_weights(job_dir)
            _sweep(self._directory)
        with self._changed:
            self._working = None
            self._changed.notify_all()

    def _realign(self, run_id: str, job_dir: Path) -> None:
        """One re-alignment from the facts to what serves. Raises `RunEnded` where it ends on the way."""
        run = self.runs.move(run_id, RunState.BUILDING)
        self._parts.building()
        built = build_job(run, job_dir, self._parts, self._settings)
        self.runs.update(
            run_id,
            adapter=built.job.name,
            facts=built.facts,
            anchor=built.anchor,
            probes=len(built.probes),
            relations=built.relations,
        )
        self.runs.move(run_id, RunState.TRAINING)
        deadline_s = self._settings.deadline_s
        result = run_job(built.job, self._parts.runner, self.runs, self._signals, deadline_s)
        self.runs.update(run_id, rows=result.rows, data_hash=(result.data_hash or "")[:64])
        self.runs.move(run_id, RunState.PROMOTING)
        gate = self._settings.gate
        message = accept_result(run_id, built, result, self._parts, gate, self.runs, self._signals)
        self.runs.move(run_id, RunState.DONE, message)

    def job_dir(self, run_id: str) -> Path:
        return self._directory / run_id

    def _end_leftovers(self) -> None:
        """Runs that a daemon left under way have failed; their children are ended, their weights go."""
        for run in self.runs.oldest_first():
            if run.state.active:
                runner.end_leftover(self.job_dir(run.id))
                self.runs.abandon(run)
                _remove_weights(self.job_dir(run.id))


def _sweep(directory: Path) -> None:
    """The newest job directories stay for people."""
    old = sorted(path for path in directory.glob("run-*") if path.is_dir())
    for path in old[: max(0, len(old) - KEPT_JOBS)]:
        shutil.rmtree(path, ignore_errors=True)


def _remove_weights(job_dir: Path) -> None:
    for name in SWEPT:
        shutil.rmtree(job_dir / name, ignore_errors=True)
