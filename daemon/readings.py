"""The parts' own status as the gauges of the metrics catalogue. Read when Prometheus asks."""

from __future__ import annotations

import math
from dataclasses import dataclass

from daemon.adapters.manager import AdapterManager
from daemon.drift_watch import DriftReport, DriftWatch
from daemon.ingest.ingest import Ingest
from daemon.ingest.values import UNKNOWN_LAG
from daemon.lifecycle import Lifecycle, State
from daemon.metrics import Reading, Readings
from daemon.realign.realigner import Realigner
from lte_runtime.align.runs import RunState as RunState
from lte_runtime.answer.engine.protocol import Engine
from lte_runtime.memory.edit_memory import EditMemory
from lte_runtime.store.records import MemoryStatus


@dataclass
class MetricSources:
    """What there is to read from; the later ones appear as the daemon starts. `recall` in [0, 1]."""

    lifecycle: Lifecycle
    memory: EditMemory
    version: str
    ingest: Ingest | None = None
    engine: Engine | None = None
    drift: DriftWatch | None = None
    realigner: Realigner | None = None
    adapters: AdapterManager | None = None
    recall: float | None = None


def readings(parts: MetricSources) -> Readings:
    """Gauge name -> value."""
    return {
        **_of_lifecycle(parts.lifecycle),
        **_of_memory(parts.memory.status(), parts.memory.settings.quarantine_max_bytes),
        **_of_ingest(parts.ingest),
        **_of_engine(parts.engine, parts.version),
        **({} if parts.adapters is None else _of_adapters(parts.adapters)),
        **({} if parts.drift is None else _of_drift(parts.drift.report())),
        **({} if parts.realigner is None else _of_realigner(parts.realigner)),
        **({} if parts.recall is None else {"lte_index_recall": parts.recall}),
    }


def _of_lifecycle(lifecycle: Lifecycle) -> dict[str, Reading]:
    now = lifecycle.status()
    states: dict[tuple[str, ...], float] = {(state.value,): float(state is now.state) for state in State}
    return {"lte_state": states, "lte_stale": float(now.stale)}


def _of_memory(now: MemoryStatus, quarantine_limit: int) -> dict[str, Reading]:
    paths = set(now.index_path.values()) or {"exact"}
    gauges: dict[str, Reading] = {
        "lte_memory_edits": now.edits,
        "lte_memory_facts": now.current_facts,
        "lte_memory_keys": now.keys,
        "lte_memory_bytes": now.state_bytes,
        "lte_index_vectors": {("live",): now.vectors_live, ("dead",): now.vectors_dead},
        "lte_index_path": {(path,): float(path in paths) for path in ("exact", "hnsw")},
        "lte_dead_letters_pending": now.quarantine_pending,
        "lte_quarantine_records": now.quarantine_rows,
        "lte_quarantine_bytes": now.quarantine_bytes,
        "lte_quarantine_limit_bytes": quarantine_limit,
    }
    if now.snapshot:
        gauges["lte_snapshot_timestamp_seconds"] = now.snapshot.created_ms / 1000
    return gauges


def _of_ingest(ingest: Ingest | None) -> dict[str, Reading]:
    if ingest is None:
        return {}
    partitions = ingest.status().partitions
    return {
        "lte_ingest_lag_records": {
            (str(tp.partition),): math.nan if status.lag == UNKNOWN_LAG else status.lag
            for tp, status in partitions.items()
        },
        "lte_ingest_next_offset": {(str(tp.partition),): status.next for tp, status in partitions.items()},
    }


def _of_engine(engine: Engine | None, version: str) -> dict[str, Reading]:
    if engine is None:
        return {}
    adapter = engine.adapter.id if engine.adapter else "none"
    return {"lte_queue_depth": engine.queue_depth, "lte_build": {(version, adapter): 1.0}}


def _of_adapters(manager: AdapterManager) -> dict[str, Reading]:
    now = manager.counts()
    serving = now.serving
    return {
        "lte_adapter_serving": {(serving.id, serving.sha256): 1.0} if serving else {("none", ""): 1.0},
        "lte_adapters": float(now.adapters),
        "lte_adapter_tainted_edits": float(now.tainted),
        "lte_adapter_epoch": float(now.epoch),
    }


def _of_drift(now: DriftReport) -> dict[str, Reading]:
    rules = {(margin.name, margin.kind): margin for margin in now.margins}
    return {
        "lte_drift_reading": {(reading.name,): reading.value for reading in now.readings},
        "lte_drift_samples": {rule: float(margin.n) for rule, margin in rules.items()},
        "lte_drift_margin": {r: margin.margin for r, margin in rules.items() if margin.margin is not None},
        "lte_drift_reason": {rule: float(margin.reason) for rule, margin in rules.items()},
        "lte_drift_would_start": float(now.decision.start),
        "lte_drift_new_edits": float(now.new_edits),
    }


def _of_realigner(realigner: Realigner) -> dict[str, Reading]:
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
