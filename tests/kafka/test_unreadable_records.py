"""Records that the client cannot read, on a real broker: put aside, or named by place and skipped."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from kafka import KafkaProducer
from kafka.record.default_records import DefaultRecordBatch
from kafka_house import Running, event, until
from kafka_topic import KafkaTopic
from raw_header import RawName

from daemon.kafka.client_internals.unreadable import BAD_NAME_HEADER
from daemon.lifecycle import State
from lte_runtime.errors import Refused

pytestmark = pytest.mark.kafka
MakeTopic = Callable[..., KafkaTopic]
Ingesting = Callable[..., Running]
EVENTS = [f"{number:02d}" for number in range(20)]
BAD = 5
NAME = b"caf\xe9"


def send_batch(topic: KafkaTopic, values: list[bytes], bad: int | None = None) -> None:
    """All in one batch; the header of the one numbered `bad` has a name that is not UTF-8."""
    producer = KafkaProducer(bootstrap_servers=topic.bootstrap, linger_ms=1000)
    futures = [
        producer.send(topic.topic, value, headers=[(RawName(NAME), b"1")] if number == bad else [])
        for number, value in enumerate(values)
    ]
    for future in futures:
        future.get(30)
    producer.close()


def test_a_header_name_that_is_not_utf8_is_put_aside_and_its_neighbours_are_read(
    make_topic: MakeTopic, ingesting: Ingesting
) -> None:
    topic = make_topic(partitions=1)
    values = [event(text) for text in EVENTS]
    values.insert(BAD, event("with a bad header name"))
    send_batch(topic, values, BAD)
    running = ingesting(topic).ready()
    assert running.memory.values() == EVENTS
    (row,) = running.memory.quarantined()
    assert (row.code, row.record.position.offset, row.record.value) == ("bad_header_name", BAD, values[BAD])
    assert row.record.headers == (("caf\\xe9", b"1"), (BAD_NAME_HEADER, NAME))
    topic.append(event("later"))
    until(lambda: "later" in running.memory.values())


@pytest.fixture
def damaged(make_topic: MakeTopic, monkeypatch: pytest.MonkeyPatch) -> KafkaTopic:
    """Three batches of one fetch: offsets 0 to 9, 10 to 12, 13 to 19. The checksum of the second is wrong."""
    topic = make_topic(partitions=1)
    for low, high in ((0, 10), (10, 13), (13, 20)):
        send_batch(topic, [event(text) for text in EVENTS[low:high]])
    real = DefaultRecordBatch.validate_crc
    monkeypatch.setattr(
        DefaultRecordBatch, "validate_crc", lambda batch: batch.base_offset != 10 and real(batch)
    )
    return topic


def suspended_at(running: Running, offset: int) -> None:
    until(lambda: f"partition 0, offset {offset} " in " ".join(running.lifecycle.reasons))
    assert running.state is State.SUSPENDED


def test_a_damaged_batch_suspends_by_place_and_each_record_can_be_skipped(
    damaged: KafkaTopic, ingesting: Ingesting
) -> None:
    running = ingesting(damaged)
    suspended_at(running, 10)
    assert f"topic {damaged.topic}, partition 0, offset 10 cannot be read" in running.lifecycle.reasons[0]
    assert "lte ingest skip --partition 0 --offset 10" in running.lifecycle.reasons[0]
    assert running.memory.values() == EVENTS[:10]
    for wrong in (9, 11):
        with pytest.raises(Refused, match="offset 10"):
            running.ingest.skip(0, wrong)
    for offset in (10, 11, 12):
        suspended_at(running, offset)
        assert running.ingest.skip(0, offset) == offset + 1
    running.ready()
    assert running.memory.values() == EVENTS[:10] + EVENTS[13:]
    rows = [(row.code, row.record.position.offset) for row in running.memory.quarantined()]
    assert rows == [("skipped", 10), ("skipped", 11), ("skipped", 12)]
    with pytest.raises(Refused, match="nothing to skip"):
        running.ingest.skip(0, 20)


def test_a_whole_damaged_batch_is_skipped_by_naming_its_end(
    damaged: KafkaTopic, ingesting: Ingesting
) -> None:
    running = ingesting(damaged)
    suspended_at(running, 10)
    for wrong in (10, 21):
        with pytest.raises(Refused, match="after offset 10, at 20 at the latest"):
            running.ingest.skip(0, 10, wrong)
    assert running.ingest.skip(0, 10, 13) == 13
    running.ready()
    assert running.memory.values() == EVENTS[:10] + EVENTS[13:]
    (row,) = running.memory.quarantined()
    assert (row.code, row.message) == (
        "skipped",
        "an operator skipped what could not be read: partition 0, offsets 10 to 12",
    )


@pytest.mark.parametrize("batch", [1, 3, 512])
def test_what_was_read_before_a_damaged_record_is_applied_whatever_the_size_of_a_poll(
    batch: int, damaged: KafkaTopic, ingesting: Ingesting
) -> None:
    from daemon.ingest.ingest import IngestSettings

    running = ingesting(damaged, settings=IngestSettings(refresh_s=1.0, max_records=batch))
    suspended_at(running, 10)
    assert running.memory.values() == EVENTS[:10]
    assert _steps_end(running)


def _steps_end(running: Running) -> Any:
    """The thread does not spin in the client: it takes another command and ends when it must."""
    running.ingest.resume()
    suspended_at(running, 10)
    running.stop()
    return True
