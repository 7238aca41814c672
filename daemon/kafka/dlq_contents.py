"""What the dead-letter topic has already, from any daemon: read by a consumer of its own, on demand."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Protocol

from kafka import TopicPartition as KafkaPartition

from daemon.kafka.client_internals.clients import open_consumer
from daemon.kafka.connection import Security, client_options
from daemon.kafka.topic_records import PassedOver
from lte_runtime.errors import BadRecord, Retry
from lte_runtime.facts.events import ORIGINAL_POSITION
from lte_runtime.types import Position

# So many of the newest dead letters of a partition are read, and remembered: an older twin is sent again.
MOST = 100_000
ANSWER_MS = 5000
# Topic id, partition, offset, and a timestamp that is -1 where the record had none.
_POSITION = re.compile(rb"([!-~]{1,200}/[0-9]{1,18}/[0-9]{1,18})/(?:-1|[0-9]{1,18})")


class DlqContents(Protocol):
    """The dead letters that the topic has, as far as it was read."""

    def read(self) -> None:
        """Read on to the end that the topic has now; raises `Retry` or a `KafkaError`."""
        ...

    def has(self, where: Position) -> bool: ...
    def close(self) -> None: ...


class DlqReader:
    """One thread. The consumer is opened by the first `read` and gone after `close`."""

    def __init__(
        self,
        bootstrap: str,
        topic: str,
        security: Security,
        on_bad: Callable[[str, str], None] = lambda _topic, _code: None,
    ) -> None:
        self._bad = PassedOver(on_bad)
        self._open: Callable[[], Any] = lambda: _consumer(bootstrap, security)
        self._topic = topic
        self._consumer: Any = None
        self._identities: dict[str, None] = {}

    def read(self) -> None:
        consumer = self._connected()
        ends = consumer.end_offsets(list(consumer.assignment()), timeout_ms=ANSWER_MS)
        while any(
            consumer.position(partition, timeout_ms=ANSWER_MS) < end for partition, end in ends.items()
        ):
            for records in consumer.poll(timeout_ms=ANSWER_MS).values():
                for record in records:
                    self._note(record)

    def has(self, where: Position) -> bool:
        return _identity(where) in self._identities

    def close(self) -> None:
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            consumer.close(timeout_ms=2000)

    def _note(self, letter: Any) -> None:
        """The last header of the name is ours: a replayed record brought one along."""
        positions = [value for name, value in letter.headers if name == ORIGINAL_POSITION and value]
        if not positions:
            return
        position = _POSITION.fullmatch(positions[-1])
        if position is None:
            self._bad.note(letter, BadRecord("bad_position", f"header {ORIGINAL_POSITION} is no position"))
            return
        self._identities[position[1].decode()] = None
        if len(self._identities) > MOST:
            del self._identities[next(iter(self._identities))]

    def _connected(self) -> Any:
        if self._consumer is None:
            consumer = self._open()
            self._consumer = consumer
            partitions = [KafkaPartition(self._topic, p) for p in self._partitions(consumer)]
            consumer.assign(partitions)
            begins = consumer.beginning_offsets(partitions, timeout_ms=ANSWER_MS)
            ends = consumer.end_offsets(partitions, timeout_ms=ANSWER_MS)
            for partition in partitions:
                consumer.seek(partition, max(begins[partition], ends[partition] - MOST))
        return self._consumer

    def _partitions(self, consumer: Any) -> list[int]:
        partitions = consumer.partitions_for_topic(self._topic)
        if not partitions:
            self.close()
            raise Retry(f"topic {self._topic} does not exist")
        return sorted(partitions)


def _identity(where: Position) -> str:
    return f"{where.topic_id}/{where.partition}/{where.offset}"


def _consumer(bootstrap: str, security: Security) -> Any:
    options = {
        **client_options(bootstrap, security, bootstrap_timeout_s=2.0),
        "client_id": "lte-dead-letters",
        "group_id": None,
        "auto_offset_reset": "earliest",
        "enable_auto_commit": False,
        "metrics_enabled": False,
    }
    return open_consumer(options)
