"""Where reading starts, and whether history is missing there. Pure: offsets in, decision out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from lte_runtime.errors import Refused, Retry
from lte_runtime.types import Position, RawRecord, TopicPartition

Offsets = Mapping[TopicPartition, int]


class GapKind(StrEnum):
    TRIMMED = "trimmed"
    RECREATED = "recreated"
    BEYOND_END = "beyond_end"


@dataclass(frozen=True)
class Topology:
    """What brokers say of the topic: its id (a new one when it was re-created) and its partitions."""

    topic: str
    topic_id: str
    partitions: tuple[int, ...]

    def topic_partitions(self) -> tuple[TopicPartition, ...]:
        return tuple(TopicPartition(self.topic_id, partition) for partition in self.partitions)


@dataclass(frozen=True)
class Gap:
    """History that cannot be read. `positions`: up to where partitions were read; `resume_at`: where every
    partition goes on once an operator accepts."""

    kind: GapKind
    positions: Offsets
    resume_at: Offsets
    message: str

    @property
    def cut(self) -> Offsets:
        """Where partitions go on whose log ends before the position that was read."""
        return {
            partition: at for partition, at in self.resume_at.items() if at < self.positions.get(partition, 0)
        }


@dataclass(frozen=True)
class Polled:
    """Records in offset order per partition, and the position of each assigned partition after them.

    Positions move without records too (transaction markers, aborted and compacted records). `confirm` returns
    once all records are known to be of the assigned topic id; nothing of them may be kept before. It raises
    `PositionLost` or `Retry`, and then nothing has been passed over.
    """

    records: tuple[RawRecord, ...]
    next_offsets: Offsets
    confirm: Callable[[], None] = lambda: None
    leader_epochs: Mapping[TopicPartition, int] = field(default_factory=dict)
    """The leader epoch of the last record before each of these positions, where it is known."""


class PositionLost(Retry):
    """The log does not have the position any more, or the topic is another: locate again.

    `truncated` names partitions whose log ends before the position although offsets may have grown since.
    """

    def __init__(self, message: str, truncated: Offsets | None = None) -> None:
        super().__init__(message)
        self.truncated: Offsets = truncated or {}


class TopicMissing(Retry):
    """Brokers answer, and do not know the topic."""


class Unreadable(Refused):
    """A record that this process cannot read (codec, checksum): `code` names why, `position` where.

    What came before it in its partition has been delivered.
    """

    def __init__(self, code: str, topic: str, position: Position, reason: str) -> None:
        partition, offset = position.partition, position.offset
        super().__init__(
            f"{code}: topic {topic}, partition {partition}, offset {offset} cannot be read: {reason}. "
            "Remove the cause and run `lte ingest resume`, or leave the record out: "
            f"`lte ingest skip --partition {partition} --offset {offset}`"
        )
        self.code, self.position = code, position


def locate(positions: Offsets, topology: Topology, beginning: Offsets, end: Offsets) -> Offsets | Gap:
    """Start offset of each partition of `topology`, or the gap between `positions` and the log.

    `positions` are the edit memory's next offsets, perhaps of earlier incarnations of the topic. A partition
    without one is new and is read from 0, so that a trimmed beginning is a gap for it too.
    """
    partitions = topology.topic_partitions()
    if positions and not any(partition.topic_id == topology.topic_id for partition in positions):
        return _recreated(positions, topology, beginning)
    start = {partition: positions.get(partition, 0) for partition in partitions}
    trimmed = [partition for partition in partitions if start[partition] < beginning[partition]]
    beyond = [partition for partition in partitions if start[partition] > end[partition]]
    if not trimmed and not beyond:
        return start
    resume_at = {
        partition: max(beginning[partition], min(start[partition], end[partition]))
        for partition in partitions
    }
    kind, where = (GapKind.TRIMMED, trimmed) if trimmed else (GapKind.BEYOND_END, beyond)
    return Gap(kind, start, resume_at, _describe(kind, topology, where, start, beginning, end))


def _recreated(positions: Offsets, topology: Topology, beginning: Offsets) -> Gap:
    ids = ", ".join(sorted({partition.topic_id for partition in positions}))
    message = (
        f"topic {topology.topic} was created again: it has id {topology.topic_id} now, "
        f"the state was read from id {ids}"
    )
    resume_at = {partition: beginning[partition] for partition in topology.topic_partitions()}
    return Gap(GapKind.RECREATED, positions, resume_at, message)


def _describe(
    kind: GapKind,
    topology: Topology,
    where: list[TopicPartition],
    start: Offsets,
    beginning: Offsets,
    end: Offsets,
) -> str:
    parts = (
        f"partition {tp.partition}: position {start[tp]}, log {beginning[tp]}..{end[tp]}" for tp in where
    )
    return f"topic {topology.topic} {kind}: {'; '.join(parts)}"
