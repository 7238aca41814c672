"""The values of ingest: its settings and reports, and the part of the edit memory that it needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol

from daemon.ingest.publisher_guard import GuardSettings
from daemon.kafka.history import Gap
from lte_runtime.facts.events import EventLimits
from lte_runtime.store.records import Applied, Truncated
from lte_runtime.types import Batch, Position, RawRecord, TopicPartition

# Pauses after no broker was reached, which double from the first to the longest: a broker that is back is
# noticed within two seconds, and one that stays away costs one attempt in that time.
RECONNECT_S, RECONNECT_MAX_S = 0.2, 2.0


class IngestAttempts(Protocol):
    """What ingest needs of `memory.attempts.Attempts`."""

    careful: int

    def is_deadly(self, position: Position) -> bool: ...
    def trying(self, positions: Sequence[Position]) -> AbstractContextManager[None]: ...
    def done(self, positions: Sequence[Position]) -> None: ...


class IngestMemory(Protocol):
    """What ingest needs of `EditMemory`. `apply` is atomic; it raises `Retry`, or what `confirm` raised, when
    nothing was applied."""

    @property
    def attempts(self) -> IngestAttempts: ...
    def next_offsets(self) -> Mapping[TopicPartition, int]: ...
    def leader_epochs(self) -> Mapping[TopicPartition, int]: ...
    def placed(self, records: Sequence[RawRecord]) -> tuple[RawRecord, ...]: ...
    def lost_by(self, resume_at: Mapping[TopicPartition, int]) -> Truncated: ...
    def accept_truncation(self, resume_at: Mapping[TopicPartition, int], *, withdraw: bool) -> Truncated: ...
    def apply(self, batch: Batch, confirm: Callable[[], None] = ...) -> Applied: ...
    def requeue(self, ids: Sequence[int]) -> Sequence[RawRecord]: ...
    def quarantine_bytes(self) -> int: ...
    def meta_get(self, name: str) -> str | None: ...
    def meta_set(self, name: str, value: str) -> None: ...


@dataclass(frozen=True)
class IngestSettings:
    """Times in seconds. `max_records` caps a batch; bytes and gathering time have limits of their own."""

    max_records: int = 512
    poll_s: float = 0.25
    refresh_s: float = 5.0
    reconnect_s: float = RECONNECT_S
    reconnect_max_s: float = RECONNECT_MAX_S
    serve_stale_after_s: float = 10.0
    renew_after_s: float = 30.0
    stuck_after_s: float = 60.0
    """No step takes so long while all is well: connecting takes up to 20 s, a full batch on a slow CPU 30."""
    quarantine_max_bytes: int = 1 << 30
    limits: EventLimits = field(default_factory=EventLimits)
    guard: GuardSettings = field(default_factory=GuardSettings)


@dataclass(frozen=True)
class BatchReport:
    """One applied batch, for metrics. `rejected` by code; `freshness_ms`: broker's time to retrievable."""

    records: int
    applied: Applied
    rejected: Mapping[str, int]
    seconds: float
    freshness_ms: tuple[float, ...]


UNKNOWN_LAG = -1


@dataclass(frozen=True)
class PartitionStatus:
    """`next`: first offset not applied; `end`: last stable offset at the last request. `lag` is
    `UNKNOWN_LAG` while ingest is stuck, and nobody asks for the end."""

    next: int
    end: int
    lag: int


@dataclass(frozen=True)
class IngestStatus:
    """`records` and `rejected` since the start; `alerts`: publishers that became suspect since then."""

    partitions: Mapping[TopicPartition, PartitionStatus] = field(default_factory=dict)
    last_event_ms: int | None = None
    records: int = 0
    rejected: int = 0
    alerts: int = 0
    bad_publishers: Mapping[str, int] = field(default_factory=dict)
    gap: Gap | None = None


@dataclass(frozen=True)
class AcceptedGap:
    """A gap, and what only the part of the log held that is lost."""

    gap: Gap
    lost: Truncated


@dataclass(frozen=True)
class ReplayReport:
    """What became of replayed records: edit ids that were applied, records that are quarantined again."""

    records: int
    applied: tuple[str, ...]
    rejected: int
