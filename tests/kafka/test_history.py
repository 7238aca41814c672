"""History that is missing or new is noticed on the real broker, and nothing is applied before a yes."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from kafka_house import Running, event, until
from kafka_topic import KafkaTopic

from daemon.lifecycle import State
from lte_runtime.answer.encoder.stub import StubEncoder
from lte_runtime.memory.edit_memory import EditMemory
from lte_runtime.types import TopicPartition
from ops.kafka.broker import Broker

pytestmark = pytest.mark.kafka
MakeTopic = Callable[..., KafkaTopic]
Ingesting = Callable[..., Running]
# A gap must be seen within ten seconds; ten times that is a guard against hanging.
GAP_GUARD_S = 100.0


def gap_of(running: Running) -> Any:
    until(lambda: running.state is State.GAP, GAP_GUARD_S)
    assert running.lifecycle.serving()
    return running.ingest.status().gap


def written(topic: KafkaTopic, running: Running, count: int) -> Running:
    for number in range(count):
        topic.append(event(f"old {number}"))
    until(lambda: len(running.memory.values()) == count)
    return running


def test_records_deleted_past_the_position_are_a_gap(make_topic: MakeTopic, ingesting: Ingesting) -> None:
    topic = make_topic(partitions=2)
    first = written(topic, ingesting(topic).ready(), 3)
    first.stop()
    for number in range(4):
        topic.append(event(f"new {number}"))
    topic.trim(0, 5)
    again = ingesting(topic, first.memory)
    assert gap_of(again).kind == "trimmed"
    assert len(again.memory.values()) == 3
    again.ingest.accept_gap()
    until(lambda: "new 3" in again.memory.values())
    assert again.ready().memory.values() == ["new 2", "new 3", "old 0", "old 1", "old 2"]


def test_records_deleted_under_a_daemon_that_lags_are_a_gap(
    make_topic: MakeTopic, ingesting: Ingesting
) -> None:
    topic = make_topic(partitions=1)
    running = written(topic, ingesting(topic).ready(), 2)
    running.lifecycle.set_suspended("by the test")
    time.sleep(1.0)  # one poll may be under way
    for number in range(4):
        topic.append(event(f"new {number}"))
    topic.trim(0, 4)
    running.ingest.resume()
    assert gap_of(running).kind == "trimmed"
    assert len(running.memory.values()) == 2
    running.ingest.accept_gap()
    until(lambda: running.memory.values() == ["new 2", "new 3", "old 0", "old 1"])


@pytest.mark.parametrize("alive", [True, False], ids=["while running", "while stopped"])
def test_a_recreated_topic_is_a_gap(alive: bool, make_topic: MakeTopic, ingesting: Ingesting) -> None:
    topic = make_topic(partitions=2)
    running = written(topic, ingesting(topic).ready(), 2)
    if not alive:
        running.stop()
    topic.create(2)
    for number in range(5):
        topic.append(event(f"other {number}"))
    if not alive:
        running = ingesting(topic, running.memory)
    assert gap_of(running).kind == "recreated"
    time.sleep(0.5)
    assert running.memory.values() == ["old 0", "old 1"]
    running.ingest.accept_gap()
    until(lambda: len(running.memory.values()) == 7)
    assert running.ready().state is State.READY


def test_a_position_beyond_the_end_is_a_gap(make_topic: MakeTopic, ingesting: Ingesting) -> None:
    from lte_runtime.types import Batch, TopicPartition

    topic = make_topic(partitions=1)
    topic.append(event("there"))
    from fake_memory import FakeMemory

    memory = FakeMemory()
    memory.apply(Batch((), (), {TopicPartition(topic.topic_id, 0): 9}))
    running = ingesting(topic, memory)
    assert gap_of(running).kind == "beyond_end"
    running.ingest.accept_gap()
    topic.append(event("next"))
    until(lambda: running.memory.values() == ["next"])


def test_a_topic_that_is_only_gone_is_missing_and_served(make_topic: MakeTopic, ingesting: Ingesting) -> None:
    topic = make_topic(partitions=1)
    running = written(topic, ingesting(topic).ready(), 1)
    topic.delete()
    until(lambda: running.state is State.DEGRADED)
    assert "missing" in running.lifecycle.reasons[0] or "does not exist" in running.lifecycle.reasons[0]
    assert running.lifecycle.serving()


def test_added_partitions_are_read_from_their_start(make_topic: MakeTopic, ingesting: Ingesting) -> None:
    topic = make_topic(partitions=1)
    running = written(topic, ingesting(topic).ready(), 1)
    topic.add_partitions(3)
    for number in range(3):
        topic.append(event(f"wide {number}"), partition=2)
    until(lambda: len(running.memory.values()) == 4)
    assert running.ready().state is State.READY


def cut_log(broker: Broker, topic: KafkaTopic, end: int) -> None:
    """Stop the broker, take the records from an offset on out of its log, and start it again."""
    broker.stop()
    directory = broker.data / f"{topic.topic}-0"
    segment = directory / "00000000000000000000.log"
    data, place = segment.read_bytes(), 0
    while place < len(data) and int.from_bytes(data[place : place + 8], "big") < end:
        place += 12 + int.from_bytes(data[place + 8 : place + 12], "big")
    segment.write_bytes(data[:place])
    for name in (
        *directory.glob("*index"),
        *directory.glob("*.snapshot"),
        broker.data / ".kafka_cleanshutdown",
    ):
        name.unlink(missing_ok=True)
    for checkpoint in broker.data.glob("*-offset-checkpoint"):
        checkpoint.unlink()
    broker.start()


def test_a_log_that_lost_its_end_and_grew_again_is_a_gap_and_its_new_records_count(
    own_broker: Broker, ingesting: Ingesting, tmp_path: Path
) -> None:
    """As after an unclean election: five records were read, three of them are lost, six others follow."""
    topic = KafkaTopic(own_broker.bootstrap, 1)
    memory = EditMemory.open(tmp_path / "state", StubEncoder())
    try:
        first = ingesting(topic, memory).ready()
        for number in range(5):
            topic.append(event(f"old {number}", subject=f"Old {number}"))
        until(lambda: targets(memory) == {f"old {number}" for number in range(5)})
        first.stop()
        topic.forget_sequence()  # an idempotent producer refuses to go on where its records are lost
        cut_log(own_broker, topic, 2)
        for number in range(6):
            topic.append(event(f"new {number}", subject=f"New {number}"))
        again = ingesting(topic, memory)
        assert gap_of(again).kind == "beyond_end"
        assert targets(memory) == {f"old {number}" for number in range(5)}
        lost = again.ingest.lost_in_gap().lost
        assert [edit.target for edit in lost.lost] == ["old 2", "old 3", "old 4"]
        again.ingest.accept_gap(withdraw_lost=True)
        expected = {"old 0", "old 1", *(f"new {number}" for number in range(6))}
        until(lambda: targets(memory) == expected)
        assert again.ready().ingest.status().partitions[TopicPartition(topic.topic_id, 0)].lag == 0
        again.stop()
        assert memory.verify().ok
    finally:
        topic.close()
        memory.close()


def targets(memory: EditMemory) -> set[str | None]:
    return {record.edit.target for record in memory.list_edits(limit=100)}
