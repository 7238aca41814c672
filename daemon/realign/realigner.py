"""Re-alignment: one run at a time, from the facts to a promoted adapter or a reason why not.

A run is a record in the store that moves through its states (`lte_runtime.align.runs`); the work is done by a
child (`daemon.realign.runner`) over a job directory. Whoever asks (drift, an operator, a record on the
control topic) asks here. What a daemon that died left behind is ended and swept at the next start.
"""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Any, Protocol

import structlog

from daemon.drift_watch import DriftReport
from daemon.realign import runner
from daemon.realign.runner import Runner, RunningJob
from lte_runtime.align import promotion
from lte_runtime.align.promotion import PromotionOutcome, PromotionSettings, Verdict
from lte_runtime.drift import material, runs
from lte_runtime.drift.decide import Situation
from lte_runtime.align.material import AdmissionRules, JobProbe, LearnableFact
from lte_runtime.align.runs import Progress, Run, RunState, Trigger
from lte_runtime.errors import BadRequest, Fatal, LteError, NotFound, Refused, Retry
from lte_runtime.private_files import make_private
from lte_runtime.store.records import EditRecord
from lte_runtime.store.sampling import Arrival
from lte_runtime.types import AdapterRef, Fact, FactKey

log = structlog.get_logger(__name__)

PREFIX = "realign.run-"
POLL_S = 0.2
NO_ADAPTER = "none"
OWNER_WAIT_S, OWNER_CHECK_S = 300.0, 1.0
# Below the state directory: one directory for each job.
JOBS = "realign"
# Of a run that promoted nothing these go at once: they are large, and nobody may use them by accident.
SWEPT = ("adapter", ".adapter.new", "checkpoints", "data")
LEAST_FACTS = 60
# A stop of the daemon does not wait for a job's own grace.
STOP_GRACE_S = 5.0


class RealignMemory(Protocol):
    """What a run needs of the edit memory."""

    def sample_facts(self, count: int, rng: Random) -> tuple[Fact, ...]: ...
    def facts_of_keys(self, key_ids: Sequence[int]) -> tuple[Fact, ...]: ...
    def arrivals(self, after: int, limit: int) -> list[Arrival]: ...
    def last_row(self) -> int: ...
    def history(self, key: FactKey) -> list[EditRecord]: ...
    def meta_get(self, name: str) -> str | None: ...
    def meta_set(self, name: str, value: str) -> None: ...
    def meta_names(self, prefix: str) -> list[str]: ...


class AdapterRegistry(Protocol):
    """Where adapters are kept."""

    def add(self, directory: Path, verdict: Mapping[str, Any]) -> AdapterRef: ...
    def next_id(self) -> str: ...


class AdapterActivator(Protocol):
    """What puts an adapter into service; raises with the reason why not."""

    def activate(self, adapter_id: str, reason: str, epoch: int = 0) -> None: ...


@dataclass(frozen=True, slots=True)
class AlignedModel:
    """The model that is aligned, as a job names it."""

    path: str
    fingerprint: str
    device: str = "auto"
    dtype: str = "auto"


@dataclass(frozen=True, slots=True)
class RealignerSettings:
    """`changes` are numbers of the preset to replace; `keep` job directories are kept; `anchor` older facts
    are replayed, with those of `anchor_file`; at most `rules.most` are learned from."""

    preset: str = "embedded"
    changes: Mapping[str, object] = field(default_factory=dict)
    deadline_s: float = 3600.0
    backoff_s: float = 900.0
    max_memory_bytes: int | None = None
    keep: int = 3
    anchor: int = 1000
    anchor_file: Path | None = None
    seed: int = 0
    rules: AdmissionRules = field(default_factory=AdmissionRules)
    gate: PromotionSettings = field(default_factory=PromotionSettings)


@dataclass(frozen=True)
class RealignParts:
    """What a re-alignment works with. `incumbent` gives the directory of the adapter that serves, None
    without one; `tainted` how many facts it was trained on no longer hold; `epoch` the fencing number to
    carry, or raises `Refused` when this daemon must not (it may wait for a broker), `owned` the quick guess
    at that; `since_row` what the last alignment knew.
    """

    memory: RealignMemory
    registry: AdapterRegistry
    swapper: AdapterActivator
    runner: Runner
    base: AlignedModel
    incumbent: Callable[[], Path | None]
    tainted: Callable[[], int] = lambda: 0
    epoch: Callable[[], int] = lambda: 0
    since_row: Callable[[], int] = lambda: 0
    building: Callable[[], None] = lambda: None
    owned: Callable[[], bool] = lambda: True
    on_change: Callable[[Run], None] = lambda _: None
    audit: Callable[[str, Mapping[str, Any]], None] = lambda _kind, _what: None
    window_open: Callable[[], bool] = lambda: True
    now: Callable[[], int] = lambda: time.time_ns() // 1_000_000


class Stopped(Exception):
    """The run ends in this state, for this reason."""

    def __init__(self, state: RunState, message: str) -> None:
        super().__init__(message)
        self.state = state


class Realigner:
    """Single flight. `run` is the loop of one thread, all else may be called from any."""

    def __init__(self, directory: Path, parts: RealignParts, settings: RealignerSettings) -> None:
        self._directory, self._parts, self._settings = directory, parts, settings
        self._changed = threading.Condition()
        self._stopping = False
        self._stop_by: float | None = None
        self._cancelled: set[str] = set()
        self._working: str | None = None
        self._halts = 0
        self._runs = self._restored()
        self._reported_reasons: frozenset[tuple[str, str]] = frozenset()
        self._requests: list[tuple[Trigger, tuple[str, ...], str]] = []

    # -- asking ----------------------------------------------------------------------------------------

    def trigger(
        self, trigger: Trigger, reasons: Sequence[str], *, tainted: bool = False, control_id: str = ""
    ) -> Run:
        """Queue a run. Raises `Refused` while one is under way, or when this daemon must not re-align."""
        epoch = self._parts.epoch()
        with self._changed:
            active = self.active()
            if active is not None:
                raise Refused(f"{active.id} is running ({active.state}): re-alignments run one at a time")
            if self._stopping:
                raise Refused("the daemon is stopping")
            number = 1 + max(
                (int(earlier.id.rpartition("-")[2]) for earlier in self._runs.values()), default=0
            )
            run = Run(
                id=f"run-{number:06d}",
                state=RunState.QUEUED,
                trigger=trigger,
                reasons=tuple(reasons),
                created_ms=self._parts.now(),
                tainted=tainted or self._parts.tainted() > 0,
                epoch=epoch,
                seed=self._settings.seed + number,
                control_id=control_id,
            )
            self._save(run)
        return run

    def consider(self, report: DriftReport) -> Run | None:
        """Start a run when the watch on drift says so; None when it does not."""
        self._report_reasons(report)
        if not report.decision.start or self.active() is not None:
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

    def enqueue(self, trigger: Trigger, reasons: Sequence[str], control_id: str) -> None:
        """Queue a run from the thread of the loop, which may ask for the epoch; returns at once."""
        with self._changed:
            self._requests.append((trigger, tuple(reasons), control_id))
            self._changed.notify_all()

    def cancel(self, run_id: str) -> Run:
        """Ask a run to end; raises `NotFound`, or `Refused` for one that has ended."""
        with self._changed:
            run = self.get(run_id)
            if not run.state.active or run.state is RunState.PROMOTING:
                raise Refused(f"{run_id} is {run.state}: too late to cancel")
            self._cancelled.add(run_id)
            if run.state is RunState.QUEUED:
                run = runs.moved(run, RunState.CANCELLED, self._parts.now(), "cancelled before it began")
                self._save(run)
            self._changed.notify_all()
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
                self._cancelled.add(self._working)
                self._changed.notify_all()
                if not self._changed.wait(deadline - time.monotonic()):
                    raise Retry(f"{self._working} has not ended yet: try again")

    def get(self, run_id: str) -> Run:
        """Raises `NotFound`."""
        run = self._runs.get(run_id)
        if run is None:
            raise NotFound(f"no run {run_id!r}")
        return run

    def latest(self, limit: int = 100) -> list[Run]:
        """Runs, the newest first."""
        return sorted(self._runs.values(), key=lambda run: run.id, reverse=True)[:limit]

    def active(self) -> Run | None:
        return next((run for run in self._runs.values() if run.state.active), None)

    def relations(self, adapter: AdapterRef) -> Sequence[str] | None:
        """Relations that an adapter of ours was aligned on; None for one from elsewhere."""
        runs_of_it = [run for run in self._runs.values() if run.adapter_sha256 == adapter.sha256]
        return runs_of_it[-1].relations if runs_of_it else None

    def situation(self) -> Situation:
        """What runs mean for the decision."""
        situation = runs.situation(
            sorted(self._runs.values(), key=lambda run: run.id),
            self._parts.now(),
            backoff_ms=round(self._settings.backoff_s * 1000),
            window_open=self._parts.window_open(),
        )
        return replace(situation, tainted=self._parts.tainted(), owned=self._parts.owned())

    def watch(self, run_id: str, going: Callable[[], bool], every_s: float = 0.5) -> Iterator[Run]:
        """The run at each change, until it has ended or `going` says no. Raises `NotFound`."""
        shown: Run | None = None
        while going():
            run = self.get(run_id)
            if run != shown:
                shown = run
                yield run
            if not run.state.active:
                return
            with self._changed:
                if self.get(run_id) == shown:
                    self._changed.wait(every_s)

    # -- the loop --------------------------------------------------------------------------------------

    def run(self) -> None:
        """Do queued runs until `stop`. Only a failed disk ends it otherwise."""
        while not self._stopping:
            run = self._next()
            if run is not None:
                self._run_once(run)
                with self._changed:
                    self._working = None
                    self._changed.notify_all()

    def stop(self) -> None:
        """End the loop; the run under way is cancelled, its job gone within `STOP_GRACE_S`."""
        with self._changed:
            self._stopping, self._stop_by = True, time.monotonic() + STOP_GRACE_S
            self._changed.notify_all()

    def _next(self) -> Run | None:
        """A queued run; None to look again, once the requests are queued."""
        with self._changed:
            queued = next((run for run in self._runs.values() if run.state is RunState.QUEUED), None)
            if queued is not None and not self._halts:
                self._working = queued.id
                return queued
            if (self._halts or not self._requests) and not self._stopping:
                self._changed.wait()
            requests, self._requests = self._requests, []
        for trigger, reasons, control_id in requests:
            try:
                self.trigger(trigger, reasons, control_id=control_id)
            except LteError as error:
                log.warning("realign_refused", trigger=trigger, control_id=control_id, error=str(error))
        return None

    def _run_once(self, run: Run) -> None:
        job_dir = self._job_dir(run)
        try:
            run = self._move_to(run, RunState.BUILDING)
            run, probes = self._build(run, job_dir)
            run, result = self._train(run, job_dir)
            run = self._move_to(run, RunState.PROMOTING)
            self._promote(run, job_dir, probes, result)
        except Stopped as end:
            self._end(run.id, end.state, str(end))
        except Fatal:
            raise
        except (LteError, OSError) as error:
            self._end(run.id, RunState.FAILED, str(error))
        except Exception as error:
            # A fault of ours must not take the daemon with it: the run failed, and the log has it.
            log.exception("realign_fault", run=run.id)
            self._end(run.id, RunState.FAILED, f"internal fault: {type(error).__name__}")
        finally:
            self._sweep_jobs(self.get(run.id), job_dir)

    def _end(self, run_id: str, state: RunState, message: str) -> None:
        self._move_to(self.get(run_id), state, message)

    # -- building --------------------------------------------------------------------------------------

    def _build(self, run: Run, job_dir: Path) -> tuple[Run, tuple[JobProbe, ...]]:
        self._parts.building()
        learnable, older = self._learnable_facts(run.seed)
        now = self._parts.now()
        fresh = material.admitted(learnable, self._settings.rules, run.seed, now)
        if len(fresh.facts) < LEAST_FACTS:
            left_out = ", ".join(f"{count} {why}" for why, count in sorted(fresh.left_out.items()))
            message = f"only {len(fresh.facts)} facts may be learned from, at least {LEAST_FACTS} are needed"
            raise Stopped(RunState.REJECTED, f"{message}; left out: {left_out or 'none'}")
        parted = material.split(fresh.facts, run.seed)
        held_keys = {fact.key for fact in parted.held_out}
        replay_rules = replace(self._settings.rules, most=self._settings.anchor)
        replay = material.admitted(older, replay_rules, run.seed + 1, now).facts
        anchor = tuple(fact for fact in replay if fact.key not in held_keys)
        probes = material.job_probes(parted.held_out, (*parted.learnt, *anchor), run.seed)
        relations = {fact.key.relation for fact in (*fresh.facts, *anchor) if fact.relation}
        run = replace(
            run,
            adapter=self._parts.registry.next_id(),
            facts=len(parted.learnt),
            anchor=len(anchor),
            probes=len(probes),
            relations=tuple(sorted(relations)),
        )
        self._write(run, job_dir, parted.learnt, anchor, probes)
        self._save_locked(run)
        return run, probes

    def _learnable_facts(self, seed: int) -> tuple[list[LearnableFact], list[LearnableFact]]:
        """What is new since the last alignment, filled up from the rest; and the older facts to replay."""
        memory, most = self._parts.memory, self._settings.rules.most
        # Several edits may share a key: a few times as many rows hold as many keys as can be used.
        reach = 8 * most
        rows = memory.arrivals(max(self._parts.since_row(), memory.last_row() - reach), reach)
        new = list(dict.fromkeys(row.key_id for row in reversed(rows) if row.key_id is not None))[: 2 * most]
        facts = memory.facts_of_keys(new)
        keys = {fact.key for fact in facts}
        drawn = memory.sample_facts(most + self._settings.anchor, Random(f"{seed}:older"))
        older = [fact for fact in drawn if fact.key not in keys]
        missing = max(0, most // 4 - len(facts))
        return self._with_times((*facts, *older[:missing])), self._with_times(older[missing:])

    def _with_times(self, facts: Sequence[Fact]) -> list[LearnableFact]:
        """Each fact with its time and whether it is disputed. The members of a set share one history."""
        histories = {key: self._history(key) for key in dict.fromkeys(fact.key for fact in facts)}
        return [_learnable(fact, *histories[fact.key]) for fact in facts]

    def _history(self, key: FactKey) -> tuple[dict[str, int], bool]:
        """Edit id -> timestamp, and whether an edit lost to another at the same revision or start."""
        try:
            history = self._parts.memory.history(key)
        except NotFound:  # erased meanwhile
            return {}, True
        times = {record.edit.id: record.edit.timestamp_ms for record in reversed(history)}
        return times, any(record.state == "conflict_lost" for record in history)

    def _write(
        self,
        run: Run,
        job_dir: Path,
        learnt: Sequence[Fact],
        anchor: Sequence[Fact],
        probes: Sequence[JobProbe],
    ) -> None:
        shutil.rmtree(job_dir, ignore_errors=True)
        make_private(job_dir)
        _write_lines(job_dir / "facts.jsonl", map(material.fact_row, learnt))
        _write_lines(job_dir / "probes.jsonl", map(material.probe_row, probes))
        has_anchor = bool(anchor) or self._settings.anchor_file is not None
        if has_anchor:
            _write_lines(job_dir / "anchor.jsonl", map(material.fact_row, anchor))
        if self._settings.anchor_file is not None:
            _write_lines(job_dir / "anchor.jsonl", _own_anchor(self._settings.anchor_file), mode="a")
        incumbent = self._parts.incumbent()
        base = self._parts.base
        job = {
            "id": run.id,
            "name": run.adapter,
            "preset": self._settings.preset,
            "base": base.path,
            "base_fingerprint": base.fingerprint,
            "incumbent": None if incumbent is None else str(incumbent.absolute()),
            "facts": "facts.jsonl",
            "probes": "probes.jsonl",
            "anchor": "anchor.jsonl" if has_anchor else None,
            "seed": run.seed,
            "epoch": run.epoch,
            "deadline_s": self._settings.deadline_s,
            "device": base.device,
            "dtype": base.dtype,
            "max_memory_bytes": self._settings.max_memory_bytes,
            # A tainted incumbent is no place to start from.
            "fresh": run.tainted,
            "halvings": 0,
            "changes": dict(self._settings.changes),
        }
        (job_dir / "job.json").write_text(json.dumps(job, indent=2), encoding="utf-8")

    # -- training and judging --------------------------------------------------------------------------

    def _train(self, run: Run, job_dir: Path) -> tuple[Run, Mapping[str, Any]]:
        """The result of the child; once more with half the batch when memory did not suffice."""
        deadline = time.monotonic() + self._settings.deadline_s
        run = self._move_to(run, RunState.TRAINING)
        run, result = self._attempt(run, job_dir, deadline)
        if _kind(result) == "out_of_memory":
            log.warning("realign_out_of_memory", run=run.id, message=_failure_text(result))
            self._halve(job_dir)
            again = RunState.TRAINING if run.state is RunState.JUDGING else None
            run = replace(self._move_to(run, again) if again else run, attempt=2)
            run, result = self._attempt(run, job_dir, deadline)
        status = result.get("status")
        if status == "cancelled":
            raise Stopped(RunState.CANCELLED, "cancelled")
        if status != "done":
            raise Stopped(RunState.FAILED, _failure_text(result))
        run = replace(run, rows=_count(result.get("rows")), data_hash=str(result.get("data_hash", ""))[:64])
        return run, result

    def _attempt(self, run: Run, job_dir: Path, deadline: float) -> tuple[Run, Mapping[str, Any]]:
        job = self._parts.runner.start(job_dir)
        self._save_locked(run)
        try:
            run, why = self._follow_job(run, job_dir, job, deadline)
        finally:
            job.close()
        if why is not None:
            raise why
        return run, _result(job_dir, job)

    def _follow_job(
        self, run: Run, job_dir: Path, job: RunningJob, deadline: float
    ) -> tuple[Run, Stopped | None]:
        """Waits until the job is over; progress is shown, a cancellation or the deadline ends it."""
        why: Stopped | None = None
        while not job.over():
            why = why or self._reason_to_end(run, deadline)
            if why is not None:
                job.cancel()
            if self._stop_by is not None and time.monotonic() >= self._stop_by:
                job.kill()
            run = self._progress(run, runner.progress(job_dir))
            with self._changed:
                self._changed.wait(POLL_S)
        return run, why

    def _reason_to_end(self, run: Run, deadline: float) -> Stopped | None:
        if self._stopping:
            return Stopped(RunState.CANCELLED, "the daemon was stopped")
        if run.id in self._cancelled:
            return Stopped(RunState.CANCELLED, "cancelled")
        if time.monotonic() >= deadline:
            return Stopped(RunState.FAILED, f"not finished within {self._settings.deadline_s:.0f} s")
        return None

    def _progress(self, run: Run, now: Progress | None) -> Run:
        if now is None or now == run.progress:
            return run
        run = replace(run, progress=now)
        if now.phase == "judging" and run.state is RunState.TRAINING:
            return self._move_to(run, RunState.JUDGING)
        self._show(run)
        return run

    def _halve(self, job_dir: Path) -> None:
        for name in (runner.RESULT, runner.PROGRESS, runner.CANCEL):
            (job_dir / name).unlink(missing_ok=True)
        path = job_dir / "job.json"
        job = json.loads(path.read_text("utf-8"))
        path.write_text(json.dumps({**job, "halvings": 1}, indent=2), encoding="utf-8")

    # -- promotion -------------------------------------------------------------------------------------

    def _promote(
        self, run: Run, job_dir: Path, probes: Sequence[JobProbe], result: Mapping[str, Any]
    ) -> None:
        judged = result.get("judged")
        verdict = promotion.judge(
            judged if isinstance(judged, dict) else {},
            {probe.id: probe.kind for probe in probes},
            incumbent=json.loads((job_dir / "job.json").read_text("utf-8"))["incumbent"] is not None,
            tainted=run.tainted,
            seed=run.seed,
            settings=self._settings.gate,
        )
        record = {**verdict.to_json(), "run": run.id, "reasons_to_align": list(run.reasons)}
        run = replace(run, verdict=record)
        self._save_locked(run)
        log.info("verdict", run=run.id, outcome=verdict.outcome, reasons=list(verdict.reasons))
        self._parts.audit("verdict", record)
        self._check_owner(run)
        self._apply_verdict(run, job_dir, verdict, result)

    def _check_owner(self, run: Run) -> None:
        """Whoever lost the control topic meanwhile must not move what all replicas follow. A broker that is
        away for some minutes costs no training."""
        until = time.monotonic() + OWNER_WAIT_S
        while True:
            try:
                if self._parts.epoch() == run.epoch:
                    return
                raise Stopped(RunState.FAILED, "another daemon owns re-alignment now")
            except Retry:
                if self._stopping or time.monotonic() >= until:
                    raise
            with self._changed:
                self._changed.wait(OWNER_CHECK_S)

    def _apply_verdict(self, run: Run, job_dir: Path, verdict: Verdict, result: Mapping[str, Any]) -> None:
        why = "; ".join(verdict.reasons)
        if verdict.outcome is PromotionOutcome.REJECT:
            raise Stopped(RunState.REJECTED, why)
        if verdict.outcome is PromotionOutcome.NONE:
            self._parts.swapper.activate(
                NO_ADAPTER, f"{run.id}: answers are better without an adapter: {why}", run.epoch
            )
            self._move_to(run, RunState.DONE, "no adapter serves: answers are better without one")
            return
        ref = self._register(run, job_dir, run.verdict, result)
        # Saved before the switch: the watch on drift asks what the new adapter knows as soon as it serves.
        run = replace(run, adapter_sha256=ref.sha256)
        self._save_locked(run)
        self._parts.swapper.activate(ref.id, f"{run.id}: {'; '.join(run.reasons)}", run.epoch)
        self._move_to(run, RunState.DONE, f"{ref.id} serves")

    def _register(
        self, run: Run, job_dir: Path, verdict: Mapping[str, Any], result: Mapping[str, Any]
    ) -> AdapterRef:
        """Put the adapter into the registry, if it has the run's name and learned only what the job gave."""
        manifest = runner.read_json(job_dir / "adapter" / "manifest.json") or {}
        if manifest.get("id") != run.adapter:
            raise Refused(f"the job wrote adapter {manifest.get('id')!r} instead of {run.adapter!r}")
        learnt_from = (
            _edit_ids(job_dir / "facts.jsonl") | _edit_ids(job_dir / "anchor.jsonl") | _inherited(job_dir)
        )
        listed = manifest.get("edit_ids")
        if not isinstance(listed, list) or not set(map(str, listed)) <= learnt_from:
            raise Refused("the adapter's manifest must list its edits (edit_ids), and only edits of this job")
        ref = self._parts.registry.add(job_dir / "adapter", verdict)
        if result.get("adapter_hash") != ref.sha256:
            raise Refused("the adapter was changed after it was judged: its hash differs")
        return ref

    # -- records ---------------------------------------------------------------------------------------

    def _move_to(self, run: Run, state: RunState, message: str = "") -> Run:
        run = runs.moved(run, state, self._parts.now(), message)
        self._save_locked(run)
        log.info("realign", run=run.id, state=state, message=message or None)
        return run

    def _save_locked(self, run: Run) -> None:
        with self._changed:
            self._save(run)

    def _save(self, run: Run) -> None:
        """Durable first, then seen."""
        self._parts.memory.meta_set(f"realign.{run.id}", runs.to_json(run))
        self._show(run)

    def _show(self, run: Run) -> None:
        with self._changed:
            before = self._runs.get(run.id)
            self._runs[run.id] = run
            self._changed.notify_all()
        if before is None or before.state is not run.state:
            self._parts.on_change(run)

    def _restored(self) -> dict[str, Run]:
        """Runs of the store; those that a daemon left under way have failed, their children are ended."""
        restored = {}
        for name in self._parts.memory.meta_names(PREFIX):
            run = runs.from_json(self._parts.memory.meta_get(name) or "")
            if run.state.active:
                job_dir = self._job_dir(run)
                runner.end_leftover(job_dir)
                run = runs.moved(
                    run, RunState.FAILED, self._parts.now(), f"the daemon ended while {run.state}"
                )
                self._parts.memory.meta_set(name, runs.to_json(run))
                _sweep(job_dir)
            restored[run.id] = run
        return restored

    def _job_dir(self, run: Run) -> Path:
        return self._directory / run.id

    def _sweep_jobs(self, run: Run, job_dir: Path) -> None:
        """What was promoted lives in the registry by now; the newest job directories stay for people."""
        self._cancelled.discard(run.id)
        _sweep(job_dir)
        old = sorted(path for path in self._directory.glob("run-*") if path.is_dir())
        for path in old[: max(0, len(old) - self._settings.keep)]:
            shutil.rmtree(path, ignore_errors=True)


def _sweep(job_dir: Path) -> None:
    for name in SWEPT:
        shutil.rmtree(job_dir / name, ignore_errors=True)


def _own_anchor(path: Path) -> Iterator[dict[str, Any]]:
    """Facts of the operator's file; those without an id get one, because an adapter lists what it learned."""
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        if line.strip():
            yield {"edit_id": f"anchor-{number}", **json.loads(line)}


def _learnable(fact: Fact, times: Mapping[str, int], disputed: bool) -> LearnableFact:
    return LearnableFact(fact, times.get(fact.edit_id, 0), disputed or fact.edit_id not in times)


def _write_lines(path: Path, rows: Any, mode: str = "w") -> None:
    with path.open(mode, encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def _edit_ids(path: Path) -> set[str]:
    if not path.exists():
        return set()
    rows = (json.loads(line) for line in path.read_text("utf-8").splitlines() if line.strip())
    return {str(row["edit_id"]) for row in rows if "edit_id" in row}


def _inherited(job_dir: Path) -> set[str]:
    """What the incumbent knows, where the job started from it."""
    job = runner.read_json(job_dir / "job.json") or {}
    if not job.get("incumbent") or job.get("fresh"):
        return set()
    manifest = runner.read_json(Path(job["incumbent"]) / "manifest.json") or {}
    return set(map(str, manifest.get("edit_ids") or ()))


def _result(job_dir: Path, job: RunningJob) -> Mapping[str, Any]:
    """What the child wrote, or what its end amounts to."""
    result = runner.read_json(job_dir / runner.RESULT)
    if result is not None:
        return result
    if (job_dir / runner.RESULT).exists():
        return _failed("other", "the result is no JSON object")
    if job.code is not None and job.code < 0 and not job.killed:
        # Nobody here killed it: on a machine short of memory that is the kernel's way.
        kind = "out_of_memory" if job.code == -9 else "other"
        return _failed(kind, f"ended by signal {-job.code} without a result")
    return _failed("other", f"ended with status {job.code} and without a result")


def _failed(kind: str, message: str) -> Mapping[str, Any]:
    return {"status": "failed", "error": {"kind": kind, "message": message}}


def _error(result: Mapping[str, Any]) -> Mapping[str, Any]:
    error = result.get("error")
    return error if isinstance(error, dict) else {}


def _kind(result: Mapping[str, Any]) -> str:
    return str(_error(result).get("kind", "")) if result.get("status") == "failed" else ""


def _failure_text(result: Mapping[str, Any]) -> str:
    error = _error(result)
    return f"{error.get('kind', 'other')}: {str(error.get('message', 'no reason given'))[:500]}"


def _count(value: object) -> int:
    return value if isinstance(value, int) and value >= 0 else 0


def check_reason(text: str) -> str:
    """An operator's reason, for logs and records; raises `BadRequest` when it is too long."""
    if len(text) > 1000:
        raise BadRequest("the reason is longer than 1000 characters")
    return text.strip() or "requested by an operator"
