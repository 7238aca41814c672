"""The reading half of ingest: stays connected, knows every position, and stops where history is missing."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from daemon.ingest.values import AcceptedGap, IngestMemory, IngestSettings, PartitionStatus
from daemon.kafka.history import (
    Gap,
    GapKind,
    Offsets,
    Polled,
    PositionLost,
    TopicMissing,
    Topology,
    Unreadable,
    locate,
)
from daemon.kafka.source import POLL_MAX_BYTES, Source
from daemon.lifecycle import Lifecycle
from lte_runtime.errors import Refused, Retry
from lte_runtime.store.records import Truncated
from lte_runtime.types import Batch, RawRecord, TopicPartition

log = logging.getLogger(__name__)
OPEN_GAP = "open_gap"
ACCEPTED_GAP = "accepted_gap"
# Time a batch gathers under load, where many records then share one commit; an idle one never waits.
GATHER_S = 0.02


class TopicReader:
    """Used by the ingest thread alone, but for `partitions` and `gap`.

    `next` is the position up to which everything was applied; only `applied` moves it.
    """

    def __init__(
        self,
        memory: IngestMemory,
        source: Source,
        lifecycle: Lifecycle,
        settings: IngestSettings,
        stop: threading.Event,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._memory = memory
        self._source = source
        self._lifecycle = lifecycle
        self._settings = settings
        self._stop = stop
        self._monotonic = monotonic
        self.connected = False
        self.gap: Gap | None = None
        self.next: dict[TopicPartition, int] = dict(memory.next_offsets())
        self._ends: Offsets = {}
        self._targets: Offsets = {}
        self._truncated: Offsets = {}
        self._paused = False
        self._interrupted = False
        self._client_failed = False
        self._advanced_at = monotonic()
        self._silence = ""
        self._connect_at = 0.0
        self._connect_pause = settings.reconnect_s
        self._refresh_at = 0.0
        self._seen_at = 0.0

    def read(self, hold: bool, most: int) -> Polled | None:
        """What has arrived, `most` records; with `hold`, nothing, while polling goes on.

        None: reading was interrupted, and whatever was not `applied` will come again. Raises `Refused` when
        the topic must not or cannot be read.
        """
        if self._client_failed:
            self.drop()
            return None
        try:
            if not self.connected:
                self._connect()
            if not self.connected:
                return None
            self._rewind()
            if not hold:
                self._compare_topology()
            self._pause(hold or self.gap is not None)
            self._refresh_ends()
            return self._gather(most)
        except Unreadable:
            self.drop()  # the client cannot go on after a record that it could not parse
            raise
        except Retry as error:
            self.interrupt(error)
        return None

    def interrupt(self, error: Retry) -> None:
        """Reading met this error: whatever was not `applied` will come again."""
        if isinstance(error, PositionLost):
            self._lose_position(error)
        elif isinstance(error, TopicMissing):
            self._lose_topic(str(error))
        else:
            self._wait_for_brokers(error)

    def applied(self, offsets: Offsets) -> None:
        """Records up to `offsets` are durable."""
        self._advanced_at = self._monotonic()
        self.next.update(offsets)
        self._source.commit(offsets)

    def drop(self) -> None:
        """Connect anew at the next `read`."""
        self.connected, self._connect_at, self._client_failed = False, 0.0, False
        self._lifecycle.set_connected(False)

    def caught_up(self) -> bool:
        """Whether the end offsets that were read at start have been reached."""
        if not self.connected or self.gap is not None or not self._targets:
            return False
        return all(self.next.get(partition, 0) >= end for partition, end in self._targets.items())

    def stalls(self, idle: bool) -> bool:
        """Whether no record has come for `stuck_after_s` although the topic has newer ones. Call after each
        read; `idle`: nothing may be read now."""
        now = self._monotonic()
        behind = any(status.lag for status in self.partitions().values())
        if idle or not behind or self.gap is not None or self._lifecycle.stale:
            self._advanced_at = now
        return now - self._advanced_at > self._settings.stuck_after_s

    def accept_gap(self, at_ms: int, *, withdraw_lost: bool = False) -> AcceptedGap:
        """Store where reading goes on, and go on. Edits that only the cut part of a log held stay, or are
        taken out with `withdraw_lost`. Raises `Refused` without a gap, `Retry` without brokers."""
        gap = self._gap_now()
        lost = Truncated((), 0)
        if gap.cut:
            lost = self._memory.accept_truncation(gap.cut, withdraw=withdraw_lost)
        self._memory.apply(Batch((), (), dict(gap.resume_at)))
        self._memory.meta_set(ACCEPTED_GAP, json.dumps({**_as_json(gap), "accepted_ms": at_ms}))
        self._memory.meta_set(OPEN_GAP, "")
        log.warning(
            "gap accepted: %s; %d edits stood only in the lost part of the log and were %s",
            gap.message,
            lost.lost_count,
            "withdrawn" if withdraw_lost else "kept",
        )
        self.gap, self._truncated, self.next = None, {}, {}
        self._lifecycle.clear_gap()
        self._locate()
        return AcceptedGap(gap, lost)

    def lost_in_gap(self) -> AcceptedGap:
        """What accepting the gap would mean, without doing it. Raises as `accept_gap`."""
        gap = self._gap_now()
        return AcceptedGap(gap, self._memory.lost_by(gap.cut) if gap.cut else Truncated((), 0))

    def _gap_now(self) -> Gap:
        if self.gap is not None:
            self._locate()
        if self.gap is None:
            raise Refused("there is no gap to accept")
        return self.gap

    def partitions(self) -> dict[TopicPartition, PartitionStatus]:
        ends = self._ends
        return {
            partition: PartitionStatus(
                at, max(ends.get(partition, 0), at), max(0, ends.get(partition, 0) - at)
            )
            for partition, at in dict(self.next).items()
        }

    # -- finding the place ---------------------------------------------------------------------------------

    def _connect(self) -> None:
        if self._monotonic() < self._connect_at:
            self._stop.wait(min(self._settings.poll_s, self._settings.reconnect_s))
            return
        self._connect_pause = min(self._connect_pause * 2, self._settings.reconnect_max_s)
        self._connect_at = self._monotonic() + self._connect_pause
        self._source.connect()
        self._locate()
        self._connect_pause = self._settings.reconnect_s

    def _locate(self) -> None:
        """Decide where reading starts, or find that history is missing there."""
        topology = self._source.topology()
        if topology is None:
            raise TopicMissing(f"topic {self._source.topic} does not exist")
        beginning, self._ends = self._source.beginning_offsets(), self._source.end_offsets()
        limit = {
            partition: min(at, self._truncated.get(partition, at)) for partition, at in self._ends.items()
        }
        start = locate(self._applied_offsets(topology.topic_id), topology, beginning, limit)
        gap = start if isinstance(start, Gap) else self._open_gap(topology)
        if gap is not None:
            self._enter_gap(gap)
        elif not isinstance(start, Gap):
            self._start_at(start)
        self._seen_at = self._monotonic()
        self._lifecycle.clear_degraded("topic")

    def _applied_offsets(self, topic_id: str) -> Offsets:
        """Durable offsets, moved on to where this process has read over records that no reader sees."""
        offsets = dict(self._memory.next_offsets())
        if any(partition.topic_id == topic_id for partition in offsets):
            offsets.update(
                {partition: max(at, offsets.get(partition, 0)) for partition, at in self.next.items()}
            )
        return offsets

    def _open_gap(self, topology: Topology) -> Gap | None:
        """A gap that was found earlier stays one, even when the log has grown over it since."""
        gap = self.gap or _from_json(self._memory.meta_get(OPEN_GAP))
        if gap is None or set(gap.resume_at) - set(topology.topic_partitions()):
            return None
        return gap

    def _enter_gap(self, gap: Gap) -> None:
        if self.gap is None:
            log.error("history is missing: %s; `lte accept-gap --dry-run` shows what is lost", gap.message)
        if self.gap != gap:
            self._memory.meta_set(OPEN_GAP, json.dumps(_as_json(gap)))
        self.gap = gap
        self._lifecycle.set_gap(f"gap: {gap.message}", servable=bool(self._memory.next_offsets()))
        self._assign(gap.resume_at)

    def _start_at(self, start: Offsets) -> None:
        self._assign(start)
        self.next = dict(start)
        if not self._lifecycle.conditions.caught_up:
            self._targets = self._ends
            self._lifecycle.set_catching_up()

    def _assign(self, positions: Offsets) -> None:
        self._source.assign(positions, self._leader_epochs(positions))
        self._source.pause()
        self.connected, self._paused, self._silence = True, True, ""
        self._lifecycle.set_connected(True)
        self._lifecycle.clear_degraded("brokers")

    def _leader_epochs(self, positions: Offsets) -> dict[TopicPartition, int]:
        """Those of records right before the positions: an earlier record tells nothing of what follows it."""
        durable = self._memory.next_offsets()
        epochs = self._memory.leader_epochs()
        return {
            partition: epoch
            for partition, epoch in epochs.items()
            if positions.get(partition) == durable.get(partition)
        }

    # -- staying there -------------------------------------------------------------------------------------

    def _rewind(self) -> None:
        """After an interruption, do not trust the client's positions: go back to what was applied."""
        if self._interrupted and self.gap is None:
            self._assign(self.next)
        self._interrupted = False

    def _pause(self, paused: bool) -> None:
        if paused != self._paused:
            (self._source.pause if paused else self._source.resume)()
            self._paused = paused

    def _compare_topology(self) -> None:
        """New partitions and another topic id are seen in what the client hears anyway."""
        if self.gap is not None:
            return
        topology = self._source.topology()
        if topology is None:
            self._note_missing()
            return
        self._seen_at = self._monotonic()
        if set(topology.topic_partitions()) - set(self.next):
            log.info("the partitions of topic %s changed: %s", topology.topic, topology.partitions)
            self._locate()
        self._lifecycle.clear_degraded("topic")

    def _note_missing(self) -> None:
        # A broker that has just started may not know its topics for a moment.
        if self._monotonic() - self._seen_at > self._settings.refresh_s:
            self._lifecycle.set_degraded("topic", f"topic {self._source.topic} is missing")

    def _refresh_ends(self) -> None:
        if self._monotonic() < self._refresh_at or self._lifecycle.stale or self.gap is not None:
            return
        self._refresh_at = self._monotonic() + self._settings.refresh_s
        if self._source.topology() is not None:
            self._ends = self._source.end_offsets()

    def _gather(self, most: int) -> Polled:
        """What has arrived; under load more of it, until a cap is reached."""
        polled = self._source.poll(self._settings.poll_s, most)
        deadline = self._monotonic() + GATHER_S
        # A single record is what an idle topic brings: it must not wait for company.
        while 1 < len(polled.records) < most and size_of(polled.records) < POLL_MAX_BYTES:
            more = self._poll_more(most - len(polled.records))
            if more is None or not more.records:
                break
            polled = replace(more, records=polled.records + more.records)
            if self._monotonic() >= deadline:
                break
        return replace(polled, records=self._memory.placed(polled.records))

    def _poll_more(self, count: int) -> Polled | None:
        """Records that are here already. A fault must not lose what was gathered: the next poll meets it."""
        try:
            return self._source.poll(0.0, count)
        except Unreadable as error:
            log.debug("%s", error)
            self._client_failed = True  # the next one reads again from what was applied
            return None
        except (Retry, Refused) as error:
            log.debug("%s", error)
            return None

    # -- losing it -----------------------------------------------------------------------------------------

    def _lose_position(self, error: PositionLost) -> None:
        log.warning("position lost: %s", error)
        self._truncated = {**self._truncated, **error.truncated}
        self.drop()

    def _lose_topic(self, reason: str) -> None:
        self.connected = False
        self._lifecycle.set_connected(False)
        self._lifecycle.set_degraded("topic", reason)

    def _wait_for_brokers(self, error: Retry) -> None:
        self._interrupted = True
        self._report_silence(str(error))
        heard = self._source.last_answer()
        silent = heard is None or self._monotonic() - heard > self._settings.renew_after_s
        if self.connected and silent:
            # A client without an answer for this long is not trusted to find back by itself.
            self.drop()
        self._stop.wait(0.05)

    def _report_silence(self, message: str) -> None:
        """Why nothing comes; while answers go on from what there is, `stale` says enough."""
        if self._silence != message:
            log.warning("no records from the brokers: %s", message)
        self._silence = message
        if not self._lifecycle.conditions.caught_up:
            self._lifecycle.set_degraded("brokers", message)


def size_of(records: Sequence[RawRecord]) -> int:
    """Bytes of keys and values."""
    return sum(len(record.key or b"") + len(record.value or b"") for record in records)


def _as_json(gap: Gap) -> dict[str, object]:
    return {
        "kind": gap.kind,
        "message": gap.message,
        "known": _offsets_json(gap.positions),
        "resume_at": _offsets_json(gap.resume_at),
    }


def _offsets_json(offsets: Offsets) -> list[list[object]]:
    return [[tp.topic_id, tp.partition, at] for tp, at in sorted(offsets.items())]


def _from_json(text: str | None) -> Gap | None:
    if not text:
        return None
    stored = json.loads(text)
    positions, resume_at = (
        {TopicPartition(topic_id, partition): at for topic_id, partition, at in stored[name]}
        for name in ("known", "resume_at")
    )
    return Gap(GapKind(stored["kind"]), positions, resume_at, stored["message"])
