"""What consumers and producers know but do not tell by their public interface: topic ids, leaders, epochs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

from kafka import KafkaConsumer, KafkaProducer
from kafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor
from kafka.errors import KafkaConfigurationError, KafkaError
from kafka.net.compat import KafkaNetClient
from kafka.structs import OffsetAndMetadata

from lte_runtime.errors import Refused, Retry

STICKY_ASSIGNOR = StickyPartitionAssignor
# A producer waits this long between learning of the brokers and asking them for the topic: its own 100 ms,
# for which it has no option, were a quarter of what `lte publish` took.
METADATA_PAUSE_MS = 20


def open_client(factory: Callable[..., Any], options: Mapping[str, Any]) -> Any:
    """Construct a kafka-python client, or raise `Retry` or `Refused` and leave nothing behind.

    The constructors start an IO thread and then wait for a broker; when none comes they raise and would
    leak that thread, so the inner client is caught on its way in.
    """
    inner: list[KafkaNetClient] = []

    def remember(**configs: Any) -> KafkaNetClient:
        inner.append(KafkaNetClient(**configs))
        return inner[-1]

    try:
        return factory(**options, kafka_client=remember)
    except KafkaConfigurationError as error:
        raise Refused(f"the Kafka client refuses its configuration: {error}") from error
    except KafkaError as error:
        for client in inner:
            client.close()
        raise Retry(f"no broker answers at {','.join(options['bootstrap_servers'])}: {error}") from error


def open_consumer(options: Mapping[str, Any]) -> Any:
    """A consumer that never creates a topic; raises as `open_client`."""
    consumer = open_client(KafkaConsumer, options)
    # The client does not hand this setting to its metadata: a topic that was deleted must stay deleted.
    consumer._cluster.config["allow_auto_create_topics"] = False
    return consumer


def open_producer(options: Mapping[str, Any]) -> Any:
    """A producer that learns of its topic quickly; raises as `open_client`."""
    producer = open_client(KafkaProducer, options)
    producer._metadata.config["retry_backoff_ms"] = METADATA_PAUSE_MS
    return producer


def consumer_topic_id(consumer: Any, topic: str) -> str | None:
    """Topic id by the newest metadata; None for an unknown topic, and from brokers before Kafka 2.8."""
    topic_id = consumer._cluster.topic_id(topic)
    return None if topic_id is None else str(topic_id)


def producer_topic_id(producer: Any, topic: str) -> str:
    return str(producer._metadata.topic_id(topic))


def known_partitions(consumer: Any, topic: str) -> tuple[int, ...]:
    """Partitions by the newest metadata, in order, without any request."""
    return tuple(sorted(consumer._cluster.partitions_for_topic(topic) or ()))


def watch_topic(consumer: Any, topic: str, on_metadata: Callable[[Any], None]) -> None:
    """Keep metadata of `topic` before it is assigned; `on_metadata` is called at each answer of a broker."""
    consumer._cluster.set_topics([topic])
    consumer._cluster.add_listener(on_metadata)


def leader_of(consumer: Any, partition: Any) -> int | None:
    """Node id of the broker that leads a partition."""
    node: int | None = consumer._cluster.leader_for_partition(partition)
    return node


def request_metadata(consumer: Any, node: int | None, topic: str, timeout_s: float) -> Callable[[], None]:
    """Ask `node` (any broker when None) for metadata from now on. The function that is returned waits for the
    answer and raises `Retry` without one; `topic` is for its message."""
    manager, cluster = consumer._manager, consumer._cluster
    timeout_ms = timeout_s * 1000

    async def ask() -> None:
        if cluster.metadata_refresh_in_progress:
            await manager.wait_for(manager.call_soon(cluster.refresh_metadata, node), timeout_ms)
        await manager.wait_for(manager.call_soon(cluster.refresh_metadata, node), timeout_ms)

    answered = threading.Event()
    request = manager.call_soon(ask).add_both(lambda _: answered.set())

    def wait() -> None:
        # Twice the time that `ask` allows itself: its thread may have ended.
        if not answered.wait(4 * timeout_s):
            raise Retry(f"{topic}: no metadata")
        if isinstance(request.exception, KafkaError):
            raise Retry(f"{topic}: no metadata: {request.exception}") from request.exception
        if request.exception is not None:
            raise request.exception

    return wait


def request_records(consumer: Any) -> None:
    """Ask for the next records now, in place of at the next poll."""
    consumer._fetcher.send_fetches()


def seek_with_epoch(consumer: Any, partition: Any, offset: int, leader_epoch: int) -> None:
    """`seek` with the leader epoch of the record before `offset` (-1: unknown), so that brokers can tell that
    their log was cut below it."""
    position = OffsetAndMetadata(offset, "", leader_epoch)
    consumer._subscription.assignment[partition].seek(position)


def leader_epochs(consumer: Any) -> dict[Any, int]:
    """Leader epoch of the last record before each position, where it is known."""
    positions = {partition: state.position for partition, state in consumer._subscription.assignment.items()}
    return {
        partition: position.leader_epoch
        for partition, position in positions.items()
        if position is not None and position.leader_epoch >= 0
    }
