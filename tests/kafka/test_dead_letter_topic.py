"""Bad records reach the dead-letter topic untouched; its absence holds up nobody and loses nothing."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from kafka import KafkaAdminClient, KafkaConsumer
from kafka import TopicPartition as KafkaPartition
from kafka_house import Running, event, until
from kafka_topic import KafkaTopic

from daemon.kafka.dead_letters import DeadLetters, DeadLetterSettings
from daemon.kafka.topics import TopicPlan, ensure_topics, plans
from daemon.lifecycle import State

pytestmark = pytest.mark.kafka
MakeTopic = Callable[..., KafkaTopic]
Ingesting = Callable[..., Running]


@pytest.fixture
def sending() -> Iterator[Callable[..., DeadLetters]]:
    """Dead letters of a memory to a topic, running in their own thread."""
    started: list[tuple[DeadLetters, threading.Thread]] = []

    def start(memory: Any, bootstrap: str, topic: str) -> DeadLetters:
        settings = DeadLetterSettings(bootstrap, topic, idle_s=0.1, retry_s=0.1, send_timeout_s=2.0)
        letters = DeadLetters(memory, settings)
        thread = threading.Thread(target=letters.run, daemon=True)
        thread.start()
        started.append((letters, thread))
        return letters

    yield start
    for letters, thread in started:
        letters.stop()
        thread.join(30)
        assert not thread.is_alive()


def read_all(bootstrap: str, topic: str, count: int) -> list[Any]:
    consumer = KafkaConsumer(
        bootstrap_servers=bootstrap, auto_offset_reset="earliest", enable_auto_commit=False
    )
    partition = KafkaPartition(topic, 0)
    consumer.assign([partition])
    consumer.seek(partition, 0)
    records: list[Any] = []

    def read() -> bool:
        records.extend(record for each in consumer.poll(200).values() for record in each)
        return len(records) >= count

    until(read)
    consumer.close()
    return records


def states(running: Running) -> set[str]:
    return {row.state for row in running.memory.quarantined()}


def test_a_bad_record_arrives_with_key_value_time_and_headers_untouched(
    make_topic: MakeTopic, ingesting: Ingesting, sending: Callable[..., DeadLetters]
) -> None:
    topic = make_topic(partitions=1)
    dlq = make_topic(partitions=1, **{"message.timestamp.type": "CreateTime"})
    position = topic.append(b"\xff\xfe", key=b"\x00key", headers=(("trace", b"\x01"),))
    topic.append(None, key=b"")
    topic.append(event("good"))
    running = ingesting(topic).ready()
    sending(running.memory, dlq.bootstrap, dlq.topic)
    record = read_all(dlq.bootstrap, dlq.topic, 1)[0]
    (row, *_) = running.memory.quarantined()
    assert (record.key, record.value) == (b"\x00key", b"\xff\xfe")
    assert record.timestamp == row.record.timestamp_ms
    assert record.headers[0] == ("trace", b"\x01")
    named = dict(record.headers)
    assert named["__connect.errors.topic"] == topic.topic.encode()
    assert named["__connect.errors.offset"] == b"0"
    assert named["__connect.errors.exception.class.name"] == row.code.encode()
    assert named["lte-original-position"].startswith(f"{position.topic_id}/0/0/".encode())
    until(lambda: states(running) == {"dead_lettered"})


def test_an_absent_topic_holds_up_nobody_and_gets_everything_later(
    make_topic: MakeTopic, ingesting: Ingesting, sending: Callable[..., DeadLetters]
) -> None:
    topic = make_topic(partitions=1)
    name = f"dlq-{uuid.uuid4().hex}"
    running = ingesting(topic).ready()
    letters = sending(running.memory, topic.bootstrap, name)
    for number in range(5):
        topic.append(b"{bad %d" % number)
        topic.append(event(f"good {number}"))
    until(lambda: len(running.memory.values()) == 5)
    until(lambda: letters.status().failures > 0)
    assert running.state is State.READY
    assert states(running) == {"pending"}
    assert name not in topic.admin.list_topics()
    ensure_topics(topic.admin, [TopicPlan(name, 1)])
    values = [record.value for record in read_all(topic.bootstrap, name, 5)]
    assert values == [b"{bad %d" % number for number in range(5)]
    until(lambda: states(running) == {"dead_lettered"})


def test_the_topics_of_a_deployment_are_made_once_with_their_settings(broker: Any) -> None:
    admin = KafkaAdminClient(bootstrap_servers=broker.bootstrap)
    names = {name: f"{name}-{uuid.uuid4().hex}" for name in ("edits", "dlq", "control", "adapters", "audit")}
    wanted = plans(**names, partitions=2)
    assert set(ensure_topics(admin, wanted)) == {plan.name for plan in wanted}
    assert ensure_topics(admin, wanted) == ()
    edits = wanted[0].name
    assert len(admin.describe_topics([edits])[0]["partitions"]) == 2
    assert setting(admin, edits, "cleanup.policy") == "delete"
    assert setting(admin, edits, "retention.ms") == "-1"
    assert setting(admin, edits, "message.timestamp.type") == "LogAppendTime"
    assert setting(admin, names["adapters"], "cleanup.policy") == "compact"
    admin.close()


def setting(admin: Any, topic: str, name: str) -> str:
    from kafka.admin import ConfigResource, ConfigResourceType

    resource = ConfigResource(ConfigResourceType.TOPIC, topic, {name: None})
    answer = admin.describe_configs([resource], config_filter="all")
    return next(str(configs[topic][name]["value"]) for configs in answer.values())
