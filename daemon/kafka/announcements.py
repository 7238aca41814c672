"""Which adapter is current, on a compacted topic of one partition: one record for each base model.

Whoever moves its pointer says so; every replica follows the topic's last word. An own move that is not yet
acknowledged outranks what is read, because it will stand behind it in the topic. What has been followed is
kept with the topic's id, so that a restart neither repeats an old word nor misses a new one.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Protocol

from kafka import TopicPartition as KafkaPartition
from kafka.errors import KafkaError
from pydantic import TypeAdapter

from daemon.kafka.client_internals.clients import consumer_topic_id, open_consumer
from daemon.kafka.connection import Fault, Security, client_options, close_clients
from daemon.kafka.producing import open_producer
from daemon.kafka.topic_records import AdapterId, Name, Number, PassedOver, Reason, Sha256, parse
from lte_runtime.errors import BadRecord, LteError, Refused, Retry

log = logging.getLogger(__name__)
POSITION = "adapters.position"
ANSWER_MS = 5000


@dataclass(frozen=True, slots=True)
class Announcement:
    """One word on the topic: the pointer of a base model. `adapter` is an id, `configured` or `none`."""

    adapter: AdapterId
    sha256: Sha256
    base_fingerprint: Name
    reason: Reason
    epoch: Number
    time_ms: Number


_RECORD = TypeAdapter(Announcement)


@dataclass(frozen=True, slots=True)
class Move:
    """An own move of the pointer and its number in the ledger."""

    number: int
    announcement: Announcement


@dataclass(frozen=True)
class AnnouncementSettings:
    """Times in seconds. `retry_s` is the pause after a fault, and while the topic does not exist.

    Epochs are offsets of claims on `control_topic`; empty for a daemon without one.
    """

    bootstrap: str
    topic: str = "lte.adapters"
    security: Security = field(default_factory=dict)
    control_topic: str = ""
    poll_s: float = 0.5
    retry_s: float = 15.0
    send_timeout_s: float = 10.0


class Replica(Protocol):
    """What the topic needs of the daemon."""

    base_fingerprint: str

    def own_move(self) -> Move | None:
        """The last move of the pointer, unless it followed the topic or there was none."""
        ...

    def follow(self, announcement: Announcement) -> None:
        """Serve what was announced; raises `Refused` for good and any other error for another try."""
        ...

    def epoch(self) -> int:
        """The highest epoch that was seen."""
        ...

    def last_move(self) -> int:
        """The number of the last move of the pointer, own or followed."""
        ...

    def void_epochs(self, through: int) -> None:
        """Forget the epochs of the moves up to this number: they are no claims of this control topic."""
        ...

    def meta_get(self, name: str) -> str | None: ...
    def meta_set(self, name: str, value: str) -> None: ...


@dataclass(frozen=True, slots=True)
class _Position:
    """How far this topic was followed for a base model, and the number of the last own move that it has."""

    topic_id: str = ""
    next: int = 0
    announced: int = 0
    base: str = ""


class Announcements:
    """Own thread (`run`), own clients. `may_write` is False for a replica that does not own the shared
    topics: its moves stay its own. A fault is logged once and tried again; answers never wait for it."""

    def __init__(
        self,
        replica: Replica,
        settings: AnnouncementSettings,
        *,
        may_write: Callable[[], bool] = lambda: True,
        open_consumer: Callable[[AnnouncementSettings], Any] | None = None,
        open_sender: Callable[[AnnouncementSettings], Any] | None = None,
        on_bad: Callable[[str, str], None] = lambda _topic, _code: None,
    ) -> None:
        self._bad = PassedOver(on_bad)
        self._replica, self._settings, self._may_write = replica, settings, may_write
        self._open_consumer = open_consumer or _consumer
        self._open_sender = open_sender or _sender
        self._consumer: Any = None
        self._sender: Any = None
        self._stop, self._wake = threading.Event(), threading.Event()
        self._not_followed: tuple[Any, Announcement] | None = None
        self._behind = 0
        self._fault = Fault(f"adapters on {settings.topic}")
        stored = replica.meta_get(POSITION)
        self._position = _Position(**json.loads(stored)) if stored else _Position()

    @property
    def fault(self) -> str:
        """Why the topic is not followed now; empty while it is."""
        return self._fault.text

    def wake(self) -> None:
        """There may be something to say; returns at once, for any thread."""
        self._wake.set()

    def stop(self) -> None:
        self._stop.set()
        self._wake.set()

    def run(self) -> None:
        """Say and follow until `stop`."""
        while not self._stop.is_set():
            try:
                self.step()
                self._fault.clear()
            except (KafkaError, LteError, OSError) as error:
                self._fault.note(error)
                self._drop()
                self._wake.wait(self._settings.retry_s)
            self._wake.clear()
        self._drop()

    def step(self) -> None:
        """Say an own move that the topic does not have, then follow what it says."""
        consumer = self._connected()
        self._announce(consumer)
        self._read(consumer)
        if self._not_followed and self._unannounced_move() is None:
            record, announcement = self._not_followed
            self._follow(consumer, record, announcement)
            self._not_followed = None
        if self._not_followed is None and self._behind > self._position.next:
            self._save_position(replace(self._position, next=self._behind))

    def _follow(self, consumer: Any, record: Any, announcement: Announcement) -> None:
        try:
            self._check_epoch(consumer, announcement)
            self._replica.follow(announcement)
        except BadRecord as error:
            self._bad.note(record, error)
        except Refused as error:
            log.warning("announced adapter %s is refused: %s", announcement.adapter, error)

    def _check_epoch(self, consumer: Any, announcement: Announcement) -> None:
        """Raises `BadRecord` for an epoch that no claim can have. One that was followed before it could be
        checked, or under a control topic that was made anew, no longer stands in the way of real ones."""
        if announcement.epoch == self._replica.epoch() == 0:
            return
        moves = self._replica.last_move()
        limit = self._epoch_limit(consumer)
        if announcement.epoch > limit:
            raise BadRecord(
                "bad_epoch",
                f"epoch {announcement.epoch} is above {limit}, the highest that can have been claimed",
            )
        if self._replica.epoch() > limit:
            self._replica.void_epochs(moves)

    def _epoch_limit(self, consumer: Any) -> int:
        """The end of the control topic; without one, the highest epoch that was seen."""
        topic = self._settings.control_topic
        if not topic:
            return self._replica.epoch()
        if not consumer.partitions_for_topic(topic):
            raise Retry(f"topic {topic} does not exist: the epoch of an announcement cannot be checked")
        control = KafkaPartition(topic, 0)
        return int(consumer.end_offsets([control], timeout_ms=ANSWER_MS)[control])

    def _unannounced_move(self) -> Move | None:
        move = self._replica.own_move()
        return move if move and move.number > self._position.announced and self._may_write() else None

    def _announce(self, consumer: Any) -> None:
        move = self._unannounced_move()
        if (
            move is not None
            and move.announcement.epoch
            and move.announcement.epoch > self._epoch_limit(consumer)
        ):
            self._replica.void_epochs(move.number)
            move = self._unannounced_move()
        if move is None:
            return
        self._sender = self._sender or self._open_sender(self._settings)
        future = self._sender.send(
            self._settings.topic,
            key=move.announcement.base_fingerprint.encode(),
            value=to_bytes(move.announcement),
        )
        offset = future.get(timeout=self._settings.send_timeout_s).offset
        # What stood before the own word is outranked by it.
        self._not_followed = None
        self._save_position(replace(self._position, next=offset + 1, announced=move.number))
        consumer.seek(self._partition, offset + 1)

    def _read(self, consumer: Any) -> None:
        for records in consumer.poll(timeout_ms=int(self._settings.poll_s * 1000)).values():
            for record in records:
                self._note(record)
                self._behind = record.offset + 1

    def _note(self, record: Any) -> None:
        """Remember the newest word for our base model, and pass over a bad record."""
        try:
            announcement = from_bytes(record.value)
        except BadRecord as error:
            self._bad.note(record, error)
            return
        if not announcement:
            return
        if announcement.base_fingerprint == self._replica.base_fingerprint:
            self._not_followed = (record, announcement)
        else:
            base = announcement.base_fingerprint[:12]
            log.info("adapter %s is announced for another base model (%s)", announcement.adapter, base)

    @property
    def _partition(self) -> Any:
        return KafkaPartition(self._settings.topic, 0)

    def _connected(self) -> Any:
        if self._consumer is None:
            self._consumer = self._open_consumer(self._settings)
            self._start(self._consumer)
        return self._consumer

    def _start(self, consumer: Any) -> None:
        if not consumer.partitions_for_topic(self._settings.topic):
            raise Retry(f"topic {self._settings.topic} does not exist: adapters are not announced")
        topic_id, base = (
            str(consumer_topic_id(consumer, self._settings.topic)),
            self._replica.base_fingerprint,
        )
        if topic_id != self._position.topic_id:
            # Another incarnation of the topic knows nothing of what was said before.
            self._save_position(_Position(topic_id, base=base))
        elif base != self._position.base:
            # Words for this base model were passed over while another one served.
            self._save_position(replace(self._position, next=0, base=base))
        consumer.assign([self._partition])
        self._behind = self._position.next
        consumer.seek(self._partition, self._behind)

    def _save_position(self, position: _Position) -> None:
        self._position = position
        self._replica.meta_set(POSITION, json.dumps(asdict(position)))

    def _drop(self) -> None:
        consumer, sender, self._consumer, self._sender = self._consumer, self._sender, None, None
        close_clients(consumer, sender)


def to_bytes(announcement: Announcement) -> bytes:
    return json.dumps(asdict(announcement), ensure_ascii=False, sort_keys=True).encode()


def from_bytes(value: bytes | None) -> Announcement | None:
    """None for a tombstone; raises `BadRecord` for what is no announcement."""
    return parse(_RECORD, value) if value else None


def _consumer(settings: AnnouncementSettings) -> Any:
    options = {
        **client_options(settings.bootstrap, settings.security, bootstrap_timeout_s=2.0),
        "client_id": "lte-adapters",
        "isolation_level": "read_committed",
        "auto_offset_reset": "earliest",
        "enable_auto_commit": False,
        "metrics_enabled": False,
    }
    return open_consumer(options)


def _sender(settings: AnnouncementSettings) -> Any:
    return open_producer(settings.bootstrap, settings.security, timeout_s=settings.send_timeout_s)
