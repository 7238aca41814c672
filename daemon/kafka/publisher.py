"""Events to Kafka, acknowledged. Imports none of the runtime's engines: `lte publish` must start at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kafka.errors import KafkaError

from daemon.kafka.client_internals.clients import producer_topic_id
from daemon.kafka.connection import Security
from daemon.kafka.producing import open_producer
from lte_runtime.errors import BadRequest, Retry
from lte_runtime.facts import events
from lte_runtime.types import Position

Event = Mapping[str, object]
Header = tuple[str, bytes]


@dataclass(frozen=True)
class PublisherSettings:
    bootstrap: str
    topic: str = "lte.edits"
    security: Security = field(default_factory=dict)
    timeout_s: float = 10.0


@dataclass(frozen=True)
class Outgoing:
    """One record as it will stand in Kafka. A null value withdraws everything of the key."""

    key: bytes | None
    value: bytes | None
    headers: tuple[Header, ...] = ()


class Publisher:
    """Idempotent producer that returns positions; thread-safe, connects at the first use.

    Raises `Retry` when brokers do not acknowledge within `timeout_s` (the event may or may not be there; the
    same event with the same id may be published again) and `BadRequest` for a record that they refuse.
    """

    def __init__(self, settings: PublisherSettings) -> None:
        self._settings = settings
        self._producer: Any = None

    def publish(self, published: Iterable[Event], headers: Sequence[Header] = ()) -> list[Position]:
        """Events as JSON under their fact key, so that one key stays in one partition; `headers` for each."""
        return self.send(
            [Outgoing(events.record_key(event), events.to_json(event), tuple(headers)) for event in published]
        )

    def send(self, records: Sequence[Outgoing]) -> list[Position]:
        """Records as they are; positions in the same order."""
        try:
            producer = self._connected()
            futures = [self._produce(producer, record) for record in records]
            acknowledged = [future.get(timeout=self._settings.timeout_s) for future in futures]
        except KafkaError as error:
            raise self._reaction(error) from error
        topic_id = producer_topic_id(producer, self._settings.topic) if acknowledged else ""
        return [Position(topic_id, record.partition, record.offset) for record in acknowledged]

    def close(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.close(timeout=self._settings.timeout_s)

    def __enter__(self) -> Publisher:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _connected(self) -> Any:
        if self._producer is None:
            settings = self._settings
            self._producer = open_producer(
                settings.bootstrap, settings.security, timeout_s=settings.timeout_s
            )
        return self._producer

    def _produce(self, producer: Any, record: Outgoing) -> Any:
        headers = list(record.headers)
        return producer.send(self._settings.topic, value=record.value, key=record.key, headers=headers)

    def _reaction(self, error: KafkaError) -> Exception:
        self.close()  # an idempotent producer does not outlive a failed send
        message = f"not published to {self._settings.topic}: {error}"
        return Retry(message) if getattr(error, "retriable", False) else BadRequest(message)
