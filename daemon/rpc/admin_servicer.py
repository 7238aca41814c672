"""AdminService: for operators, on a socket of its own."""

# ruff: noqa: ARG002 - the signatures are gRPC's.

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import grpc

from daemon.realign.control import check_reason
from daemon.rpc import adapter_convert, convert, drift_convert
from daemon.rpc.call_context import principal_of
from daemon.rpc.edit_servicer import key_of, needed, page_size
from daemon.rpc.gen.lte.v1 import admin_service_pb2 as pb
from daemon.rpc.gen.lte.v1 import admin_service_pb2_grpc
from daemon.rpc.gen.lte.v1 import common_pb2 as common
from daemon.rpc.services import Services
from lte_runtime.align.runs import Trigger
from lte_runtime.answer.engine.protocol import Engine
from lte_runtime.drift.past import MOST_PAST
from lte_runtime.errors import BadRequest
from lte_runtime.store.records import MemoryStatus, QuarantineRow, SnapshotInfo
from lte_runtime.types import Edit, Op

if TYPE_CHECKING:
    from daemon.ingest.values import IngestStatus

MOST_REPLAYED = 1000
SAMPLE, K = 64, 3
# Time in which an answer still reaches its caller before the deadline.
REPLY_S = 0.2


class AdminServicer(admin_service_pb2_grpc.AdminServiceServicer):
    def __init__(self, services: Services) -> None:
        self._services = services

    def GetStatus(self, request: pb.GetStatusRequest, context: grpc.ServicerContext) -> pb.GetStatusResponse:
        services, about = self._services, self._services.about
        now = services.lifecycle.status()
        return pb.GetStatusResponse(
            state=now.state.value,
            stale=now.stale,
            reasons=now.reasons,
            version=about.version,
            pid=os.getpid(),
            started=convert.timestamp(about.started_ms),
            memory=memory_status(services.memory.status()),
            ingest=None if services.ingest is None else ingest_status(services.ingest.status()),
            engine=engine_status(services.engine),
            gate=pb.GateStatus(encoder=about.gate_encoder, threshold=about.gate_threshold),
        )

    def VerifyIndex(
        self, request: pb.VerifyIndexRequest, context: grpc.ServicerContext
    ) -> pb.VerifyIndexResponse:
        memory = self._services.memory
        report = memory.verify()
        return pb.VerifyIndexResponse(
            ok=report.ok,
            keys=report.keys,
            facts=report.facts,
            vectors=report.vectors,
            problems=report.problems,
            recall=memory.recall_self_check(sample=SAMPLE, k=K),
        )

    def RebuildIndex(
        self, request: pb.RebuildIndexRequest, context: grpc.ServicerContext
    ) -> pb.RebuildIndexResponse:
        self._services.memory.rebuild()
        return pb.RebuildIndexResponse(vectors=self._services.memory.status().vectors_live)

    def TakeSnapshot(
        self, request: pb.TakeSnapshotRequest, context: grpc.ServicerContext
    ) -> pb.TakeSnapshotResponse:
        return pb.TakeSnapshotResponse(snapshot=snapshot(self._services.memory.snapshot()))

    def AcceptGap(self, request: pb.AcceptGapRequest, context: grpc.ServicerContext) -> pb.AcceptGapResponse:
        ingest, timeout_s = self._services.require_ingest(), left_s(context)
        if request.dry_run:
            accepted = ingest.lost_in_gap(timeout_s)
        else:
            accepted = ingest.accept_gap(timeout_s, withdraw_lost=request.withdraw_lost)
        return pb.AcceptGapResponse(
            message=accepted.gap.message,
            resumed_at=convert.watermarks(accepted.gap.resume_at),
            lost=map(lost_edit, accepted.lost.lost),
            lost_count=accepted.lost.lost_count,
            lost_withdrawn=accepted.lost.withdrawn,
        )

    def ResumeIngest(
        self, request: pb.ResumeIngestRequest, context: grpc.ServicerContext
    ) -> pb.ResumeIngestResponse:
        self._services.require_ingest().resume(timeout_s=left_s(context))
        return pb.ResumeIngestResponse()

    def SkipRecord(
        self, request: pb.SkipRecordRequest, context: grpc.ServicerContext
    ) -> pb.SkipRecordResponse:
        resume_at = request.resume_at if request.HasField("resume_at") else None
        ingest = self._services.require_ingest()
        after = ingest.skip(request.partition, request.offset, resume_at, timeout_s=left_s(context))
        return pb.SkipRecordResponse(resumed_at=after)

    def ListDeadLetters(
        self, request: pb.ListDeadLettersRequest, context: grpc.ServicerContext
    ) -> pb.ListDeadLettersResponse:
        size = page_size(request.page_size)
        if request.page_token and not request.page_token.isdecimal():
            raise BadRequest("page_token was not issued by this daemon")
        rows = self._services.memory.quarantine_page(size, int(request.page_token or 0))
        token = str(rows[-1].id) if len(rows) == size else ""
        return pb.ListDeadLettersResponse(dead_letters=map(dead_letter, rows), next_page_token=token)

    def GetDeadLetter(
        self, request: pb.GetDeadLetterRequest, context: grpc.ServicerContext
    ) -> pb.GetDeadLetterResponse:
        row = self._services.memory.quarantine_get(request.id)
        message = dead_letter(row)
        if row.record.key is not None:
            message.record_key = row.record.key
        if row.record.value is not None:
            message.record_value = row.record.value
        for name, value in row.record.headers:
            message.headers.add(name=name, value=value or b"")
        return pb.GetDeadLetterResponse(dead_letter=message)

    def ReplayDeadLetters(
        self, request: pb.ReplayDeadLettersRequest, context: grpc.ServicerContext
    ) -> pb.ReplayDeadLettersResponse:
        if not 0 < len(request.ids) <= MOST_REPLAYED:
            raise BadRequest(f"name 1 to {MOST_REPLAYED} ids, not {len(request.ids)}")
        report = self._services.require_ingest().replay(list(request.ids), timeout_s=left_s(context))
        return pb.ReplayDeadLettersResponse(
            records=report.records, applied_edit_ids=report.applied, rejected=report.rejected
        )

    def EraseFact(self, request: pb.EraseFactRequest, context: grpc.ServicerContext) -> pb.EraseFactResponse:
        key, realigner = key_of(request.key), self._services.realigner
        # A job at work could write the text again into its training rows.
        with realigner.halted(left_s(context)) if realigner else nullcontext():
            receipt = self._services.memory.erase(key)
        return pb.EraseFactResponse(
            receipt_id=receipt.id,
            key_sha256=receipt.key_sha256,
            edits=receipt.edits,
            positions=receipt.positions,
            quarantined=receipt.quarantined,
            vectors=receipt.vectors,
            erased=convert.timestamp(receipt.erased_ms),
            not_covered=receipt.not_covered,
            files=receipt.files,
        )

    # -- adapters --------------------------------------------------------------------------------------

    def ListAdapters(
        self, request: pb.ListAdaptersRequest, context: grpc.ServicerContext
    ) -> pb.ListAdaptersResponse:
        return adapter_convert.listing(self._services.require_adapters().listing())

    def AddAdapter(
        self, request: pb.AddAdapterRequest, context: grpc.ServicerContext
    ) -> pb.AddAdapterResponse:
        manager, directory = self._services.require_adapters(), Path(request.directory)
        if not directory.is_absolute():
            raise BadRequest("directory must be an absolute path on the daemon's machine")
        added = manager.add(directory, {"by": operator(context, "operator"), "note": request.note})
        return pb.AddAdapterResponse(adapter=convert.adapter(added))

    def VerifyAdapter(
        self, request: pb.VerifyAdapterRequest, context: grpc.ServicerContext
    ) -> pb.VerifyAdapterResponse:
        problems = self._services.require_adapters().verify(request.id)
        return pb.VerifyAdapterResponse(ok=not any(problems.values()), problems=problems)

    def ActivateAdapter(
        self, request: pb.ActivateAdapterRequest, context: grpc.ServicerContext
    ) -> pb.ActivateAdapterResponse:
        manager = self._services.require_adapters()
        if not request.id:
            raise BadRequest("id is empty: name an adapter, configured or none")
        moved = manager.activate(request.id, request.reason or f"by {operator(context)}")
        return pb.ActivateAdapterResponse(active=adapter_convert.activation(moved))

    def Rollback(self, request: pb.RollbackRequest, context: grpc.ServicerContext) -> pb.RollbackResponse:
        moved = self._services.require_adapters().rollback(request.reason or f"by {operator(context)}")
        return pb.RollbackResponse(active=adapter_convert.activation(moved))

    # -- drift -----------------------------------------------------------------------------------------

    def GetDrift(self, request: pb.GetDriftRequest, context: grpc.ServicerContext) -> pb.GetDriftResponse:
        if not 0 <= request.past <= MOST_PAST:
            raise BadRequest(f"past must lie between 0 and {MOST_PAST}")
        watch = self._services.drift
        return drift_convert.report(None if watch is None else watch.report(request.past))

    def TriggerRealignment(
        self, request: pb.TriggerRealignmentRequest, context: grpc.ServicerContext
    ) -> pb.TriggerRealignmentResponse:
        reason = check_reason(request.reason or f"requested by {operator(context)}")
        run = self._services.require_realigner().trigger(Trigger.OPERATOR, [reason])
        return pb.TriggerRealignmentResponse(realignment=drift_convert.realignment(run))

    def GetRealignment(
        self, request: pb.GetRealignmentRequest, context: grpc.ServicerContext
    ) -> pb.GetRealignmentResponse:
        run = self._services.require_realigner().runs.get(needed(request.id, "id"))
        return pb.GetRealignmentResponse(realignment=drift_convert.realignment(run))

    def ListRealignments(
        self, request: pb.ListRealignmentsRequest, context: grpc.ServicerContext
    ) -> pb.ListRealignmentsResponse:
        runs = self._services.require_realigner().runs.latest(page_size(request.page_size))
        return pb.ListRealignmentsResponse(realignments=map(drift_convert.realignment, runs))

    def CancelRealignment(
        self, request: pb.CancelRealignmentRequest, context: grpc.ServicerContext
    ) -> pb.CancelRealignmentResponse:
        run = self._services.require_realigner().cancel(needed(request.id, "id"))
        return pb.CancelRealignmentResponse(realignment=drift_convert.realignment(run))

    def WatchRealignment(
        self, request: pb.WatchRealignmentRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.WatchRealignmentResponse]:
        for run in self._services.require_realigner().runs.watch(needed(request.id, "id"), context.is_active):
            yield pb.WatchRealignmentResponse(realignment=drift_convert.realignment(run))


def operator(context: grpc.ServicerContext, unnamed: str = "an operator") -> str:
    """Who acts, for records: the principal's name where it has one."""
    principal = principal_of(context)
    return unnamed if principal.is_anonymous else principal.name


def left_s(context: grpc.ServicerContext, most_s: float = 60.0) -> float:
    """Seconds until the caller must have an answer, at most `most_s`."""
    return min(max((context.time_remaining() or most_s) - REPLY_S, 0.0), most_s)


def snapshot(info: SnapshotInfo) -> pb.Snapshot:
    return pb.Snapshot(
        name=info.name,
        sequence=info.sequence,
        size_bytes=info.size_bytes,
        created=convert.timestamp(info.created_ms),
    )


def memory_status(status: MemoryStatus) -> pb.MemoryStatus:
    return pb.MemoryStatus(
        edits=status.edits,
        keys=status.keys,
        current_facts=status.current_facts,
        vectors_live=status.vectors_live,
        vectors_dead=status.vectors_dead,
        index_path=dict(status.index_path),
        quarantine_rows=status.quarantine_rows,
        quarantine_bytes=status.quarantine_bytes,
        quarantine_pending=status.quarantine_pending,
        state_bytes=status.state_bytes,
        duplicates=status.duplicates,
        conflicts=status.conflicts,
        watermarks=convert.watermarks(status.watermarks),
        encoder=status.encoder,
        snapshot=None if status.snapshot is None else snapshot(status.snapshot),
    )


def ingest_status(status: IngestStatus) -> pb.IngestStatus:
    return pb.IngestStatus(
        partitions=[
            pb.PartitionStatus(
                topic_id=tp.topic_id,
                partition=tp.partition,
                next_offset=at.next,
                end_offset=at.end,
                lag=at.lag,
            )
            for tp, at in sorted(status.partitions.items())
        ],
        last_event=convert.optional_time(status.last_event_ms),
        records=status.records,
        rejected=status.rejected,
        alerts=status.alerts,
        bad_publishers=dict(status.bad_publishers),
        gap=None if status.gap is None else status.gap.message,
    )


def engine_status(engine: Engine) -> pb.EngineStatus:
    stats = engine.stats()
    return pb.EngineStatus(
        **engine.describe(),
        fingerprint=engine.fingerprint,
        adapter=convert.adapter(engine.adapter),
        requests=stats.requests,
        refused=stats.refused,
        batches=stats.batches,
        rows=stats.rows,
        tokens=stats.tokens,
        model_ms=stats.model_ms,
        queue_depth=stats.queue_depth,
        running=stats.running,
    )


def dead_letter(row: QuarantineRow) -> pb.DeadLetter:
    """A row without its bytes."""
    return pb.DeadLetter(
        id=row.id,
        topic=row.record.topic,
        position=convert.position(row.record.position),
        code=row.code,
        message=row.message,
        sha256=row.sha256,
        received=convert.timestamp(row.received_ms),
        state=row.state,
        size_bytes=row.value_bytes,
        timestamp=convert.timestamp(row.record.timestamp_ms),
    )


def lost_edit(edit: Edit) -> pb.LostEdit:
    return pb.LostEdit(
        id=edit.id,
        op=common.OP_ASSERT if edit.op is Op.ASSERT else common.OP_RETRACT,
        key=None if edit.key is None else convert.key(edit.key),
        target=edit.target or "",
        position=convert.position(edit.position),
    )
