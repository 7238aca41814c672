"""Fixtures that more than one folder uses: the development broker, and topics on it."""

from __future__ import annotations

import itertools
import os
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import pytest

from lte_runtime.types import Position
from ops.kafka.broker import Broker, BrokerUnavailable

_numbers = itertools.count(1)


def pytest_configure(config: pytest.Config) -> None:
    # The Kafka client reads its message schemas in a way that Python 3.11 calls deprecated.
    config.addinivalue_line("filterwarnings", "ignore:(read|open)_text is deprecated:DeprecationWarning")
    # It leaves the sockets of refused connections to the garbage collector.
    unconnected = r"ignore:unclosed <socket\.socket .*laddr=\('0\.0\.0\.0':ResourceWarning"
    config.addinivalue_line("filterwarnings", unconnected)


def missing_part(reason: str) -> NoReturn:
    """Skip where a real part is missing; fail where CI promises that it is there."""
    if os.environ.get("LTE_REQUIRE_ALL") == "1":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


class KafkaTopic:
    """A topic on a real broker and the ways to disturb it; the same methods as `MemoryLog` where both can."""

    def __init__(self, bootstrap: str, partitions: int = 3, **configs: str) -> None:
        from kafka import KafkaAdminClient, KafkaProducer

        self.bootstrap = bootstrap
        self.topic = f"t{next(_numbers)}-{uuid.uuid4().hex[:8]}"
        self.configs = configs
        self.admin: Any = KafkaAdminClient(bootstrap_servers=bootstrap)
        self._new_producer = lambda: KafkaProducer(bootstrap_servers=bootstrap)
        self._producer: Any = None
        self.create(partitions)

    @property
    def topic_id(self) -> str:
        return str(self.admin.describe_topics([self.topic])[0]["topic_id"])

    def create(self, partitions: int) -> None:
        from kafka.admin import NewTopic

        if self._known():
            self.delete()
        self.admin.create_topics([NewTopic(self.topic, partitions, 1, topic_configs=self.configs)])
        self.admin.wait_for_topics([self.topic])

    def delete(self) -> None:
        self.admin.delete_topics([self.topic])
        self._close_producer()

    def add_partitions(self, total: int) -> None:
        self.admin.create_partitions({self.topic: total})
        self._close_producer()

    def append(
        self,
        value: bytes | None,
        *,
        key: bytes | None = None,
        partition: int = 0,
        headers: Sequence[tuple[str, bytes]] = (),
        timestamp_ms: int | None = None,
    ) -> Position:
        self._producer = self._producer or self._new_producer()
        sent = self._producer.send(
            self.topic, value, key=key, partition=partition, headers=list(headers), timestamp_ms=timestamp_ms
        ).get(30)
        return Position(self.topic_id, partition, sent.offset)

    def append_many(self, values: Sequence[bytes], *, partition: int | None = None) -> list[tuple[int, int]]:
        """Write all; returns (partition, offset) of each."""
        self._producer = self._producer or self._new_producer()
        futures = [
            self._producer.send(self.topic, value, key=b"%d" % i, partition=partition)
            for i, value in enumerate(values)
        ]
        done = [future.get(30) for future in futures]
        return [(each.partition, each.offset) for each in done]

    def trim(self, partition: int, before: int) -> None:
        from kafka import TopicPartition

        self.admin.delete_records({TopicPartition(self.topic, partition): before})

    def close(self) -> None:
        self._close_producer()
        self.admin.close()

    def _known(self) -> bool:
        return self.topic in self.admin.list_topics()

    def _close_producer(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.close()


def started_broker(directory: Path) -> Broker:
    """A running broker, or the test ends with what is missing."""
    broker = Broker(directory)
    try:
        broker.start()
    except BrokerUnavailable as error:
        missing_part(str(error))
    return broker


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """One broker for the whole run; tests that stop or kill it take `own_broker`."""
    running = started_broker(tmp_path_factory.mktemp("broker"))
    yield running
    running.stop()


@pytest.fixture
def own_broker(tmp_path: Path) -> Iterator[Broker]:
    """A broker that the test may stop, pause and kill."""
    running = started_broker(tmp_path / "broker")
    yield running
    running.stop()


@pytest.fixture
def make_topic(broker: Broker) -> Iterator[Callable[..., KafkaTopic]]:
    """Topics on the shared broker: `make_topic(partitions=3, **configs)`."""
    made: list[KafkaTopic] = []

    def make(partitions: int = 3, **configs: str) -> KafkaTopic:
        made.append(KafkaTopic(broker.bootstrap, partitions, **configs))
        return made[-1]

    yield make
    for topic in made:
        topic.close()
