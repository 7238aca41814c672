"""From a job's result to the verdict, and from there to the registry and into service."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import structlog

from daemon.realign.build_job import BuiltJob
from daemon.realign.parts import RealignParts, RunEnded
from daemon.realign.records import RunRecords
from daemon.realign.signals import RunSignals
from lte_runtime.align import contract, promotion
from lte_runtime.align.contract import JobResult, JobSpec
from lte_runtime.align.promotion import PromotionOutcome, PromotionSettings
from lte_runtime.align.runs import Run, RunState
from lte_runtime.answer.engine.files import MANIFEST
from lte_runtime.errors import Refused, Retry
from lte_runtime.types import AdapterRef

log = structlog.get_logger(__name__)

NO_ADAPTER = "none"
OWNER_WAIT_S, OWNER_CHECK_S = 300.0, 1.0


def accept_result(
    run_id: str,
    built: BuiltJob,
    result: JobResult,
    parts: RealignParts,
    gate: PromotionSettings,
    runs: RunRecords,
    signals: RunSignals,
) -> str:
    """What serves from now on, in words. Raises `RunEnded` where the verdict is against the candidate or
    another daemon owns re-alignment, and what registry and swap raise."""
    run = runs.get(run_id)
    verdict = promotion.judge(
        result.judged,
        {probe.id: probe.kind for probe in built.probes},
        incumbent=built.job.incumbent is not None,
        tainted=run.tainted,
        seed=run.seed,
        settings=gate,
    )
    record = {**verdict.to_json(), "run": run.id, "reasons_to_align": list(run.reasons)}
    run = runs.update(run_id, verdict=record)
    log.info("verdict", run=run.id, outcome=verdict.outcome, reasons=list(verdict.reasons))
    parts.audit("verdict", record)
    _check_owner(run, parts, signals)
    why = "; ".join(verdict.reasons)
    if verdict.outcome is PromotionOutcome.REJECT:
        raise RunEnded(RunState.REJECTED, why)
    if verdict.outcome is PromotionOutcome.NONE:
        reason = f"{run.id}: answers are better without an adapter: {why}"
        parts.swapper.activate(NO_ADAPTER, reason, run.epoch)
        return "no adapter serves: answers are better without one"
    ref = _register(run, built, result, parts)
    # Saved before the switch: the watch on drift asks what the new adapter knows as soon as it serves.
    runs.update(run_id, adapter_sha256=ref.sha256)
    parts.swapper.activate(ref.id, f"{run.id}: {'; '.join(run.reasons)}", run.epoch)
    return f"{ref.id} serves"


def _check_owner(run: Run, parts: RealignParts, signals: RunSignals) -> None:
    """Whoever lost the control topic meanwhile must not move what all replicas follow. A broker that is
    away for some minutes costs no training."""
    until = time.monotonic() + OWNER_WAIT_S
    while True:
        try:
            if parts.epoch() == run.epoch:
                return
            raise RunEnded(RunState.FAILED, "another daemon owns re-alignment now")
        except Retry:
            if signals.stopping or time.monotonic() >= until:
                raise
        signals.wait(OWNER_CHECK_S)


def _register(run: Run, built: BuiltJob, result: JobResult, parts: RealignParts) -> AdapterRef:
    """Put the adapter into the registry, if it has the run's name and learned only what the job gave."""
    adapter = built.job.job_dir / contract.ADAPTER
    manifest = _manifest(adapter)
    if manifest.get("id") != run.adapter:
        raise Refused(f"the job wrote adapter {manifest.get('id')!r} instead of {run.adapter!r}")
    listed = manifest.get("edit_ids")
    if not isinstance(listed, list) or not set(map(str, listed)) <= built.edit_ids | _inherited(built.job):
        raise Refused("the adapter's manifest must list its edits (edit_ids), and only edits of this job")
    ref = parts.registry.add(adapter, run.verdict)
    if result.adapter_hash != ref.sha256:
        raise Refused("the adapter was changed after it was judged: its hash differs")
    return ref


def _inherited(job: JobSpec) -> set[str]:
    """What the incumbent knows, where the job started from it."""
    if job.incumbent is None or job.fresh:
        return set()
    return set(map(str, _manifest(job.incumbent).get("edit_ids") or ()))


def _manifest(adapter: Path) -> Mapping[str, Any]:
    return contract.read_json(adapter / MANIFEST) or {}
