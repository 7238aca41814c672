"""Ownership of re-alignment: whoever a consumer group gives the control topic's one partition claims it.

The owner reads the topic from its beginning, appends a claim whose offset is its epoch, and from then on
takes commands. It goes on polling in this thread while it trains in another. A claim outlives a rebalance
that gives the partition back. See `daemon.realign.control` for what counts.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass, field
from typing import Any

from kafka import ConsumerRebalanceListener
from kafka import TopicPartition as KafkaPartition
from kafka.errors import KafkaError

from daemon.kafka.client_internals.clients import STICKY_ASSIGNOR, open_consumer
from daemon.kafka.connection import Fault, Security, client_options, close_clients
from daemon.kafka.producing import open_producer
from daemon.kafka.topic_records import PassedOver
from daemon.realign.control import (
    NO_EPOCH,
    Command,
    Control,
    ControlRecord,
    claim,
    commanding,
    folded,
    parsed,
    taking,
)
from lte_runtime.errors import BadRecord, LteError, Refused, Retry

log = logging.getLogger(__name__)
ANSWER_MS = 5000


@dataclass(frozen=True)
class ControlSettings:
    """Times in seconds. Daemons of one `group` share ownership; it passes on after `session_s` of silence."""

    bootstrap: str
    topic: str = "lte.control"
    group: str = "lte-daemon"
    security: Security = field(default_factory=dict)
    session_s: float = 10.0
    poll_s: float = 0.2
    retry_s: float = 5.0
    confirm_s: float = 15.0


@dataclass(frozen=True, slots=True)
class ControlStatus:
    """What one daemon knows. `epoch` is that of its own claim while it owns."""

    owns: bool
    epoch: int
    fault: str


class ControlTopic:
    """Own thread (`run`), own clients. Commands stay on the topic until `take_commands` was called."""

    def __init__(
        self,
        settings: ControlSettings,
        *,
        now: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        on_bad: Callable[[str, str], None] = lambda _topic, _code: None,
    ) -> None:
        self._bad = PassedOver(on_bad)
        self.instance = uuid.uuid4().hex
        self._ready: Callable[[], bool] = lambda: False
        self._on_command: Callable[[Command], None] = lambda _: None
        self._settings, self._now = settings, now
        self._partition = KafkaPartition(settings.topic, 0)
        self._started, self._stop = threading.Event(), threading.Event()
        self._consumer: Any = None
        self._sender: Any = None
        self._held = self._settled = False
        self._state = Control()
        self._own_claim = NO_EPOCH
        self._taking: set[str] = set()
        self._epoch_requests: list[Future[int]] = []
        self._asking = threading.Lock()
        self._fault = Fault(f"control topic {settings.topic}", "not connected yet")

    def take_commands(self, ready: Callable[[], bool], on_command: Callable[[Command], None]) -> None:
        """Before `run`: `ready` says whether a command could be run now, `on_command` runs it: called once
        for each id in the whole deployment, or never."""
        self._ready, self._on_command = ready, on_command

    # -- for other threads -----------------------------------------------------------------------------

    def status(self) -> ControlStatus:
        return ControlStatus(self._owns(), self._own_claim if self._owns() else NO_EPOCH, self._fault.text)

    def epoch(self) -> int:
        """The own epoch, confirmed by the topic's end at this moment. Raises `Refused` when this daemon does
        not own it, or not yet, `Retry` when the topic cannot be read in time."""
        if not self._started.is_set():
            raise Refused("the control topic has not been read yet: try again")
        if self._stop.is_set():
            raise Refused("the daemon is stopping")
        if self._fault.text:
            raise Retry(f"the control topic cannot be read: {self._fault.text}")
        request: Future[int] = Future()
        with self._asking:
            self._epoch_requests.append(request)
        try:
            return request.result(self._settings.confirm_s)
        except FutureTimeout:
            raise Retry("the control topic could not be read to its end in time") from None

    def stop(self) -> None:
        self._stop.set()

    # -- the loop --------------------------------------------------------------------------------------

    def run(self) -> None:
        """Read, claim and take until `stop`. Faults are logged once and tried again."""
        self._started.set()
        while not self._stop.is_set():
            try:
                self._step()
                self._fault.clear()
            except (KafkaError, LteError, OSError) as error:
                self._fault.note(error)
                self._drop()
                self._stop.wait(self._settings.retry_s)
        self._drop()

    def _step(self) -> None:
        consumer = self._connected()
        self._read(consumer)
        if self._held and not self._settled and self._at_end(consumer):
            self._claim()
        self._answer(consumer)
        if self._owns():
            self._take()

    def _claim(self) -> None:
        """Unless the last claim is our own: another daemon that joined has not taken anything from us."""
        if self._state.owner != self.instance:
            self._taking.clear()
            self._own_claim = self._append(claim(self.instance, self._settings.group, self._now()))
            log.info("claimed re-alignment in epoch %d", self._own_claim)
        else:
            self._own_claim = self._state.epoch
        self._settled = True

    def _read(self, consumer: Any) -> None:
        for records in consumer.poll(timeout_ms=int(self._settings.poll_s * 1000)).values():
            for record in records:
                if record.offset >= self._state.next:
                    self._fold(record)

    def _fold(self, record: Any) -> None:
        before = self._state
        self._state = folded(before, record.offset, self._parsed(record), self._settings.group)
        for name in self._state.takers.keys() - before.takers.keys():
            mine = self._state.takers[name] == self._own_claim and name in self._taking
            command = before.waiting.get(name)
            self._taking.discard(name)
            if mine and command is not None and self._owns():
                self._on_command(command)

    def _parsed(self, record: Any) -> ControlRecord | None:
        try:
            return parsed(record.value)
        except BadRecord as error:
            self._bad.note(record, error)
            return None

    def _take(self) -> None:
        """One at a time; what was taken is run when its record comes back as the first that counts."""
        if self._taking or not self._ready():
            return
        for command in self._state.due(self._now())[:1]:
            self._taking.add(command.id)
            self._append(taking(command, self._own_claim, self._settings.group, self._now()))

    def _owns(self) -> bool:
        state = self._state
        own = state.owner == self.instance and state.epoch == self._own_claim
        return self._held and self._settled and own

    def _at_end(self, consumer: Any) -> bool:
        end = self._end(consumer)
        return self._held and self._position(consumer) >= end

    def _end(self, consumer: Any) -> int:
        """A stop must not wait for a broker that is gone: every request has its time. Raises `Retry` for a
        topic that was made anew: claims of the old one, our own among them, are no epochs of this one."""
        end = int(consumer.end_offsets([self._partition], timeout_ms=ANSWER_MS)[self._partition])
        if end < self._state.next:
            raise Retry("the control topic was deleted and created again")
        return end

    def _position(self, consumer: Any) -> int:
        """-1 while the broker has not said where to begin."""
        offset = consumer.position(self._partition, timeout_ms=ANSWER_MS)
        return -1 if offset is None else int(offset)

    def _answer(self, consumer: Any) -> None:
        """Answer the requests for the epoch, once everything that stood when they came was read."""
        with self._asking:
            requests, self._epoch_requests = self._epoch_requests, []
        if not requests:
            return
        try:
            end = self._end(consumer) if self._held else 0
            while self._held and self._position(consumer) < end and not self._stop.is_set():
                self._read(consumer)
        except (KafkaError, Retry, OSError) as error:
            for request in requests:
                request.set_exception(Retry(f"the control topic cannot be read: {error}"))
            raise
        for request in requests:
            if self._owns():
                request.set_result(self._own_claim)
            else:
                request.set_exception(Refused("another daemon owns re-alignment: ask that one"))

    # -- clients ---------------------------------------------------------------------------------------

    def _append(self, value: bytes) -> int:
        return append(self._sending(), self._settings.topic, value)

    def _sending(self) -> Any:
        chosen = self._settings
        self._sender = self._sender or open_producer(chosen.bootstrap, chosen.security, timeout_s=10.0)
        return self._sender

    def _connected(self) -> Any:
        if self._consumer is None:
            consumer = _consumer(self._settings)
            self._consumer = consumer
            self._state, self._own_claim = Control(), NO_EPOCH
            # What was being taken when the connection broke is run by nobody, or taken again: never twice.
            self._taking.clear()
            if not consumer.partitions_for_topic(self._settings.topic):
                raise Retry(f"topic {self._settings.topic} does not exist")
            consumer.subscribe([self._settings.topic], listener=_Listener(self))
        return self._consumer

    def assigned(self) -> None:
        """The group gave us the partition: it is read on to its end, then claimed if need be."""
        self._held, self._settled = True, False
        self._consumer.seek(self._partition, self._state.next)

    def revoked(self) -> None:
        self._held = self._settled = False

    def _drop(self) -> None:
        self._held = self._settled = False
        consumer, sender, self._consumer, self._sender = self._consumer, self._sender, None, None
        with self._asking:
            requests, self._epoch_requests = self._epoch_requests, []
        for request in requests:
            request.set_exception(Retry("the control topic cannot be read now"))
        close_clients(consumer, sender)


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]
    """Called within `poll`, in the thread of the loop."""

    def __init__(self, topic: ControlTopic) -> None:
        self._topic = topic

    def on_partitions_assigned(self, assigned: Any) -> None:
        if assigned:
            self._topic.assigned()

    def on_partitions_revoked(self, revoked: Any) -> None:
        if revoked:
            self._topic.revoked()

    def on_partitions_lost(self, lost: Any) -> None:
        self.on_partitions_revoked(lost)


def append(sender: Any, topic: str, value: bytes) -> int:
    """Send one record to partition 0; returns its offset once acknowledged."""
    return int(sender.send(topic, value=value, partition=0).get(timeout=30).offset)


def ask(settings: ControlSettings, reason: str, ttl_s: float, now_ms: int) -> Command:
    """Put a command for whoever owns re-alignment on the topic; raises `Retry` without a broker."""
    command = Command(uuid.uuid4().hex, reason, now_ms + round(ttl_s * 1000))
    sender = open_producer(settings.bootstrap, settings.security, timeout_s=10.0)
    try:
        append(sender, settings.topic, commanding(command, settings.group))
    except KafkaError as error:
        raise Retry(f"not published to {settings.topic}: {error}") from error
    finally:
        sender.close(timeout=1)
    return command


def _consumer(settings: ControlSettings) -> Any:
    options = {
        **client_options(settings.bootstrap, settings.security, bootstrap_timeout_s=2.0),
        "client_id": "lte-control",
        "group_id": f"{settings.group}.control",
        "isolation_level": "read_committed",
        "auto_offset_reset": "earliest",
        "enable_auto_commit": False,
        # Whoever joins must not take the partition from the one that trains.
        "partition_assignment_strategy": [STICKY_ASSIGNOR],
        "session_timeout_ms": int(settings.session_s * 1000),
        "heartbeat_interval_ms": int(settings.session_s * 1000 / 4),
        "metrics_enabled": False,
    }
    return open_consumer(options)
