"""Publishing: acknowledged positions that reading confirms."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest
from kafka_house import Running, until
from kafka_topic import KafkaTopic

from daemon.kafka.publisher import Outgoing, Publisher, PublisherSettings
from lte_runtime.errors import BadRequest, Retry

pytestmark = pytest.mark.kafka
MakeTopic = Callable[..., KafkaTopic]
Ingesting = Callable[..., Running]


def fact(number: int) -> dict[str, object]:
    return {"subject": f"Person {number % 4}", "relation": "post", "target": f"post {number}"}


def test_positions_are_those_that_ingest_sees(make_topic: MakeTopic, ingesting: Ingesting) -> None:
    topic = make_topic()
    running = ingesting(topic).ready()
    with Publisher(PublisherSettings(topic.bootstrap, topic.topic)) as publisher:
        positions = publisher.publish(fact(number) for number in range(12))
        again = publisher.publish([fact(12)])
    until(lambda: len(running.memory.edits) == 13)
    by_target = {edit.target: edit.position for edit in running.memory.edits.values()}
    assert [by_target[f"post {number}"] for number in range(13)] == positions + again
    assert {each.topic_id for each in positions} == {topic.topic_id}


def test_one_fact_key_stays_in_one_partition(make_topic: MakeTopic) -> None:
    topic = make_topic()
    with Publisher(PublisherSettings(topic.bootstrap, topic.topic)) as publisher:
        positions = publisher.publish(fact(number) for number in range(12))
    for subject in range(4):
        assert len({positions[number].partition for number in range(subject, 12, 4)}) == 1
    assert len({each.partition for each in positions}) > 1


def test_a_null_value_and_headers_go_out_as_they_are(make_topic: MakeTopic, ingesting: Ingesting) -> None:
    topic = make_topic(partitions=1)
    running = ingesting(topic).ready()
    key = b"default\x1fada\x1fpost"
    with Publisher(PublisherSettings(topic.bootstrap, topic.topic)) as publisher:
        publisher.send([Outgoing(key, None, (("ce_id", b"7"),))])
    until(lambda: len(running.memory.edits) == 1)
    (edit,) = running.memory.edits.values()
    assert (edit.op, edit.target) == ("retract", None)


def test_without_a_broker_publishing_asks_for_a_retry() -> None:
    with Publisher(PublisherSettings("127.0.0.1:1", timeout_s=0.5)) as publisher, pytest.raises(Retry):
        publisher.publish([fact(1)])


def test_an_unknown_topic_is_not_made_and_an_oversized_event_is_refused(make_topic: MakeTopic) -> None:
    topic = make_topic(partitions=1)
    unknown = PublisherSettings(topic.bootstrap, "no-such-topic", timeout_s=1.0)
    with Publisher(unknown) as publisher, pytest.raises(Retry):
        publisher.publish([fact(1)])
    assert "no-such-topic" not in topic.admin.list_topics()
    with Publisher(PublisherSettings(topic.bootstrap, topic.topic)) as publisher:
        with pytest.raises(BadRequest):
            publisher.send([Outgoing(None, b"x" * (2 << 20))])
        assert len(publisher.publish([fact(1)])) == 1


def test_publishing_imports_no_engine() -> None:
    code = "import sys, daemon.kafka.publisher; print([m for m in %r if m in sys.modules])"
    heavy = ["torch", "hnswlib", "transformers", "openvino", "numpy", "pydantic", "apsw", "grpc"]
    done = subprocess.run(
        [sys.executable, "-c", code % heavy], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"
