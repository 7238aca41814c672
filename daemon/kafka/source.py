"""Records of one topic with their positions, from Kafka; `memory_source` does the same without a broker."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from kafka import KafkaAdminClient
from kafka import TopicPartition as KafkaPartition
from kafka.errors import (
    KafkaError,
    LogTruncationError,
    NoOffsetForPartitionError,
    OffsetOutOfRangeError,
)

from daemon.kafka.client_internals import clients
from daemon.kafka.client_internals.clients import open_client
from daemon.kafka.client_internals.codecs import BATCH_MAX_BYTES, bound_batches
from daemon.kafka.client_internals.large_batches import SPARE_BYTES, stream_large_batches
from daemon.kafka.client_internals.unreadable import RecordFault, read_leniently
from daemon.kafka.connection import Security, client_options
from daemon.kafka.history import Offsets, Polled, PositionLost, TopicMissing, Topology, Unreadable
from daemon.kafka.offset_reporter import OffsetReporter
from daemon.kafka.topics import CREATE_TIME, CREATE_TIME_WARNING, TIMESTAMP_TYPE, topic_configs
from lte_runtime.errors import Refused, Retry
from lte_runtime.types import Position, RawRecord, TopicPartition

log = logging.getLogger(__name__)
# Bytes of one batch, and of what is fetched at once: thousands of ordinary events, or sixteen of the largest
# that are accepted by default. More would only wait in memory, here and in the client.
POLL_MAX_BYTES = 4 << 20
# Brokers are asked at least this often, so that their silence and another topic id are noticed in time.
LISTEN_S = 2.0


class Source(Protocol):
    """Reads all partitions of one topic. One thread uses it; only `last_answer` may be asked from others.

    Anything but `poll` may block up to a few seconds. Raises `Retry` when brokers do not answer,
    `TopicMissing` when they do not know the topic, `Refused` when the topic must not or cannot be read.
    """

    topic: str

    def connect(self) -> Topology:
        """Reach the brokers (again) and learn the topic; positions are set by `assign`."""
        ...

    def topology(self) -> Topology | None:
        """The newest word of the brokers on the topic; None while it is unknown or missing."""
        ...

    def beginning_offsets(self) -> Offsets: ...

    def end_offsets(self) -> Offsets:
        """Last stable offsets: what a `read_committed` reader can reach now."""
        ...

    def assign(self, positions: Offsets, leader_epochs: Mapping[TopicPartition, int] | None = None) -> None:
        """Read these partitions from these offsets; positions of partitions assigned before are replaced.

        `leader_epochs` of the last records before these offsets let brokers tell that their log was cut below
        them and has grown again: then `poll` raises `PositionLost`.
        """
        ...

    def poll(self, timeout_s: float, max_records: int) -> Polled:
        """What has arrived, at once; else wait up to `timeout_s`.

        `Polled.confirm` tells whether the records are of the assigned topic id; that of the last of several
        polls speaks for all of them. Raises `PositionLost`, `Unreadable` or `Retry`, and then nothing has
        been passed over. After `Unreadable` connect again before the next poll.
        """
        ...

    def pause(self) -> None:
        """Return no records until `resume`; polling goes on, so that staleness and topology stay known."""
        ...

    def resume(self) -> None: ...

    def commit(self, next_offsets: Offsets) -> None:
        """Tell Kafka how far we are, for lag tools only: never blocks, never fails."""
        ...

    def last_answer(self) -> float | None:
        """Monotonic seconds of the last successful fetch or metadata answer."""
        ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class KafkaSourceSettings:
    """`security` goes to kafka-python as it is (`security_protocol`, `ssl_cafile`, `sasl_mechanism`...)."""

    bootstrap: str
    topic: str = "lte.edits"
    group_id: str = "lte-daemon"
    security: Security = field(default_factory=dict)
    allow_compacted: bool = False
    refresh_s: float = 2.0
    connect_timeout_s: float = 2.0
    answer_timeout_s: float = 2.0
    batch_max_bytes: int = BATCH_MAX_BYTES
    event_max_bytes: int = 256 << 10


class KafkaSource:
    """`Source` over kafka-python.

    All partitions are assigned by hand and read with `read_committed` and no offset reset. After each fetch
    that brought records the partition's leader is asked for the topic id once more: records are fetched by
    topic *name*, and a topic that was re-created between two fetches would otherwise be read as if it were
    the old one. The answer takes some milliseconds, in which the records are decoded and encoded. A second
    client asks: on the consumer's own connection the answer would wait for a fetch that the broker holds
    open, up to half a second. Records are asked for while the last ones are worked on.
    """

    def __init__(self, settings: KafkaSourceSettings) -> None:
        self.topic = settings.topic
        self._settings = settings
        self._options = client_options(
            settings.bootstrap, settings.security, bootstrap_timeout_s=settings.connect_timeout_s
        )
        self._consumer: Any = None
        self._checker: Any = None
        self._topic_id = ""
        self._unconfirmed: dict[Any, int] = {}
        self._last_answer: float | None = None
        self._reporter = OffsetReporter(self._options, settings.topic, settings.group_id)

    def connect(self) -> Topology:
        self._drop_consumer()
        self._consumer = self._open_consumer()
        self._checker = self._open_consumer()
        self._request_metadata(self._consumer, None)()
        topology = self.topology()
        if topology is None and clients.known_partitions(self._consumer, self.topic):
            raise Refused("these brokers give no topic ids: Kafka 2.8 or newer is needed")
        if topology is None:
            raise TopicMissing(f"topic {self.topic} does not exist on {self._settings.bootstrap}")
        self._check_topic()
        self._topic_id = topology.topic_id
        return topology

    def topology(self) -> Topology | None:
        return None if self._consumer is None else self._topology_of(self._consumer)

    def _topology_of(self, consumer: Any) -> Topology | None:
        partitions = clients.known_partitions(consumer, self.topic)
        topic_id = clients.consumer_topic_id(consumer, self.topic)
        if not partitions or topic_id is None:
            return None
        return Topology(self.topic, topic_id, partitions)

    def beginning_offsets(self) -> Offsets:
        return self._offsets(self._connected().beginning_offsets)

    def end_offsets(self) -> Offsets:
        return self._offsets(self._connected().end_offsets)

    def assign(self, positions: Offsets, leader_epochs: Mapping[TopicPartition, int] | None = None) -> None:
        consumer = self._connected()
        self._topic_id = next(iter(positions)).topic_id
        self._unconfirmed = {}
        consumer.assign([self._native(partition) for partition in positions])
        for partition, offset in positions.items():
            epoch = (leader_epochs or {}).get(partition, -1)
            clients.seek_with_epoch(consumer, self._native(partition), offset, epoch)

    def poll(self, timeout_s: float, max_records: int) -> Polled:
        consumer = self._connected()
        try:
            fetched = consumer.poll(timeout_ms=int(timeout_s * 1000), max_records=max_records)
            return self._delivered(fetched)
        except (OffsetOutOfRangeError, NoOffsetForPartitionError) as error:
            raise PositionLost(f"{self.topic}: {error}") from error
        except LogTruncationError as error:
            raise PositionLost(f"{self.topic}: {error}", self._divergent(error)) from error
        except RecordFault as fault:
            position = Position(self._topic_id, fault.partition, fault.offset)
            raise Unreadable(fault.code, self.topic, position, str(fault)) from fault
        except KafkaError as error:
            raise Retry(f"{self.topic}: {error}") from error

    def pause(self) -> None:
        consumer = self._connected()
        consumer.pause(*consumer.assignment())

    def resume(self) -> None:
        consumer = self._connected()
        consumer.resume(*consumer.paused())

    def commit(self, next_offsets: Offsets) -> None:
        self._reporter.report(
            {tp.partition: at for tp, at in next_offsets.items() if tp.topic_id == self._topic_id}
        )

    def last_answer(self) -> float | None:
        return self._last_answer

    def close(self) -> None:
        self._reporter.close()
        self._drop_consumer()

    def _open_consumer(self) -> Any:
        bound_batches(self._settings.batch_max_bytes)
        stream_large_batches(self._settings.event_max_bytes + SPARE_BYTES)
        read_leniently()
        options = {
            **self._options,
            "client_id": "lte-daemon",
            "isolation_level": "read_committed",
            "auto_offset_reset": "none",
            "enable_auto_commit": False,
            "metadata_max_age_ms": int(min(self._settings.refresh_s, LISTEN_S) * 1000),
            "fetch_max_bytes": POLL_MAX_BYTES,
            "max_partition_fetch_bytes": POLL_MAX_BYTES,
            "metrics_enabled": False,
        }
        consumer = clients.open_consumer(options)
        clients.watch_topic(consumer, self.topic, self._heard)
        return consumer

    def _heard(self, _cluster: object = None) -> None:
        self._last_answer = time.monotonic()

    def _check_topic(self) -> None:
        """Refuses a compacted topic, and warns of one whose timestamps come from publishers' clocks."""
        admin = open_client(KafkaAdminClient, self._options)
        try:
            configs = topic_configs(admin, self.topic)
        except KafkaError as error:
            raise Retry(f"{self.topic}: {error}") from error
        finally:
            admin.close()
        if not configs:
            log.warning("the configuration of topic %s cannot be read: it is not checked", self.topic)
        if configs.get(TIMESTAMP_TYPE) == CREATE_TIME:
            log.warning("topic %s: %s", self.topic, CREATE_TIME_WARNING)
        if "compact" in configs.get("cleanup.policy", "") and not self._settings.allow_compacted:
            raise Refused(
                f"topic {self.topic} is compacted, which deletes what restore, history and set members need; "
                "make it cleanup.policy=delete or set kafka.allow_compacted"
            )

    def _request_metadata(self, consumer: Any, node: int | None) -> Callable[[], None]:
        return clients.request_metadata(consumer, node, self.topic, self._settings.answer_timeout_s)

    def _delivered(self, fetched: Mapping[Any, Sequence[Any]]) -> Polled:
        """What was fetched; its topic id and the next records are requested meanwhile."""
        if not fetched:
            return Polled((), self._positions(), leader_epochs=self._leader_epochs())
        for partition, records in fetched.items():
            self._unconfirmed.setdefault(partition, records[0].offset)
        try:
            node = clients.leader_of(self._consumer, next(iter(fetched)))
            answer = self._request_metadata(self._checker, node)
            clients.request_records(self._consumer)
            return Polled(
                self._records(fetched),
                self._positions(),
                lambda: self._confirm(node, answer),
                self._leader_epochs(),
            )
        except (Retry, KafkaError):
            self._give_back()
            raise

    def _confirm(self, node: int | None, answer: Callable[[], None]) -> None:
        """What was delivered so far is of the assigned topic id; else it is given back."""
        try:
            answer()
            topology = self._topology_of(self._checker)
            if topology is None or topology.topic_id != self._topic_id:
                self._request_metadata(self._consumer, node)()
                raise PositionLost(f"topic {self.topic} is not {self._topic_id} any more")
        except Retry:
            self._give_back()
            raise
        self._unconfirmed = {}

    def _give_back(self) -> None:
        for partition, offset in self._unconfirmed.items():
            self._consumer.seek(partition, offset)
        self._unconfirmed = {}

    def _records(self, fetched: Mapping[Any, Sequence[Any]]) -> tuple[RawRecord, ...]:
        return tuple(self._record(record) for records in fetched.values() for record in records)

    def _record(self, record: Any) -> RawRecord:
        return RawRecord(
            topic=record.topic,
            position=Position(self._topic_id, record.partition, record.offset),
            key=record.key,
            value=record.value,
            headers=tuple((name, value if value is not None else b"") for name, value in record.headers),
            timestamp_ms=record.timestamp,
        )

    def _positions(self) -> Offsets:
        """Positions without any request: a zero timeout keeps the client from waiting for a broker."""
        consumer = self._consumer
        positions = {
            partition: consumer.position(partition, timeout_ms=0) for partition in consumer.assignment()
        }
        return {
            self._ours(partition): offset for partition, offset in positions.items() if offset is not None
        }

    def _leader_epochs(self) -> Mapping[TopicPartition, int]:
        epochs = clients.leader_epochs(self._consumer)
        return {self._ours(partition): epoch for partition, epoch in epochs.items()}

    def _offsets(self, ask: Any) -> Offsets:
        topology = self.topology()
        if topology is None:
            raise TopicMissing(f"topic {self.topic} does not exist")
        partitions = [KafkaPartition(self.topic, partition) for partition in topology.partitions]
        try:
            answer = ask(partitions, timeout_ms=int(self._settings.answer_timeout_s * 1000))
        except (KafkaError, KeyError) as error:  # KeyError: a partition without an answer
            raise Retry(f"{self.topic}: no offsets: {error}") from error
        return {TopicPartition(topology.topic_id, tp.partition): answer[tp] for tp in partitions}

    def _divergent(self, error: Any) -> Offsets:
        offsets = error.divergent_offsets.items()
        return {self._ours(partition): at.offset if at is not None else 0 for partition, at in offsets}

    def _native(self, tp: TopicPartition) -> Any:
        return KafkaPartition(self.topic, tp.partition)

    def _ours(self, tp: Any) -> TopicPartition:
        return TopicPartition(self._topic_id, tp.partition)

    def _connected(self) -> Any:
        if self._consumer is None:
            raise Retry(f"{self.topic}: not connected")
        return self._consumer

    def _drop_consumer(self) -> None:
        clients, self._consumer, self._checker = (self._consumer, self._checker), None, None
        for client in clients:
            if client is not None:
                client.close(autocommit=False, timeout_ms=1000)
