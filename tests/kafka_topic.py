"""A topic on a real broker and the ways to disturb it, for tests."""

from __future__ import annotations

import contextlib
import itertools
import time
import uuid
from collections.abc import Sequence
from typing import Any

from kafka import KafkaAdminClient, KafkaProducer, TopicPartition
from kafka.admin import NewTopic
from kafka.errors import NodeNotReadyError

from lte_runtime.types import Position

_numbers = itertools.count(1)


class KafkaTopic:
    """A topic on a real broker and the ways to disturb it; the same methods as `MemoryLog` where both can."""

    def __init__(self, bootstrap: str, partitions: int = 3, **configs: str) -> None:
        self.bootstrap = bootstrap
        self.topic = f"t{next(_numbers)}-{uuid.uuid4().hex[:8]}"
        self.configs = configs
        self.admin: Any = KafkaAdminClient(bootstrap_servers=bootstrap)
        self._new_producer = lambda: KafkaProducer(bootstrap_servers=bootstrap)
        self._producer: Any = None
        self.create(partitions)

    @property
    def topic_id(self) -> str:
        """Asked again while the admin client is connecting to a broker that has just come back."""
        for _ in range(100):
            with contextlib.suppress(NodeNotReadyError):
                return str(self.admin.describe_topics([self.topic])[0]["topic_id"])
            time.sleep(0.2)
        raise TimeoutError(f"no broker told the id of {self.topic}")

    def create(self, partitions: int) -> None:
        if self._known():
            self.delete()
        self.admin.create_topics([NewTopic(self.topic, partitions, 1, topic_configs=self.configs)])
        self.admin.wait_for_topics([self.topic])

    def delete(self) -> None:
        self.admin.delete_topics([self.topic])
        self.forget_sequence()

    def add_partitions(self, total: int) -> None:
        self.admin.create_partitions({self.topic: total})
        self.forget_sequence()

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
        self.admin.delete_records({TopicPartition(self.topic, partition): before})

    def close(self) -> None:
        self.forget_sequence()
        self.admin.close()

    def _known(self) -> bool:
        return self.topic in self.admin.list_topics()

    def forget_sequence(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.close()
