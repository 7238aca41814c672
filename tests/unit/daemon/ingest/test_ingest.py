from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from fake_memory import FakeMemory

from daemon.ingest.ingest import BatchReport, Ingest, IngestSettings
from daemon.ingest.publisher_guard import GuardSettings
from daemon.ingest.values import UNKNOWN_LAG
from daemon.kafka.client_internals.unreadable import BAD_NAME_HEADER
from daemon.kafka.history import Offsets, Polled, Topology, Unreadable
from daemon.kafka.memory_source import MemoryLog, MemorySource
from daemon.lifecycle import Lifecycle, State
from lte_runtime.errors import DeadlineExceeded, Fatal, Refused, Retry
from lte_runtime.types import Position, RawRecord, TopicPartition

GUARD_S = 20.0
QUICK = IngestSettings(poll_s=0.02, reconnect_s=0.01, reconnect_max_s=0.05, refresh_s=0.05)


def event(target: str, subject: str = "Ada", publisher: str = "") -> bytes:
    body: dict[str, Any] = {"subject": subject, "relation": "post", "target": target}
    if publisher:
        body["source"] = {"publisher": publisher}
    return json.dumps(body).encode()


@dataclass
class House:
    """Ingest on a memory log, stepped by hand or running in its thread."""

    log: MemoryLog = field(default_factory=MemoryLog)
    memory: FakeMemory = field(default_factory=FakeMemory)
    settings: IngestSettings = QUICK
    now: float = 100.0
    reports: list[BatchReport] = field(default_factory=list)
    rejections: int = 0
    failure: BaseException | None = None

    def __post_init__(self) -> None:
        self.source = MemorySource(self.log, monotonic=lambda: self.now)
        self.start()

    def start(self) -> None:
        """A new process on the same memory and log."""
        self.lifecycle = Lifecycle(monotonic=lambda: self.now)
        self.ingest = Ingest(
            self.memory,
            self.source,
            self.lifecycle,
            self.settings,
            monotonic=lambda: self.now,
            on_batch=self.reports.append,
            on_rejected=self._note_rejection,
        )

    def restart(self, source: MemorySource | None = None) -> None:
        self.source = source or MemorySource(self.log, monotonic=lambda: self.now)
        self.start()

    def step(self, times: int = 3, seconds: float = 0.1) -> None:
        for _ in range(times):
            self.now += seconds
            self.ingest.step()

    def run(self) -> threading.Thread:
        def body() -> None:
            try:
                self.ingest.run()
            except BaseException as error:  # noqa: BLE001 - kept for the test to look at
                self.failure = error

        thread = threading.Thread(target=body, daemon=True)
        thread.start()
        return thread

    def command(self, act: Callable[[], Any]) -> Any:
        """What another thread would get from a command while ingest runs."""
        thread = self.run()
        try:
            return act()
        finally:
            self.ingest.stop()
            thread.join(GUARD_S)
            self.restart()

    def _note_rejection(self) -> None:
        self.rejections += 1

    @property
    def state(self) -> State:
        return self.lifecycle.state


@pytest.fixture
def house() -> House:
    return House()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + GUARD_S
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.005)


def test_an_empty_topic_is_ready_at_once(house: House) -> None:
    house.step()
    assert house.state is State.READY


def test_records_are_applied_with_positions_and_offsets(house: House) -> None:
    house.log.append(event("chair"), partition=1)
    house.step()
    topic_id = house.log.topic_id
    assert house.memory.values() == ["chair"]
    assert list(house.memory.edits) == [Position(topic_id, 1, 0)]
    assert house.memory.next_offsets() == {TopicPartition(topic_id, p): int(p == 1) for p in range(3)}
    assert house.log.committed == {0: 0, 1: 1, 2: 0}
    assert house.ingest.status().partitions[TopicPartition(topic_id, 1)].next == 1


def test_not_ready_before_the_end_offsets_of_the_start(house: House) -> None:
    house.settings = IngestSettings(poll_s=0.02, max_records=2)
    for number in range(7):
        house.log.append(event(str(number)))
    house.restart()
    states = []
    for _ in range(4):
        house.step(1)
        states.append((house.state, len(house.memory.edits)))
    assert states == [
        (State.CATCHING_UP, 2),
        (State.CATCHING_UP, 4),
        (State.CATCHING_UP, 6),
        (State.READY, 7),
    ]


def test_a_restart_goes_on_where_the_memory_is(house: House) -> None:
    house.log.append(event("one"))
    house.step()
    house.log.append(event("two"))
    house.restart()
    house.step()
    assert house.memory.values() == ["one", "two"]
    assert [len(batch.edits) for batch in house.memory.batches] == [1, 1]


def test_bad_records_are_quarantined_with_the_offset_and_told(house: House) -> None:
    house.log.append(b"{not json")
    house.log.append(event("good"))
    house.step()
    (row,) = house.memory.quarantined()
    assert (row.code, row.record.value) == ("not_json", b"{not json")
    assert house.memory.values() == ["good"]
    assert house.rejections == 1
    assert sum(report.rejected.get("not_json", 0) for report in house.reports) == 1
    assert house.state is State.READY


def test_batches_are_capped_by_count_and_by_bytes(house: House) -> None:
    house.settings = IngestSettings(poll_s=0.02, max_records=4)
    for number in range(10):
        house.log.append(event(str(number)), partition=number % 3)
    house.restart()
    house.step(5)
    assert [len(batch.edits) for batch in house.memory.batches] == [4, 4, 2]


def test_under_load_more_is_gathered_and_a_single_record_does_not_wait(house: House) -> None:
    polls: list[float] = []
    source = _Counting(house.log, polls)
    house.restart(source)
    house.step(1)
    polls.clear()
    house.log.append(event("alone"))
    house.step(1)
    assert len(polls) == 1
    polls.clear()
    for number in range(5):
        house.log.append(event(f"crowd {number}"))
    house.step(1)
    assert polls[1:] == [0.0]


class _Counting(MemorySource):
    def __init__(self, log: MemoryLog, polls: list[float]) -> None:
        super().__init__(log)
        self._polls = polls

    def poll(self, timeout_s: float, max_records: int) -> Polled:
        self._polls.append(timeout_s)
        return super().poll(timeout_s, max_records)


def test_records_that_are_not_confirmed_are_not_kept_and_come_again(house: House) -> None:
    source = _Doubtful(house.log)
    house.restart(source)
    house.log.append(event("late"))
    house.step(3)
    assert source.doubts == 0
    assert house.memory.values() == ["late"]
    assert len(house.memory.batches) == 1


class _Doubtful(MemorySource):
    doubts = 1

    def poll(self, timeout_s: float, max_records: int) -> Polled:
        polled = super().poll(timeout_s, max_records)
        return replace(polled, confirm=self._doubt) if polled.records else polled

    def _doubt(self) -> None:
        if self.doubts:
            self.doubts -= 1
            raise Retry("no broker answers")


def test_trimmed_history_is_a_gap_until_it_is_accepted(house: House) -> None:
    for number in range(4):
        house.log.append(event(str(number)))
    house.step()
    house.log.append(event("lost"))
    house.log.append(event("kept"))
    house.log.trim(0, 5)
    house.step()
    assert (house.state, house.lifecycle.serving()) == (State.GAP, True)
    assert "trimmed" in house.lifecycle.reasons[0]
    house.step(5)
    assert "kept" not in house.memory.values()
    accepted = house.command(lambda: house.ingest.accept_gap(GUARD_S))
    assert (accepted.gap.kind, accepted.lost.lost_count) == ("trimmed", 0)
    house.step()
    assert house.memory.values() == ["0", "1", "2", "3", "kept"]
    assert house.state is State.READY
    assert json.loads(house.memory.meta["accepted_gap"])["kind"] == "trimmed"


def test_a_gap_found_at_start_and_the_history_before_an_empty_state(house: House) -> None:
    house.log.append(event("old"))
    house.log.append(event("new"))
    house.log.trim(0, 1)
    house.step()
    assert (house.state, house.lifecycle.serving()) == (State.GAP, False)
    house.command(lambda: house.ingest.accept_gap(GUARD_S))
    house.step()
    assert (house.state, house.memory.values()) == (State.READY, ["new"])


def test_a_recreated_topic_is_a_gap_and_nothing_of_it_is_applied(house: House) -> None:
    house.log.append(event("before"))
    house.step()
    house.log.create(2)
    for number in range(5):
        house.log.append(event(f"after {number}"))
    house.step(5)
    assert house.state is State.GAP
    assert house.memory.values() == ["before"]
    house.command(lambda: house.ingest.accept_gap(GUARD_S))
    house.step(5)
    assert house.state is State.READY
    assert len(house.memory.edits) == 6


def test_an_accepted_recreation_survives_a_restart_before_any_record(house: House) -> None:
    house.log.append(event("before"))
    house.step()
    house.log.create(1)
    house.step()
    house.command(lambda: house.ingest.accept_gap(GUARD_S))
    house.restart()
    house.step()
    assert house.state is State.READY


def test_a_log_that_grew_over_a_gap_is_still_a_gap_after_a_restart(house: House) -> None:
    for number in range(5):
        house.log.append(event(str(number)))
    house.step()
    house.log.truncate(0, 2)
    house.step()
    assert house.state is State.GAP
    for number in range(6):
        house.log.append(event(f"rewritten {number}"))
    house.restart()
    house.step()
    assert house.state is State.GAP
    house.command(lambda: house.ingest.accept_gap(GUARD_S))
    house.step()
    assert house.state is State.READY
    assert house.memory.next_offsets()[TopicPartition(house.log.topic_id, 0)] == 8


def test_a_log_that_was_cut_and_grew_again_while_the_daemon_was_down_is_a_gap(house: House) -> None:
    """The offsets look right; only the leader epoch of the last record that was read tells."""
    for number in range(5):
        house.log.append(event(str(number)))
    house.step()
    house.log.truncate(0, 2)
    for number in range(6):
        house.log.append(event(f"rewritten {number}"))
    house.restart()
    house.step(3)
    assert house.state is State.GAP
    assert house.memory.values() == ["0", "1", "2", "3", "4"]
    expected = house.command(lambda: house.ingest.lost_in_gap(GUARD_S))
    assert (expected.gap.kind, expected.lost.lost_count) == ("beyond_end", 3)
    house.step(3)
    assert house.state is State.GAP
    house.command(lambda: house.ingest.accept_gap(GUARD_S))
    house.step(3)
    assert house.state is State.READY
    assert [f"rewritten {number}" in house.memory.values() for number in range(6)] == [True] * 6


def test_there_must_be_a_gap_to_accept(house: House) -> None:
    with pytest.raises(Refused, match="no gap"):
        house.command(lambda: house.ingest.accept_gap(GUARD_S))


def test_added_partitions_are_read_from_their_start(house: House) -> None:
    house.step()
    house.log.add_partitions(5)
    house.log.append(event("there"), partition=4)
    house.step()
    assert house.memory.values() == ["there"]
    assert house.state is State.READY


def test_brokers_may_be_absent_at_start_and_the_empty_state_serves_nothing(house: House) -> None:
    house.log.down = True
    house.step(40, seconds=1.0)
    assert (house.state, house.lifecycle.serving(), house.lifecycle.stale) == (State.STARTING, False, True)
    assert "no broker answers" in house.lifecycle.reasons[0]
    house.log.down = False
    house.log.append(event("here"))
    house.step(10, seconds=1.0)
    assert (house.state, house.memory.values()) == (State.READY, ["here"])


def test_an_old_state_is_served_stale_when_brokers_are_absent_at_start(house: House) -> None:
    house.log.append(event("old"))
    house.step()
    house.log.down = True
    house.restart()
    house.step(5, seconds=1.0)
    assert not house.lifecycle.serving()
    house.step(6, seconds=1.0)
    assert (house.state, house.lifecycle.serving(), house.lifecycle.stale) == (State.DEGRADED, True, True)
    house.log.down = False
    house.step(10, seconds=1.0)
    assert (house.state, house.lifecycle.stale) == (State.READY, False)


def test_brokers_may_go_and_come_back(house: House) -> None:
    house.log.append(event("one"))
    house.step()
    house.log.down = True
    house.step(60, seconds=1.0)
    assert (house.state, house.lifecycle.serving(), house.lifecycle.stale) == (State.READY, True, True)
    house.log.down = False
    house.log.append(event("two"))
    house.step(10, seconds=1.0)
    assert house.memory.values() == ["one", "two"]
    assert not house.lifecycle.stale


def test_an_idle_topic_is_not_stale(house: House) -> None:
    house.step(60, seconds=1.0)
    assert not house.lifecycle.stale


def test_a_missing_topic_is_named_and_waited_for(house: House) -> None:
    house.log.delete()
    house.step(5)
    assert "does not exist" in house.lifecycle.reasons[0]
    house.log.create(1)
    house.log.append(event("now"))
    house.step(10)
    assert (house.state, house.memory.values(), house.lifecycle.reasons) == (State.READY, ["now"], ())


def test_while_nothing_can_be_stored_the_batch_is_held_and_nothing_is_skipped(house: House) -> None:
    house.step()
    house.memory.fail = lambda: Retry("disk full")
    house.log.append(event("one"))
    house.step(2)
    house.log.append(event("two"))
    house.step(2)
    assert (house.state, house.memory.values()) == (State.DEGRADED, [])
    assert "disk full" in house.lifecycle.reasons[0]
    house.memory.fail = None
    house.step(5)
    assert (house.state, house.memory.values()) == (State.READY, ["one", "two"])


def test_an_interruption_while_a_batch_is_held_loses_nothing(house: House) -> None:
    house.step()
    house.memory.fail = lambda: Retry("disk full")
    house.log.append(event("one"))
    house.step(2)
    house.log.down = True
    house.step(2)
    house.log.down = False
    house.memory.fail = None
    house.log.append(event("two"))
    house.step(10)
    assert house.memory.values() == ["one", "two"]
    assert len(house.memory.edits) == 2


def test_a_fatal_fault_ends_the_thread(house: House) -> None:
    house.memory.fail = lambda: Fatal("fsync failed")
    house.log.append(event("one"))
    thread = house.run()
    thread.join(GUARD_S)
    assert isinstance(house.failure, Fatal)
    with pytest.raises(Refused):
        house.ingest.resume(1.0)


def test_unreadable_records_suspend_by_name_and_are_read_after_resume(house: House) -> None:
    source = _Unreadable(house.log)
    house.log.append(event("zipped"))
    house.restart(source)
    house.step(5)
    assert house.state is State.SUSPENDED
    assert "unsupported_codec" in house.lifecycle.reasons[0]
    assert source.attempts == 1
    source.broken = False
    thread = house.run()
    house.ingest.resume(GUARD_S)
    until(lambda: house.memory.values() == ["zipped"])
    house.ingest.stop()
    thread.join(GUARD_S)


class _Unreadable(MemorySource):
    def __init__(self, log: MemoryLog) -> None:
        super().__init__(log)
        self.broken = True
        self.attempts = 0

    def poll(self, timeout_s: float, max_records: int) -> Polled:
        if self.broken and not self._paused:
            self.attempts += 1
            place = Position(self._topic_id, 0, self._positions[0])
            raise Unreadable("unsupported_codec", self.topic, place, "no library for zstd")
        return super().poll(timeout_s, max_records)


def test_a_refused_topic_suspends_and_stays_so_until_resume(house: House) -> None:
    house.restart(_Compacted(house.log))
    house.step(5)
    assert house.state is State.SUSPENDED
    assert "compacted" in house.lifecycle.reasons[0]


class _Compacted(MemorySource):
    def connect(self) -> Topology:
        raise Refused("topic is compacted")


def test_a_full_quarantine_suspends_until_resume_and_then_has_one_more_quota(house: House) -> None:
    house.settings = IngestSettings(poll_s=0.02, quarantine_max_bytes=100, max_records=1)
    house.log.append(b"x" * 60)
    house.log.append(b"y" * 60)
    house.log.append(event("waits"))
    house.restart()
    house.step(10)
    assert house.state is State.SUSPENDED
    assert "quarantine_full" in house.lifecycle.reasons[0]
    assert house.memory.values() == []
    thread = house.run()
    house.ingest.resume(GUARD_S)
    until(lambda: house.memory.values() == ["waits"])
    house.ingest.stop()
    thread.join(GUARD_S)
    house.restart()
    assert house.state is not State.SUSPENDED


def test_resume_needs_a_suspension(house: House) -> None:
    with pytest.raises(Refused, match="not suspended"):
        house.command(lambda: house.ingest.resume(GUARD_S))


def test_many_bad_records_of_one_publisher_degrade_and_pass(house: House) -> None:
    guard = GuardSettings(window_s=10.0, min_bad=5, share=0.5)
    house.settings = IngestSettings(poll_s=0.02, guard=guard)
    house.restart()
    for _ in range(6):
        house.log.append(json.dumps({"op": "explode", "source": {"publisher": "acme"}}).encode())
    house.log.append(event("good", publisher="other"))
    house.step()
    assert house.state is State.DEGRADED
    assert "acme" in house.lifecycle.reasons[0]
    assert house.ingest.status().alerts == 1
    assert house.ingest.status().bad_publishers == {"acme": 6}
    assert house.memory.values() == ["good"]
    house.step(1, seconds=30.0)
    assert house.state is State.READY
    assert house.ingest.status().alerts == 1


def test_a_replayed_record_keeps_its_original_position(house: House) -> None:
    known = {"explode"}

    def decode(record: Any, limits: Any) -> Any:
        from lte_runtime.errors import BadRecord
        from lte_runtime.facts import events

        if record.value in known:
            raise BadRecord("unknown_op", "no such op")
        return events.decode(record, limits)

    value = event("later")
    known.add(value)
    house.ingest = Ingest(house.memory, house.source, house.lifecycle, QUICK, decode=decode)
    position = house.log.append(value, timestamp_ms=1_000)
    house.step()
    (row,) = house.memory.quarantined()
    known.clear()
    report = house.command(lambda: house.ingest.replay([row.id], GUARD_S))
    assert (report.records, len(report.applied), report.rejected) == (1, 1, 0)
    (edit,) = house.memory.edits.values()
    assert (edit.position, edit.timestamp_ms) == (position, 1_000)


def test_positions_that_move_without_records_are_stored_now_and_then(house: House) -> None:
    source = _Jumping(house.log)
    house.restart(source)
    house.step()
    source.extra = 2
    house.step(1, seconds=2.0)
    each = TopicPartition(house.log.topic_id, 0)
    assert house.memory.next_offsets()[each] == 2
    assert house.reports == []


class _Jumping(MemorySource):
    """Positions move on their own, as they do over transaction markers."""

    extra = 0

    def poll(self, timeout_s: float, max_records: int) -> Polled:
        polled = super().poll(timeout_s, max_records)
        moved: Offsets = {each: at + self.extra for each, at in polled.next_offsets.items()}
        return Polled(polled.records, moved)


@pytest.fixture(autouse=True)
def _no_thread_left() -> Iterator[None]:
    before = threading.active_count()
    yield
    until(lambda: threading.active_count() <= before)


# -- a step that does not end --------------------------------------------------------------------------


class _Hanging(MemorySource):
    """A client that is caught in one poll until it is let go."""

    def __init__(self, log: MemoryLog, now: Callable[[], float]) -> None:
        super().__init__(log, monotonic=now)
        self.hangs = False
        self.caught = threading.Event()
        self.let_go = threading.Event()

    def poll(self, timeout_s: float, max_records: int) -> Polled:
        if self.hangs:
            self.caught.set()
            self.let_go.wait(GUARD_S)
        return super().poll(timeout_s, max_records)

    def last_answer(self) -> float | None:
        return self._monotonic()  # the client's own thread goes on hearing the brokers


@pytest.fixture
def hanging(house: House) -> Iterator[_Hanging]:
    """Ready, and its ingest caught in a poll; nobody has looked yet."""
    source = _Hanging(house.log, lambda: house.now)
    house.restart(source)
    thread = house.run()
    until(lambda: house.state is State.READY)
    source.hangs = True
    assert source.caught.wait(GUARD_S)
    yield source
    source.hangs = False
    source.let_go.set()
    house.ingest.stop()
    thread.join(GUARD_S)
    assert not thread.is_alive()


def test_a_poll_that_does_not_end_is_not_ready_and_its_lag_is_unknown(
    house: House, hanging: _Hanging
) -> None:
    limit = house.settings.stuck_after_s
    house.now += limit
    house.lifecycle.tick()
    assert (house.state, house.lifecycle.stale) == (State.READY, False)
    house.now += 0.1
    house.lifecycle.tick()
    assert (house.state, house.lifecycle.stale) == (State.DEGRADED, True)
    (reason,) = house.lifecycle.reasons
    assert "reading from Kafka for more than 60 s" in reason
    assert [each.lag for each in house.ingest.status().partitions.values()] == [UNKNOWN_LAG] * 3
    for command in (house.ingest.resume, lambda: house.ingest.skip(0, 0), lambda: house.ingest.replay([1])):
        with pytest.raises(Refused, match="reading from Kafka"):
            command()
    hanging.hangs = False
    hanging.let_go.set()
    until(lambda: house.state is State.READY and not house.lifecycle.reasons)
    assert [each.lag for each in house.ingest.status().partitions.values()] == [0] * 3


def test_a_command_that_is_not_answered_in_time_says_why_and_is_not_done_later(
    house: House, hanging: _Hanging
) -> None:
    house.ingest._suspend("by hand")
    with pytest.raises(DeadlineExceeded, match=r"busy reading from Kafka.*nothing was done"):
        house.ingest.resume(0.01)
    hanging.hangs = False
    hanging.let_go.set()
    with pytest.raises(Refused):  # answered behind the one that was given up
        house.ingest.skip(0, 0, timeout_s=GUARD_S)
    assert house.lifecycle.conditions.suspended == "by hand"


def test_a_log_that_goes_on_while_nothing_is_read_is_told(house: House) -> None:
    source = _Silent(house.log, monotonic=lambda: house.now)
    house.restart(source)
    house.step()
    assert house.state is State.READY
    source.silent = True
    house.log.append(event("unread"))
    house.step(5, seconds=1)
    assert house.state is State.READY
    house.step(2, seconds=house.settings.stuck_after_s)
    assert house.state is State.DEGRADED
    assert "although the topic has newer ones" in house.lifecycle.reasons[0]
    source.silent = False
    house.step()
    assert (house.state, house.memory.values()) == (State.READY, ["unread"])


class _Silent(MemorySource):
    """A client that answers every poll with nothing while `silent`."""

    silent = False

    def poll(self, timeout_s: float, max_records: int) -> Polled:
        if self.silent:
            return Polled((), self._current())
        return super().poll(timeout_s, max_records)

    def last_answer(self) -> float | None:
        return self._monotonic()


# -- a record that cannot be read ----------------------------------------------------------------------


class _DamagedLog(MemorySource):
    """The record with the value `damaged` cannot be read; a client that met it must not be polled again."""

    def __init__(self, log: MemoryLog) -> None:
        super().__init__(log)
        self._failed = False

    def connect(self) -> Topology:
        self._failed = False
        return super().connect()

    def _take(self, max_records: int) -> list[RawRecord]:
        assert not self._failed, "the client spins here"
        taken = super()._take(max_records)
        bad = next((at for at, record in enumerate(taken) if record.value == b"damaged"), None)
        if bad is None:
            return taken
        place = taken[bad].position
        self._positions[place.partition] = place.offset
        if bad == 0:
            self._failed = True
            raise Unreadable("corrupt_record", self.topic, place, "the checksum is wrong")
        return taken[:bad]


@pytest.fixture
def damaged(house: House) -> House:
    """Two good records, one that cannot be read, one good one."""
    for value in (event("one"), event("two"), b"damaged", event("four")):
        house.log.append(value)
    house.restart(_DamagedLog(house.log))
    house.step(5)
    return house


def test_what_was_gathered_before_an_unreadable_record_is_applied(damaged: House) -> None:
    assert damaged.memory.values() == ["one", "two"]
    assert damaged.state is State.SUSPENDED
    assert "partition 0, offset 2 cannot be read: the checksum is wrong" in damaged.lifecycle.reasons[0]


def test_the_record_that_suspended_ingest_is_skipped_and_no_other(damaged: House) -> None:
    thread = damaged.run()
    for partition, offset in ((0, 1), (0, 3), (1, 2)):
        with pytest.raises(Refused, match="partition 0, offset 2"):
            damaged.ingest.skip(partition, offset)
    assert damaged.ingest.skip(0, 2) == 3
    until(lambda: damaged.memory.values() == ["four", "one", "two"])
    until(lambda: damaged.state is State.READY)
    with pytest.raises(Refused, match="nothing to skip"):
        damaged.ingest.skip(0, 2)
    (row,) = damaged.memory.quarantined()
    assert (row.code, row.record.position) == ("skipped", Position(damaged.log.topic_id, 0, 2))
    assert damaged.rejections == 1
    damaged.ingest.stop()
    thread.join(GUARD_S)
    damaged.restart(_DamagedLog(damaged.log))
    damaged.step()
    assert damaged.state is State.READY


def test_a_header_name_that_is_not_utf8_is_quarantined(house: House) -> None:
    house.log.append(event("bad"), headers=[("caf\\xe9", b"1"), (BAD_NAME_HEADER, b"caf\xe9")])
    house.log.append(event("good"))
    house.step()
    (row,) = house.memory.quarantined()
    assert (row.code, row.record.value) == ("bad_header_name", event("bad"))
    assert house.memory.values() == ["good"]
