"""A topic in memory and a `Source` over it: for tests and for embedding without a broker."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from daemon.kafka.history import Offsets, Polled, PositionLost, TopicMissing, Topology
from lte_runtime.errors import Retry
from lte_runtime.types import Position, RawRecord, TopicPartition

Header = tuple[str, bytes]
_ids = itertools.count(1)


@dataclass
class _Partition:
    """`start`: first offset that is still there; `records[i]` has offset `base + i`. `cuts`: where the log
    ended each time that it lost its newest records; their number is the leader epoch."""

    base: int = 0
    start: int = 0
    records: list[RawRecord] = field(default_factory=list)
    cuts: list[int] = field(default_factory=list)

    @property
    def epoch(self) -> int:
        return len(self.cuts)

    def end_of_epoch(self, epoch: int) -> int | None:
        """Where a log of this epoch was cut since; None when it was not."""
        return min(self.cuts[epoch:], default=None)

    @property
    def end(self) -> int:
        return self.base + len(self.records)


class MemoryLog:
    """A topic that can be written, trimmed, widened, deleted and re-created; thread-safe.

    `down` plays an absent broker: every request of a source fails until it is False again.
    """

    def __init__(self, topic: str = "lte.edits", partitions: int = 3) -> None:
        self.topic = topic
        self.changed = threading.Condition()
        self.down = False
        self.topic_id = ""
        self.partitions: list[_Partition] = []
        self.committed: dict[int, int] = {}
        self.create(partitions)

    def create(self, partitions: int) -> None:
        """The topic anew, under another id; also used to re-create it."""
        with self.changed:
            self.topic_id = f"memory-topic-{next(_ids):06d}"
            self.partitions = [_Partition() for _ in range(partitions)]
            self.changed.notify_all()

    def delete(self) -> None:
        with self.changed:
            self.partitions = []
            self.changed.notify_all()

    def add_partitions(self, total: int) -> None:
        with self.changed:
            self.partitions += [_Partition() for _ in range(total - len(self.partitions))]
            self.changed.notify_all()

    def append(
        self,
        value: bytes | None,
        *,
        key: bytes | None = None,
        partition: int = 0,
        headers: Sequence[Header] = (),
        timestamp_ms: int | None = None,
    ) -> Position:
        """Write one record; returns where it stands."""
        with self.changed:
            log = self.partitions[partition]
            position = Position(self.topic_id, partition, log.end)
            at = int(time.time() * 1000) if timestamp_ms is None else timestamp_ms
            log.records.append(RawRecord(self.topic, position, key, value, tuple(headers), at))
            self.changed.notify_all()
        return position

    def trim(self, partition: int, before: int) -> None:
        """Delete the records below an offset, as retention does."""
        with self.changed:
            self.partitions[partition].start = before
            self.changed.notify_all()

    def truncate(self, partition: int, end: int) -> None:
        """Lose the newest records, as an unclean election does, which begins another leader epoch."""
        with self.changed:
            log = self.partitions[partition]
            del log.records[end - log.base :]
            log.cuts.append(end)
            self.changed.notify_all()


class MemorySource:
    """`Source` over a `MemoryLog`, with the same promises as the one over Kafka."""

    def __init__(self, log: MemoryLog, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.topic = log.topic
        self._log = log
        self._monotonic = monotonic
        self._topic_id = ""
        self._positions: dict[int, int] = {}
        self._epochs: dict[int, int] = {}
        self._paused = False
        self._last_answer: float | None = None

    def connect(self) -> Topology:
        with self._log.changed:
            self._answer()
            topology = self.topology()
        if topology is None:
            raise TopicMissing(f"topic {self.topic} does not exist")
        self._topic_id, self._positions, self._paused = topology.topic_id, {}, False
        return topology

    def topology(self) -> Topology | None:
        log = self._log
        if not log.partitions:
            return None
        return Topology(self.topic, log.topic_id, tuple(range(len(log.partitions))))

    def beginning_offsets(self) -> Offsets:
        with self._log.changed:
            self._answer()
            return {self._ours(i): log.start for i, log in enumerate(self._log.partitions)}

    def end_offsets(self) -> Offsets:
        with self._log.changed:
            self._answer()
            return {self._ours(i): log.end for i, log in enumerate(self._log.partitions)}

    def assign(self, positions: Offsets, leader_epochs: Mapping[TopicPartition, int] | None = None) -> None:
        self._topic_id = next(iter(positions)).topic_id
        self._positions = {tp.partition: offset for tp, offset in positions.items()}
        self._epochs = {tp.partition: epoch for tp, epoch in (leader_epochs or {}).items()}

    def poll(self, timeout_s: float, max_records: int) -> Polled:
        deadline = time.monotonic() + timeout_s
        with self._log.changed:
            while True:
                self._answer()
                records = [] if self._paused else self._take(max_records)
                remaining_s = deadline - time.monotonic()
                if records or remaining_s <= 0:
                    return Polled(tuple(records), self._current(), leader_epochs=self._leader_epochs())
                self._log.changed.wait(remaining_s)

    def pause(self) -> None:
        self._paused = True

    def resume(self) -> None:
        self._paused = False

    def commit(self, next_offsets: Offsets) -> None:
        self._log.committed.update({tp.partition: at for tp, at in next_offsets.items()})

    def last_answer(self) -> float | None:
        return self._last_answer

    def close(self) -> None:
        self._positions = {}

    def _answer(self) -> None:
        if self._log.down:
            raise Retry(f"{self.topic}: no broker answers")
        self._last_answer = self._monotonic()

    def _take(self, max_records: int) -> list[RawRecord]:
        self._check_positions()
        records: list[RawRecord] = []
        for partition, position in self._positions.items():
            if partition < len(self._log.partitions):
                log = self._log.partitions[partition]
                arrived = log.records[position - log.base : position - log.base + max_records - len(records)]
                self._positions[partition] = position + len(arrived)
                if arrived:
                    self._epochs[partition] = log.epoch
                records += arrived
        return records

    def _check_positions(self) -> None:
        if not self._log.partitions:
            return
        if self._log.topic_id != self._topic_id and self._positions:
            raise PositionLost(f"topic {self.topic} is not {self._topic_id} any more")
        for partition, position in self._positions.items():
            log = self._log.partitions[partition]
            cut = log.end_of_epoch(self._epochs.get(partition, log.epoch))
            if cut is not None and cut < position:
                raise PositionLost(f"{self.topic}-{partition}: cut at {cut}", {self._ours(partition): cut})
            if not log.start <= position <= log.end:
                raise PositionLost(f"{self.topic}-{partition}: {position} is out of range")

    def _leader_epochs(self) -> Mapping[TopicPartition, int]:
        return {self._ours(partition): epoch for partition, epoch in self._epochs.items()}

    def _current(self) -> Offsets:
        return {TopicPartition(self._topic_id, partition): at for partition, at in self._positions.items()}

    def _ours(self, partition: int) -> TopicPartition:
        return TopicPartition(self._log.topic_id, partition)
