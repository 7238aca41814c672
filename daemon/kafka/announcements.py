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
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from kafka import KafkaConsumer
from kafka import TopicPartition as KafkaPartition
from kafka.errors import KafkaError

from daemon.kafka.connection import Fault, Security, client_options, close_clients, open_client
from daemon.kafka.producing import open_producer
from lte_runtime.errors import LteError, Refused, Retry

log = logging.getLogger(__name__)
POSITION = "adapters.position"


@dataclass(frozen=True, slots=True)
class Announcement:
    """One word on the topic: the pointer of a base model. `adapter` is an id, `configured` or `none`."""

    adapter: str
    sha256: str
    base_fingerprint: str
    reason: str
    epoch: int
    time_ms: int


@dataclass(frozen=True, slots=True)
class Move:
    """An own move of the pointer and its number in the ledger."""

    number: int
    word: Announcement


@dataclass(frozen=True)
class AnnouncementSettings:
    """Times in seconds. `retry_s` is the pause after a fault, and while the topic does not exist."""

    bootstrap: str
    topic: str = "lte.adapters"
    security: Security = field(default_factory=dict)
    poll_s: float = 0.5
    retry_s: float = 15.0
    send_timeout_s: float = 10.0


class Replica(Protocol):
    """What the topic needs of the daemon."""

    base_fingerprint: str

    def own_move(self) -> Move | None:
        """The last move of the pointer, unless it followed the topic or there was none."""
        ...

    def follow(self, word: Announcement) -> None:
        """Serve what was announced; raises `Refused` for good and any other error for another try."""
        ...

    def meta_get(self, name: str) -> str | None: ...
    def meta_set(self, name: str, value: str) -> None: ...


@dataclass(frozen=True, slots=True)
class _Position:
    """How far this topic was followed, and the number of the last own move that it has."""

    topic_id: str = ""
    next: int = 0
    announced: int = 0


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
    ) -> None:
        self._replica, self._settings, self._may_write = replica, settings, may_write
        self._open_consumer = open_consumer or _consumer
        self._open_sender = open_sender or _sender
        self._consumer: Any = None
        self._sender: Any = None
        self._stop, self._wake = threading.Event(), threading.Event()
        self._unfollowed: tuple[int, Announcement] | None = None
        self._fault = Fault(f"adapters on {settings.topic}")
        kept = replica.meta_get(POSITION)
        self._position = _Position(**json.loads(kept)) if kept else _Position()

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
        self._say(consumer)
        for offset, word in self._read(consumer):
            self._unfollowed = (offset, word)
        if self._unfollowed and self._unsaid() is None:
            offset, word = self._unfollowed
            self._follow(word)
            self._unfollowed = None
            self._keep(_Position(self._position.topic_id, offset + 1, self._position.announced))

    def _follow(self, word: Announcement) -> None:
        try:
            self._replica.follow(word)
        except Refused as error:
            log.warning("announced adapter %s is refused: %s", word.adapter, error)

    def _unsaid(self) -> Move | None:
        move = self._replica.own_move()
        return move if move and move.number > self._position.announced and self._may_write() else None

    def _say(self, consumer: Any) -> None:
        move = self._unsaid()
        if move is None:
            return
        self._sender = self._sender or self._open_sender(self._settings)
        future = self._sender.send(
            self._settings.topic, key=move.word.base_fingerprint.encode(), value=to_bytes(move.word)
        )
        offset = future.get(timeout=self._settings.send_timeout_s).offset
        # What stood before the own word is outranked by it.
        self._unfollowed = None
        self._keep(_Position(self._position.topic_id, offset + 1, move.number))
        consumer.seek(self._partition, offset + 1)

    def _read(self, consumer: Any) -> list[tuple[int, Announcement]]:
        found = []
        for records in consumer.poll(timeout_ms=int(self._settings.poll_s * 1000)).values():
            for record in records:
                word = from_bytes(record.value)
                if word and word.base_fingerprint == self._replica.base_fingerprint:
                    found.append((record.offset, word))
        return found

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
        topic_id = str(consumer._cluster.topic_id(self._settings.topic))
        if topic_id != self._position.topic_id:
            # Another incarnation of the topic knows nothing of what was said before.
            self._keep(_Position(topic_id))
        consumer.assign([self._partition])
        consumer.seek(self._partition, self._position.next)

    def _keep(self, position: _Position) -> None:
        self._position = position
        self._replica.meta_set(POSITION, json.dumps(asdict(position)))

    def _drop(self) -> None:
        consumer, sender, self._consumer, self._sender = self._consumer, self._sender, None, None
        close_clients(consumer, sender)


def to_bytes(word: Announcement) -> bytes:
    return json.dumps(asdict(word), ensure_ascii=False, sort_keys=True).encode()


def from_bytes(value: bytes | None) -> Announcement | None:
    """None for what is no announcement: a tombstone, or bytes that somebody else wrote."""
    try:
        found = json.loads(value or b"null")
        kinds = {name: int if name in ("epoch", "time_ms") else str for name in Announcement.__slots__}
        sound = isinstance(found, dict) and all(type(found[name]) is kind for name, kind in kinds.items())
        return Announcement(**{name: found[name] for name in kinds}) if sound else None
    except (ValueError, KeyError, RecursionError):
        log.warning("a record that is no announcement was passed over")
        return None


def _consumer(settings: AnnouncementSettings) -> Any:
    options = {
        **client_options(settings.bootstrap, settings.security, bootstrap_timeout_s=2.0),
        "client_id": "lte-adapters",
        "isolation_level": "read_committed",
        "auto_offset_reset": "earliest",
        "enable_auto_commit": False,
        "metrics_enabled": False,
    }
    consumer = open_client(KafkaConsumer, options)
    # The client does not hand this setting to its metadata: a topic that was deleted must stay deleted.
    consumer._cluster.config["allow_auto_create_topics"] = False
    return consumer


def _sender(settings: AnnouncementSettings) -> Any:
    return open_producer(settings.bootstrap, settings.security, timeout_s=settings.send_timeout_s)
