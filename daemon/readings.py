"""What the parts report, as metrics: gauges, read when Prometheus asks, and counts of what was done."""

from __future__ import annotations

import hashlib
import math
import shutil
import time
from collections.abc import Mapping

from daemon.adapters.manager import AdapterManager
from daemon.drift_watch import DriftWatch
from daemon.ingest.ingest import BatchReport, Ingest
from daemon.ingest.values import UNKNOWN_LAG
from daemon.lifecycle import Lifecycle, State
from daemon.metrics import Metrics, Reading, Readings
from daemon.realign.realigner import Realigner
from daemon.rpc.interceptors import Call
from daemon.rpc.token_store import TokenStore
from lte_runtime.align.runs import RunState
from lte_runtime.answer.engine.protocol import Engine
from lte_runtime.memory.edit_memory import EditMemory
from lte_runtime.types import Answer, Scope, TopicPartition

# Enough of a SHA-256 to tell states apart, and short in a legend.
_HASH_DIGITS = 16
_REFUSALS = frozenset({"UNAUTHENTICATED", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED"})


def of_lifecycle(lifecycle: Lifecycle) -> Readings:
    now = lifecycle.status()
    states: dict[tuple[str, ...], float] = {(state.value,): float(state is now.state) for state in State}
    return {"lte_state": states, "lte_stale": float(now.stale)}


def of_memory(memory: EditMemory) -> Readings:
    now, quarantine_limit = memory.status(), memory.settings.quarantine_max_bytes
    paths = set(now.index_path.values()) or {"exact"}
    gauges: dict[str, Reading] = {
        "lte_memory_edits": now.edits,
        "lte_memory_facts": now.current_facts,
        "lte_memory_keys": now.keys,
        "lte_memory_joined_keys": now.joined_keys,
        "lte_memory_bytes": now.state_bytes,
        "lte_index_vectors": {("live",): now.vectors_live, ("dead",): now.vectors_dead},
        "lte_index_path": {(path,): float(path in paths) for path in ("exact", "hnsw")},
        "lte_dead_letters_pending": now.quarantine_pending,
        "lte_quarantine_records": now.quarantine_rows,
        "lte_quarantine_bytes": now.quarantine_bytes,
        "lte_quarantine_limit_bytes": quarantine_limit,
    }
    disk = shutil.disk_usage(memory.directory)
    gauges |= {"lte_disk_bytes": disk.total, "lte_disk_free_bytes": disk.free}
    if now.snapshot:
        gauges["lte_snapshot_timestamp_seconds"] = now.snapshot.created_ms / 1000
    return gauges


def of_ingest(ingest: Ingest) -> Readings:
    partitions = ingest.status().partitions
    return {
        "lte_ingest_lag_records": {
            (str(tp.partition),): math.nan if status.lag == UNKNOWN_LAG else status.lag
            for tp, status in partitions.items()
        },
        "lte_ingest_next_offset": {(str(tp.partition),): status.next for tp, status in partitions.items()},
    }


def of_engine(engine: Engine, version: str) -> Readings:
    adapter = engine.adapter.id if engine.adapter else "none"
    return {"lte_queue_depth": engine.queue_depth, "lte_build": {(version, adapter): 1.0}}


def of_adapters(manager: AdapterManager) -> Readings:
    now = manager.counts()
    serving = now.serving
    return {
        "lte_adapter_serving": {(serving.id, serving.sha256): 1.0} if serving else {("none", ""): 1.0},
        "lte_adapters": float(now.adapters),
        "lte_adapter_score": now.scores,
        "lte_adapter_tainted_edits": float(now.tainted),
        "lte_adapter_epoch": float(now.epoch),
    }


def of_drift(watch: DriftWatch) -> Readings:
    now = watch.report()
    rules = {(margin.name, margin.kind): margin for margin in now.margins}
    return {
        "lte_drift_reading": {(reading.name,): reading.value for reading in now.readings},
        "lte_drift_samples": {rule: float(margin.n) for rule, margin in rules.items()},
        "lte_drift_margin": {r: margin.margin for r, margin in rules.items() if margin.margin is not None},
        "lte_drift_limit": {
            rule: margin.limit
            for rule, margin in rules.items()
            if margin.kind == "threshold" and margin.limit is not None
        },
        "lte_drift_reason": {rule: float(margin.reason) for rule, margin in rules.items()},
        "lte_drift_would_start": float(now.decision.start),
        "lte_drift_new_edits": float(now.new_edits),
    }


def of_realigner(realigner: Realigner) -> Readings:
    run = realigner.runs.active()
    gauges: dict[str, Reading] = {
        "lte_realign_state": {
            (state.value,): float(run is not None and run.state is state)
            for state in RunState
            if state.active
        },
        "lte_realign_circuit_open": float(realigner.situation().circuit_open),
    }
    if run is not None and run.progress.total:
        share = run.progress.step / run.progress.total
        gauges["lte_realign_progress"] = {(run.progress.phase,): share}
    return gauges


class RecallCheck:
    """The recall self-check of the index, a job of the timetable; its last result, in [0, 1], is a gauge."""

    def __init__(self, memory: EditMemory) -> None:
        self._memory = memory
        self._recall: float | None = None

    def run(self) -> None:
        self._recall = self._memory.recall_self_check()

    def readings(self) -> Readings:
        return {} if self._recall is None else {"lte_index_recall": self._recall}


class StateCheck:
    """Hashes of all facts and of their offsets, for comparing replicas; a job of the timetable."""

    def __init__(self, memory: EditMemory) -> None:
        self._memory = memory
        self._state: tuple[str, str] | None = None

    def run(self) -> None:
        facts, offsets = self._memory.state_at()
        self._state = facts[:_HASH_DIGITS], _offsets_hash(offsets)[:_HASH_DIGITS]

    def readings(self) -> Readings:
        return {} if self._state is None else {"lte_memory_state": {self._state: 1.0}}


def _offsets_hash(offsets: Mapping[TopicPartition, int]) -> str:
    lines = sorted(f"{tp.topic_id} {tp.partition} {offset}" for tp, offset in offsets.items())
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def count_batch(metrics: Metrics, report: BatchReport) -> None:
    applied = report.applied
    metrics.ingested(
        events=report.records,
        applied=len(applied.applied),
        duplicates=applied.duplicates,
        conflicts=applied.conflicts,
        unproven=applied.unproven,
        long_texts=applied.long_texts,
        flagged=applied.flagged,
        rejected=report.rejected,
        stages_ms={"encode": applied.encode_ms, "store": applied.store_ms, "index": applied.index_ms},
    )
    metrics.fresh(milliseconds / 1000 for milliseconds in report.freshness_ms)


def count_answer(metrics: Metrics, answer: Answer) -> None:
    metrics.gated(opened=answer.gate.scope is Scope.EDITED, score=answer.gate.score)
    total = answer.timings_ms.get("total", 0.0) / 1000
    metrics.answered(
        scope=answer.scope,
        code="OK",
        seconds=total,
        stages_ms=answer.timings_ms,
        tokens=len(answer.token_ids),
    )
    if answer.corrected_from:
        metrics.corrected()


def of_tokens(tokens: TokenStore | None) -> Readings:
    principals, now_s = tokens.principals.all if tokens else (), time.time()
    expired = sum(who.expires_s is not None and who.expires_s <= now_s for who in principals)
    return {
        "lte_token_file_ok": float(tokens is None or not tokens.fault),
        "lte_principals": {("valid",): float(len(principals) - expired), ("expired",): float(expired)},
    }


def count_call(metrics: Metrics, call: Call) -> None:
    """Refused calls, and answers that came to nothing: the others are counted with their answer."""
    if not call.principal and call.code in _REFUSALS:
        metrics.refused(call.code)
    if call.code != "OK" and "/Answer" in call.method:
        metrics.answered(scope="none", code=call.code, seconds=call.seconds, stages_ms={})
