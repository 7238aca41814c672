"""One suite for every source of records: the one over Kafka and the one in memory keep the same promises."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from daemon.kafka.history import Gap, GapKind, PositionLost, TopicMissing, locate
from daemon.kafka.memory_source import MemoryLog, MemorySource
from daemon.kafka.source import KafkaSource, KafkaSourceSettings, Source
from lte_runtime.errors import Retry
from lte_runtime.types import RawRecord, TopicPartition

GUARD_S = 20.0


@dataclass
class Rig:
    """A topic with the means to write and disturb it, and makers of sources on it."""

    topic: Any
    make: Callable[[], Source]

    def started(self) -> Source:
        """A source at the beginning of every partition."""
        source = self.make()
        topology = source.connect()
        start = locate({}, topology, source.beginning_offsets(), source.end_offsets())
        assert not isinstance(start, Gap)
        source.assign(start)
        return source


@pytest.fixture(params=["memory", pytest.param("kafka", marks=pytest.mark.kafka)])
def rig(request: pytest.FixtureRequest) -> Iterator[Rig]:
    sources: list[Source] = []
    if request.param == "memory":
        log = MemoryLog()
        rig = Rig(log, lambda: _kept(sources, MemorySource(log)))
    else:
        topic = request.getfixturevalue("make_topic")()
        settings = KafkaSourceSettings(topic.bootstrap, topic.topic, refresh_s=0.5)
        rig = Rig(topic, lambda: _kept(sources, KafkaSource(settings)))
    yield rig
    for source in sources:
        source.close()


def _kept(sources: list[Source], source: Source) -> Source:
    sources.append(source)
    return source


def read(source: Source, count: int) -> list[RawRecord]:
    """Poll until `count` records have come."""
    records: list[RawRecord] = []
    deadline = time.monotonic() + GUARD_S
    while len(records) < count and time.monotonic() < deadline:
        polled = source.poll(0.2, 100)
        polled.confirm()
        records += polled.records
    return records


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + GUARD_S
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)


def raises_position_lost(source: Source) -> PositionLost:
    deadline = time.monotonic() + GUARD_S
    while time.monotonic() < deadline:
        try:
            source.poll(0.2, 100)
        except PositionLost as error:
            return error
    raise AssertionError("the lost position was not noticed")


def test_connect_tells_topic_id_and_partitions(rig: Rig) -> None:
    topology = rig.make().connect()
    assert topology.topic_id == rig.topic.topic_id
    assert topology.partitions == (0, 1, 2)


def test_an_empty_topic_has_equal_ends(rig: Rig) -> None:
    source = rig.started()
    assert set(source.beginning_offsets().values()) == set(source.end_offsets().values()) == {0}


def test_records_keep_bytes_headers_time_and_position(rig: Rig) -> None:
    source = rig.started()
    headers = (("ce_id", b"7"), ("ce_id", b"\xff"))
    position = rig.topic.append(b"value", key=b"key", partition=1, headers=headers, timestamp_ms=None)
    (record,) = read(source, 1)
    assert (record.key, record.value, record.headers) == (b"key", b"value", headers)
    assert record.position == position
    assert record.topic == rig.topic.topic
    assert abs(record.timestamp_ms - time.time() * 1000) < 60_000


def test_tombstones_and_records_without_key_come_through(rig: Rig) -> None:
    source = rig.started()
    rig.topic.append(None, key=b"key")
    rig.topic.append(b"", key=None)
    first, second = read(source, 2)
    assert (first.key, first.value) == (b"key", None)
    assert (second.key, second.value) == (None, b"")


def test_order_is_kept_within_a_partition(rig: Rig) -> None:
    source = rig.started()
    for number in range(30):
        rig.topic.append(b"%d" % number, partition=number % 3)
    records = read(source, 30)
    for partition in range(3):
        values = [int(each.value or b"") for each in records if each.position.partition == partition]
        assert values == sorted(values)
        assert len(values) == 10


def test_next_offsets_cover_all_partitions_and_move_with_the_records(rig: Rig) -> None:
    source = rig.started()
    rig.topic.append(b"x", partition=2)
    deadline = time.monotonic() + GUARD_S
    polled = source.poll(0.5, 100)
    while not polled.records and time.monotonic() < deadline:
        polled = source.poll(0.5, 100)
    assert polled.next_offsets == {TopicPartition(rig.topic.topic_id, p): int(p == 2) for p in range(3)}


def test_poll_takes_no_more_than_asked_for(rig: Rig) -> None:
    source = rig.started()
    for number in range(10):
        rig.topic.append(b"%d" % number)
    taken = 0
    while taken < 10:
        records = source.poll(1.0, 4).records
        assert len(records) <= 4
        taken += len(records)
    assert taken == 10


def test_poll_returns_as_soon_as_a_record_arrives(rig: Rig) -> None:
    source = rig.started()
    source.poll(0.1, 100)
    writer = threading.Timer(0.2, lambda: rig.topic.append(b"late"))
    writer.start()
    begun = time.monotonic()
    polled = source.poll(GUARD_S, 100)
    writer.join()
    assert [each.value for each in polled.records] == [b"late"]
    assert time.monotonic() - begun < GUARD_S / 2


def test_assign_starts_where_it_is_told(rig: Rig) -> None:
    for number in range(5):
        rig.topic.append(b"%d" % number)
    source = rig.make()
    topology = source.connect()
    source.assign({each: 3 if each.partition == 0 else 0 for each in topology.topic_partitions()})
    assert [each.value for each in read(source, 2)] == [b"3", b"4"]


def test_paused_it_polls_and_returns_nothing_then_everything(rig: Rig) -> None:
    source = rig.started()
    source.poll(0.1, 100)
    source.pause()
    rig.topic.append(b"held")
    heard = source.last_answer()
    until(lambda: source.poll(0.05, 100).records == () and source.last_answer() != heard)
    source.resume()
    assert [each.value for each in read(source, 1)] == [b"held"]


def test_added_partitions_are_seen_and_readable_from_their_start(rig: Rig) -> None:
    source = rig.started()
    rig.topic.add_partitions(4)
    until(lambda: source.poll(0.05, 10) is not None and len(_partitions(source)) == 4)
    rig.topic.append(b"new", partition=3)
    source.assign(dict.fromkeys(_topology(source).topic_partitions(), 0))
    assert [each.value for each in read(source, 1)] == [b"new"]


def test_trimmed_history_is_a_lost_position_and_then_a_gap(rig: Rig) -> None:
    for number in range(5):
        rig.topic.append(b"%d" % number)
    source = rig.started()
    rig.topic.trim(0, 3)
    raises_position_lost(source)
    known = dict.fromkeys(_topology(source).topic_partitions(), 0)
    gap = locate(known, _topology(source), source.beginning_offsets(), source.end_offsets())
    assert isinstance(gap, Gap)
    assert gap.kind is GapKind.TRIMMED
    assert gap.resume_at[TopicPartition(rig.topic.topic_id, 0)] == 3


def test_an_offset_beyond_the_end_is_a_lost_position(rig: Rig) -> None:
    rig.topic.append(b"only")
    source = rig.make()
    topology = source.connect()
    source.assign({each: 7 if each.partition == 0 else 0 for each in topology.topic_partitions()})
    raises_position_lost(source)


def test_a_recreated_topic_is_never_read_as_the_old_one(rig: Rig) -> None:
    source = rig.started()
    rig.topic.append(b"old")
    assert [each.value for each in read(source, 1)] == [b"old"]
    before = rig.topic.topic_id
    rig.topic.create(3)
    for number in range(5):
        rig.topic.append(b"new %d" % number)
    assert rig.topic.topic_id != before
    deadline = time.monotonic() + GUARD_S
    noticed = False
    while not noticed and time.monotonic() < deadline:
        try:
            polled = source.poll(0.2, 100)
            polled.confirm()
            assert polled.records == ()
            now = source.topology()
            noticed = now is not None and now.topic_id != before
        except PositionLost:
            noticed = True
    assert noticed


def test_a_deleted_topic_is_missing(rig: Rig) -> None:
    source = rig.started()
    rig.topic.delete()
    until(lambda: source.poll(0.05, 10) is not None and source.topology() is None)
    with pytest.raises(TopicMissing):
        rig.make().connect()


def test_committing_is_harmless_and_closing_can_be_repeated(rig: Rig) -> None:
    source = rig.started()
    source.commit({TopicPartition(rig.topic.topic_id, 0): 1})
    source.close()
    source.close()


def test_last_answer_moves_while_idle(rig: Rig) -> None:
    source = rig.started()
    heard = source.last_answer()
    assert heard is not None
    until(lambda: source.poll(0.05, 10) is not None and (source.last_answer() or 0) > heard)


def test_without_a_broker_it_asks_for_a_retry() -> None:
    log = MemoryLog()
    log.down = True
    absent = KafkaSource(KafkaSourceSettings("127.0.0.1:1", connect_timeout_s=0.3))
    for source in (MemorySource(log), absent):
        with pytest.raises(Retry):
            source.connect()
        assert source.last_answer() is None
        source.close()


def test_failed_connections_leave_no_threads_behind() -> None:
    source = KafkaSource(KafkaSourceSettings("127.0.0.1:1", connect_timeout_s=0.2))
    before = threading.active_count()
    for _ in range(3):
        with pytest.raises(Retry):
            source.connect()
    assert threading.active_count() <= before
    source.close()


def _topology(source: Source) -> Any:
    topology = source.topology()
    assert topology is not None
    return topology


def _partitions(source: Source) -> tuple[int, ...]:
    topology = source.topology()
    return topology.partitions if topology is not None else ()
