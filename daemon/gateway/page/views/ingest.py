"""State of the daemon and how far it has read. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from daemon.gateway.page.views.formats import BAD, GOOD, PLAIN, WARN, milliseconds
from daemon.rpc.gen.lte.v1 import admin_service_pb2, edit_service_pb2

_TONES = {
    "READY": GOOD,
    "STARTING": WARN,
    "CATCHING_UP": WARN,
    "DEGRADED": WARN,
    "GAP": BAD,
    "SUSPENDED": BAD,
}
_ADVICE = {
    "STARTING": "The daemon loads its model; questions are answered when it is READY.",
    "CATCHING_UP": "The daemon reads events that arrived before it started; it is READY when the lag is 0.",
    "DEGRADED": "Questions are answered, and something is not as it should be: the reasons below say what.",
    "GAP": "History is missing on the topic. `lte accept-gap --dry-run` says what it would mean to go on.",
    "SUSPENDED": "Ingest is suspended. The reasons below say why; `lte ingest resume` goes on.",
    "STOPPING": "The daemon is stopping; start it again with `lte serve` or `lte up`.",
}


@dataclass(frozen=True, slots=True)
class PartitionView:
    """`lag` in records, None: unknown."""

    partition: int
    next_offset: int
    end_offset: int
    lag: int | None


@dataclass(frozen=True, slots=True)
class IngestView:
    """`lag` is over all partitions, None where one is unknown. Times are milliseconds since the epoch."""

    state: str
    tone: str
    advice: str
    stale: bool
    reasons: tuple[str, ...]
    gap: str
    version: str
    started_ms: int
    model: str
    engine: str
    lag: int | None
    partitions: tuple[PartitionView, ...]
    last_event_ms: int | None
    rejected: int
    facts: int
    edits: int
    state_bytes: int
    questions: int
    waiting: int


def ingest_view(status: admin_service_pb2.GetStatusResponse) -> IngestView:
    """What an operator sees of ingest and freshness."""
    partitions = tuple(map(_partition, status.ingest.partitions))
    lags = [partition.lag for partition in partitions if partition.lag is not None]
    ingest, memory, engine = status.ingest, status.memory, status.engine
    return IngestView(
        state=status.state,
        tone=WARN if status.stale and status.state == "READY" else _TONES.get(status.state, PLAIN),
        advice=_ADVICE.get(status.state, ""),
        stale=status.stale,
        reasons=tuple(status.reasons),
        gap=ingest.gap,
        version=status.version,
        started_ms=milliseconds(status.started),
        model=engine.model,
        engine=f"{engine.engine}/{engine.dtype} on {engine.device}",
        lag=sum(lags) if len(lags) == len(partitions) else None,
        partitions=partitions,
        last_event_ms=milliseconds(ingest.last_event) if ingest.HasField("last_event") else None,
        rejected=ingest.rejected,
        facts=memory.current_facts,
        edits=memory.edits,
        state_bytes=memory.state_bytes,
        questions=engine.requests,
        waiting=engine.queue_depth,
    )


def _partition(status: admin_service_pb2.PartitionStatus) -> PartitionView:
    return PartitionView(
        partition=status.partition,
        next_offset=status.next_offset,
        end_offset=status.end_offset,
        lag=status.lag if status.lag >= 0 else None,
    )


@dataclass(frozen=True, slots=True)
class PublicView:
    """What anybody may see: whether questions are answered, and the newest edit that is visible to them."""

    serving: bool
    newest_ms: int | None


def public_view(serving: bool, newest: edit_service_pb2.ListEditsResponse | None) -> PublicView:
    """Health, and the newest edit of the caller's namespace."""
    edits = newest.edits if newest else ()
    return PublicView(serving, milliseconds(edits[0].timestamp) if edits else None)
