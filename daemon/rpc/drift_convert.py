"""The watch on drift and re-alignments on the wire."""

from __future__ import annotations

import json

from daemon.drift_watch import DriftReport
from daemon.rpc import convert
from daemon.rpc.gen.lte.v1 import admin_service_pb2 as pb
from lte_runtime.align.contract import Progress
from lte_runtime.align.runs import Run
from lte_runtime.drift.decide import Block, Margin, Reason
from lte_runtime.drift.readings import Reading


def report(value: DriftReport | None) -> pb.GetDriftResponse:
    if value is None:
        return pb.GetDriftResponse(enabled=False)
    return pb.GetDriftResponse(
        enabled=True,
        readings=map(_reading, value.readings),
        margins=map(_margin, value.margins),
        reasons=map(reason, value.decision.reasons),
        blocks=map(_block, value.decision.blocks),
        would_start=value.decision.start,
        new_edits=value.new_edits,
        cycles=value.cycles,
        last_cycle=convert.optional_time(value.cycle_ms or None),
        adapter_since=convert.optional_time(value.adapter_since_ms or None),
        past=map(_reading, value.past),
    )


def reason(value: Reason) -> pb.DriftReason:
    return pb.DriftReason(kind=value.kind, name=value.name, detail=value.detail)


def _reading(value: Reading) -> pb.DriftReading:
    return pb.DriftReading(
        name=value.name, value=value.value, n=value.n, time=convert.timestamp(value.time_ms)
    )


def _margin(value: Margin) -> pb.DriftMargin:
    return pb.DriftMargin(
        name=value.name,
        kind=value.kind,
        value=value.value,
        limit=value.limit,
        margin=value.margin,
        n=value.n,
        needed=value.needed,
        reason=value.reason,
    )


def _block(value: Block) -> pb.DriftBlock:
    return pb.DriftBlock(name=value.name, detail=value.detail, until=convert.optional_time(value.until_ms))


def realignment(value: Run) -> pb.Realignment:
    return pb.Realignment(
        id=value.id,
        state=value.state.value,
        trigger=value.trigger.value,
        reasons=value.reasons,
        tainted=value.tainted,
        created=convert.timestamp(value.created_ms),
        started=convert.optional_time(value.started_ms),
        ended=convert.optional_time(value.ended_ms),
        attempt=value.attempt,
        adapter=value.adapter,
        adapter_sha256=value.adapter_sha256,
        epoch=value.epoch,
        facts=value.facts,
        anchor=value.anchor,
        probes=value.probes,
        rows=value.rows,
        data_hash=value.data_hash,
        message=value.message,
        progress=_progress(value.progress),
        verdict_json=json.dumps(value.verdict) if value.verdict else "",
    )


def _progress(value: Progress) -> pb.RealignmentProgress:
    return pb.RealignmentProgress(
        phase=value.phase,
        step=value.step,
        total=value.total,
        loss=value.loss,
        rows_per_s=value.rows_per_s,
        remaining_s=value.remaining_s,
    )
