"""What only a real broker can show of reading: transactions, codecs, compaction, lag tools."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import pytest
from kafka import KafkaProducer, TopicPartition
from kafka_house import Running, event, until
from kafka_topic import KafkaTopic

from daemon.cli.doctor import examine
from daemon.kafka.client_internals.large_batches import CUT_HEADER
from daemon.lifecycle import State

pytestmark = pytest.mark.kafka
MakeTopic = Callable[..., KafkaTopic]
Ingesting = Callable[..., Running]


@pytest.fixture
def transactional(make_topic: MakeTopic) -> Any:
    """A topic and a producer with a transaction id."""
    topic = make_topic(partitions=1)
    producer = KafkaProducer(bootstrap_servers=topic.bootstrap, transactional_id=uuid.uuid4().hex)
    producer.init_transactions()
    yield topic, producer
    producer.close(timeout=5)


def test_open_transactions_wait_aborted_ones_never_come(transactional: Any, ingesting: Ingesting) -> None:
    topic, producer = transactional
    running = ingesting(topic).ready()
    producer.begin_transaction()
    producer.send(topic.topic, event("aborted")).get(10)
    topic.append(event("outside"))
    producer.abort_transaction()
    until(lambda: running.memory.values() == ["outside"])
    producer.begin_transaction()
    producer.send(topic.topic, event("committed")).get(10)
    topic.append(event("behind the open one"))
    assert running.memory.values() == ["outside"]
    producer.commit_transaction()
    until(lambda: running.memory.values() == ["behind the open one", "committed", "outside"])


def test_ready_is_measured_against_the_last_stable_offset(transactional: Any, ingesting: Ingesting) -> None:
    """An open transaction must not keep a daemon from becoming ready, nor the markers of finished ones."""
    topic, producer = transactional
    producer.begin_transaction()
    producer.send(topic.topic, event("aborted")).get(10)
    producer.abort_transaction()
    topic.append(event("before"))
    producer.begin_transaction()
    producer.send(topic.topic, event("open")).get(10)
    running = ingesting(topic).ready()
    assert running.memory.values() == ["before"]
    producer.commit_transaction()
    until(lambda: running.memory.values() == ["before", "open"])


def test_a_topic_that_ends_in_markers_becomes_ready_and_stores_its_position(
    transactional: Any, ingesting: Ingesting
) -> None:
    topic, producer = transactional
    for _ in range(3):
        producer.begin_transaction()
        producer.send(topic.topic, event("aborted")).get(10)
        producer.abort_transaction()
    running = ingesting(topic).ready()
    assert running.memory.values() == []
    until(lambda: set(running.memory.next_offsets().values()) == {6})


@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
def test_every_codec_of_kafka_is_read(codec: str, make_topic: MakeTopic, ingesting: Ingesting) -> None:
    topic = make_topic(partitions=1)
    producer = KafkaProducer(bootstrap_servers=topic.bootstrap, compression_type=codec, linger_ms=50)
    for number in range(50):
        producer.send(topic.topic, event(f"{codec} {number:02d}" + "x" * 100))
    producer.flush()
    producer.close()
    running = ingesting(topic).ready()
    assert len(running.memory.values()) == 50
    assert running.memory.values()[0].startswith(f"{codec} 00")


@pytest.mark.parametrize("codec", ["gzip", "lz4", "zstd"])
def test_of_a_bomb_each_record_is_put_aside_and_good_ones_are_read(
    codec: str, make_topic: MakeTopic, ingesting: Ingesting
) -> None:
    """The broker takes it, for it is small when packed; unpacking it at once would cost too much memory."""
    topic = make_topic(partitions=1)
    producer = KafkaProducer(
        bootstrap_servers=topic.bootstrap,
        compression_type=codec,
        max_request_size=64 << 20,
        batch_size=1 << 20,
        linger_ms=500,
    )
    values = [event("before"), bytes(8 << 20), event("between"), bytes(8 << 20), event("in the batch")]
    sent = [producer.send(topic.topic, value) for value in values]
    for each in sent:
        each.get(30)
    producer.close()
    topic.append(event("behind"))
    running = ingesting(topic, batch_max_bytes=1 << 20).ready()
    assert sorted(running.memory.values()) == ["before", "behind", "between", "in the batch"]
    rows = running.memory.quarantined()
    assert [(row.code, row.record.position.offset) for row in rows] == [("too_large", 1), ("too_large", 3)]
    assert [int(dict(row.record.headers)[CUT_HEADER]) > 8 << 20 for row in rows] == [True, True]


def test_a_missing_codec_is_a_named_state_and_is_read_after_resume(
    make_topic: MakeTopic, ingesting: Ingesting, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic = make_topic(partitions=2)
    producer = KafkaProducer(bootstrap_servers=topic.bootstrap, compression_type="zstd")
    producer.send(topic.topic, event("packed " + "x" * 200), partition=0).get(10)
    producer.close()
    monkeypatch.setattr("kafka.codec.zstd", None)
    running = ingesting(topic)
    until(lambda: running.state is State.SUSPENDED)
    assert "unsupported_codec" in running.lifecycle.reasons[0]
    assert "zstd" in running.lifecycle.reasons[0]
    topic.append(event("plain"), partition=1)
    until(lambda: running.source.last_answer() is not None)
    monkeypatch.undo()
    running.ingest.resume()
    until(lambda: len(running.memory.values()) == 2)
    assert running.ready().state is State.READY


def test_a_compacted_topic_is_refused_unless_configured(make_topic: MakeTopic, ingesting: Ingesting) -> None:
    topic = make_topic(partitions=1, **{"cleanup.policy": "compact"})
    topic.append(event("kept"), key=b"k")
    refused = ingesting(topic)
    until(lambda: refused.state is State.SUSPENDED)
    assert "compacted" in refused.lifecycle.reasons[0]
    assert refused.memory.values() == []
    allowed = ingesting(topic, allow_compacted=True).ready()
    assert allowed.memory.values() == ["kept"]


@pytest.mark.parametrize("kind", ["CreateTime", "LogAppendTime"])
def test_timestamps_by_publishers_clocks_are_warned_of(
    make_topic: MakeTopic,
    ingesting: Ingesting,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
) -> None:
    topic = make_topic(partitions=1, **{"message.timestamp.type": kind})
    ingesting(topic).ready()
    assert ("message.timestamp.type is CreateTime" in caplog.text) == (kind == "CreateTime")
    monkeypatch.setenv("LTE_KAFKA__BOOTSTRAP", topic.bootstrap)
    monkeypatch.setenv("LTE_KAFKA__TOPIC", topic.topic)
    finding = next(finding for finding in examine(None) if finding.check == "topic")
    assert (finding.ok, kind in finding.seen) == (kind == "LogAppendTime", True)


def test_offsets_are_committed_for_lag_tools(make_topic: MakeTopic, ingesting: Ingesting) -> None:
    topic = make_topic(partitions=1)
    group = uuid.uuid4().hex
    for number in range(3):
        topic.append(event(str(number)))
    ingesting(topic, group_id=group).ready()

    def committed() -> Any:
        offsets = topic.admin.list_group_offsets({group: None}).get(group, {})
        return offsets.get(TopicPartition(topic.topic, 0))

    until(lambda: committed() is not None and committed().offset == 3)


def test_offsets_of_the_group_are_never_read(make_topic: MakeTopic, ingesting: Ingesting) -> None:
    topic = make_topic(partitions=1)
    group = uuid.uuid4().hex
    topic.append(event("first"))
    ingesting(topic, group_id=group).ready().stop()
    topic.append(event("second"))
    fresh = ingesting(topic, group_id=group).ready()
    assert fresh.memory.values() == ["first", "second"]


def test_a_value_larger_than_the_fetch_limit_is_read(make_topic: MakeTopic, ingesting: Ingesting) -> None:
    topic = make_topic(partitions=1, **{"max.message.bytes": "8388608"})
    producer = KafkaProducer(bootstrap_servers=topic.bootstrap, max_request_size=8 << 20)
    producer.send(topic.topic, b"x" * (5 << 20)).get(30)
    producer.close()
    topic.append(event("after"))
    running = ingesting(topic).ready()
    assert running.memory.values() == ["after"]
    assert [row.code for row in running.memory.quarantined()] == ["too_large"]
