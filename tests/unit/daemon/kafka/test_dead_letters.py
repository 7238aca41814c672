from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
from fake_memory import FakeMemory
from kafka.errors import KafkaTimeoutError, MessageSizeTooLargeError, UnknownTopicOrPartitionError

from daemon.kafka.dead_letters import DeadLetters, DeadLetterSettings, Shared, dead_letter_headers
from lte_runtime.errors import Refused, Retry
from lte_runtime.types import Batch, Position, RawRecord, Rejected


@dataclass
class Sent:
    """A stand-in for the future of a send."""

    error: Exception | None

    def get(self, timeout: float) -> object:
        assert timeout > 0
        if self.error is not None:
            raise self.error
        return object()


@dataclass
class Topic:
    """A dead-letter topic that can refuse everything, or what is too large."""

    values: list[bytes | None] = field(default_factory=list)
    down: Exception | None = None
    opened: int = 0

    def open(self, _: DeadLetterSettings) -> Topic:
        self.opened += 1
        if isinstance(self.down, Retry):
            raise self.down
        return self

    def send(self, _: str, value: bytes | None, **__: Any) -> Sent:
        if self.down is not None:
            return Sent(self.down)
        if value is not None and len(value) > 100:
            raise MessageSizeTooLargeError("too large")
        self.values.append(value)
        return Sent(None)

    def close(self, timeout: float) -> None:
        assert timeout > 0


def bad(memory: FakeMemory, *values: bytes | None) -> None:
    start = len(memory.rows)
    rejected = tuple(
        Rejected(RawRecord("t", Position("id", 1, start + i), b"k", value), "not_json", "no JSON")
        for i, value in enumerate(values)
    )
    memory.apply(Batch((), rejected, {}))


@dataclass
class House:
    memory: FakeMemory = field(default_factory=FakeMemory)
    topic: Topic = field(default_factory=Topic)
    now: float = 0.0

    def __post_init__(self) -> None:
        self.settings = DeadLetterSettings("nowhere:1", batch=3, retry_s=1.0, retry_max_s=8.0)
        self.letters = DeadLetters(
            self.memory, self.settings, open_client=self.topic.open, monotonic=lambda: self.now
        )

    def states(self) -> list[str]:
        return [row.state for row in self.memory.quarantined()]


@pytest.fixture
def house() -> House:
    return House()


def test_pending_rows_are_sent_in_batches_and_marked(house: House) -> None:
    bad(house.memory, b"1", None, b"3", b"4")
    assert [house.letters.step() for _ in range(3)] == [0.0, 0.0, house.settings.idle_s]
    assert house.topic.values == [b"1", None, b"3", b"4"]
    assert set(house.states()) == {"dead_lettered"}
    assert house.letters.status().sent == 4


@pytest.mark.parametrize(
    "down", [Retry("no broker"), KafkaTimeoutError("no such topic"), UnknownTopicOrPartitionError("gone")]
)
def test_while_the_topic_takes_nothing_rows_stay_pending_and_pauses_grow(
    house: House, down: Exception
) -> None:
    house.topic.down = down
    bad(house.memory, b"1", b"2")
    assert [house.letters.step() for _ in range(5)] == [1.0, 2.0, 4.0, 8.0, 8.0]
    assert house.states() == ["pending", "pending"]
    assert house.letters.status().failure == str(down)
    house.topic.down = None
    assert house.letters.step() == 0.0
    assert house.states() == ["dead_lettered", "dead_lettered"]
    assert house.letters.status().failure == ""


def test_a_record_that_is_refused_does_not_hold_up_the_others(house: House) -> None:
    bad(house.memory, b"x" * 200, b"2", b"3", b"4", b"5")
    for _ in range(4):
        house.letters.step()
    assert house.topic.values == [b"2", b"3", b"4", b"5"]
    assert house.states() == ["pending", *["dead_lettered"] * 4]
    assert "refused" in house.letters.status().failure
    assert house.letters.step() == house.settings.idle_s
    house.now = 1.5
    failures = house.letters.status().failures
    house.letters.step()
    assert house.letters.status().failures == failures + 1


def test_headers_name_place_stage_and_reason_after_the_records_own(house: House) -> None:
    record = RawRecord("edits", Position("topic-id", 2, 17), b"k", b"v", (("mine", b"\xff"),), 1234)
    house.memory.apply(Batch((), (Rejected(record, "not_utf8", "bad byte"),), {}))
    headers = dead_letter_headers(house.memory.rows[1])
    assert headers[0] == ("mine", b"\xff")
    named = dict(headers)
    assert named["__connect.errors.topic"] == b"edits"
    assert named["__connect.errors.partition"] == b"2"
    assert named["__connect.errors.offset"] == b"17"
    assert named["__connect.errors.stage"] == b"VALUE_CONVERTER"
    assert named["__connect.errors.exception.class.name"] == b"not_utf8"
    assert named["__connect.errors.exception.message"] == b"bad byte"
    assert named["lte-original-position"] == b"topic-id/2/17/1234"


@dataclass
class Others:
    """The shared topic as one daemon sees it: who owns it, and what others wrote."""

    epoch: int | None = None
    wrote: set[int] = field(default_factory=set)
    known: set[int] = field(default_factory=set)
    away: bool = False

    def own(self) -> int:
        if self.away:
            raise Retry("no broker")
        if self.epoch is None:
            raise Refused("another daemon owns")
        return self.epoch

    def read(self) -> None:
        self.known = set(self.wrote)

    def has(self, where: Position) -> bool:
        return where.offset in self.known

    def close(self) -> None:
        pass


def replica(house: House, others: Others) -> DeadLetters:
    shared = Shared(others.own, others)
    return DeadLetters(house.memory, house.settings, shared=shared, open_client=house.topic.open)


def test_a_replica_that_does_not_own_the_topic_sends_nothing_and_marks_what_the_owner_sent(
    house: House,
) -> None:
    bad(house.memory, b"0", b"1", b"2")
    others = Others(wrote={0, 2})
    letters = replica(house, others)
    assert [letters.step(), letters.step()] == [0.0, house.settings.idle_s]
    assert house.states() == ["dead_lettered", "pending", "dead_lettered"]
    assert house.topic.opened == 0


def test_an_heir_sends_only_what_the_topic_does_not_have(house: House) -> None:
    bad(house.memory, b"0", b"1", b"2")
    others = Others()
    letters = replica(house, others)
    letters.step()
    others.wrote, others.epoch = {0, 1}, 7
    while letters.step() == 0.0:
        pass
    assert house.topic.values == [b"2"]
    assert set(house.states()) == {"dead_lettered"}


def test_an_owner_that_lost_the_topic_meanwhile_stops_and_one_that_cannot_tell_waits(house: House) -> None:
    others = Others(epoch=3)
    letters = replica(house, others)
    bad(house.memory, b"0")
    assert letters.step() == 0.0
    bad(house.memory, b"1")
    others.away = True
    assert letters.step() == house.settings.retry_s
    others.away, others.epoch = False, None
    assert letters.step() == house.settings.idle_s
    assert house.topic.values == [b"0"]
    assert house.states() == ["dead_lettered", "pending"]
    # It owns again, in another epoch: who owned between may have sent it.
    others.epoch, others.wrote = 9, {1}
    letters.step()
    assert house.topic.values == [b"0"]
    assert house.states() == ["dead_lettered", "dead_lettered"]
