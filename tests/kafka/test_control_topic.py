"""Ownership on a real broker: one of three owns, a dead one is followed, a stopped one is fenced."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from daemon.kafka.control import ControlSettings, ControlTopic, ask
from daemon.realign.control import Command
from lte_runtime.errors import Refused, Retry

GUARD_S = 120.0


def until(condition: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + GUARD_S
    while not (found := condition()):
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.05)
    return found


class Member:
    """A daemon's end of the topic, with the commands that it was told to run."""

    def __init__(self, settings: ControlSettings) -> None:
        self.ran: list[Command] = []
        self.busy = False
        self.bad: list[tuple[str, str]] = []
        self.topic = ControlTopic(settings, on_bad=lambda *bad: self.bad.append(bad))
        self.topic.take_commands(ready=lambda: not self.busy, on_command=self.ran.append)
        self.thread = threading.Thread(target=self.topic.run, daemon=True)
        self.thread.start()

    @property
    def owns(self) -> bool:
        return self.topic.status().owns

    def stop(self) -> None:
        self.topic.stop()
        self.thread.join(GUARD_S)
        assert not self.thread.is_alive()


@pytest.fixture
def join() -> Iterator[Callable[[ControlSettings], Member]]:
    made: list[Member] = []

    def make(settings: ControlSettings) -> Member:
        made.append(Member(settings))
        return made[-1]

    yield make
    for member in made:
        member.stop()


def settings_of(topic: Any) -> ControlSettings:
    return ControlSettings(topic.bootstrap, topic.topic, "g", session_s=6.0, retry_s=0.2)


def test_one_of_three_owns_and_runs_each_command_once(
    make_topic: Callable[..., Any], join: Callable[[ControlSettings], Member]
) -> None:
    topic = make_topic(partitions=1)
    settings = settings_of(topic)
    owner = join(settings)
    until(lambda: owner.owns)
    epoch = owner.topic.epoch()
    members = [owner, join(settings), join(settings)]
    until(lambda: all(not each.topic.status().fault for each in members))
    time.sleep(1.0)  # the group settles
    until(lambda: owner.owns)
    assert owner.topic.epoch() == epoch, "who joins takes nothing away"
    now = time.time_ns() // 1_000_000
    command = ask(settings, "new products", 60, now)
    expired = ask(settings, "late", -1, now)
    until(lambda: owner.ran)
    assert owner.ran == [command]
    # The same record again, as a producer that repeats itself would send it.
    topic.append(b'{"kind": "realign", "id": "%s", "expires_ms": %d}' % (command.id.encode(), now + 60_000))
    # An orderly leave passes ownership on at once, in a higher epoch.
    owner.stop()
    heir = until(lambda: next((each for each in members if each is not owner and each.owns), None))
    assert heir.topic.epoch() > epoch
    second = ask(settings, "again", 60, time.time_ns() // 1_000_000)
    until(lambda: heir.ran)
    assert heir.ran == [second]
    assert expired not in owner.ran + heir.ran
    loser = next(each for each in members if each not in (owner, heir))
    with pytest.raises(Refused, match="another daemon"):
        loser.topic.epoch()
    assert loser.ran == []


def test_a_busy_owner_lets_a_command_wait(
    make_topic: Callable[..., Any], join: Callable[[ControlSettings], Member]
) -> None:
    settings = settings_of(make_topic(partitions=1))
    member = join(settings)
    until(lambda: member.owns)
    member.busy = True
    ask(settings, "later", 60, time.time_ns() // 1_000_000)
    member.topic.epoch()
    assert member.ran == []
    member.busy = False
    until(lambda: member.ran)


def test_an_owner_that_was_stopped_is_fenced_by_the_next_claim(
    make_topic: Callable[..., Any], join: Callable[[ControlSettings], Member]
) -> None:
    """A claim that stands behind one's own is seen when the epoch is asked for, whatever the group says."""
    topic = make_topic(partitions=1)
    member = join(settings_of(topic))
    until(lambda: member.owns)
    topic.append(b'{"kind": "claim", "group": "g", "instance": "another"}')
    with pytest.raises(Refused, match="another daemon"):
        member.topic.epoch()
    assert not member.owns


def test_a_topic_that_does_not_exist_is_a_fault_and_not_an_owner(
    make_topic: Callable[..., Any], join: Callable[[ControlSettings], Member]
) -> None:
    topic = make_topic(partitions=1)
    member = join(ControlSettings(topic.bootstrap, f"{topic.topic}.absent", "g", retry_s=0.2))
    until(lambda: "does not exist" in member.topic.status().fault)
    with pytest.raises(Retry, match="does not exist"):
        member.topic.epoch()


def test_bad_records_are_passed_over_each_counted_once(
    make_topic: Callable[..., Any],
    join: Callable[[ControlSettings], Member],
    caplog: pytest.LogCaptureFixture,
) -> None:
    topic = make_topic(partitions=1)
    settings = settings_of(topic)
    command = {"kind": "realign", "id": "c", "expires_ms": time.time_ns()}
    bad = [
        b"\xff",
        b"[" * 100_000,
        b'{"kind": "claim", "instance": "a", "instance": "b"}',
        json.dumps({**command, "expires_ms": 2**70}).encode(),
        json.dumps({"kind": "taken", "id": "c", "epoch": True}).encode(),
    ]
    topic.append_many(bad, partition=0)
    member = join(settings)
    until(lambda: member.owns)
    assert member.topic.epoch() == len(bad)
    assert member.bad == [(topic.topic, code) for code in CODES]
    assert f"{topic.topic}, partition 0, offset 3: realign.expires_ms" in caplog.text
    sound = ask(settings, "behind them", 60, time.time_ns() // 1_000_000)
    until(lambda: member.ran)
    assert member.ran == [sound]


CODES = ["not_utf8", "too_large", "duplicate_key", "bad_field", "bad_field"]


def test_an_owner_claims_anew_on_a_topic_that_was_made_anew(
    make_topic: Callable[..., Any], join: Callable[[ControlSettings], Member]
) -> None:
    """Its epoch would be beyond the end, and refused by all who check it."""
    topic = make_topic(partitions=1)
    topic.append_many([b"{}"] * 5, partition=0)
    settings = settings_of(topic)
    member = join(settings)
    until(lambda: member.owns)
    assert member.topic.epoch() == 5
    topic.create(1)
    epoch = until(lambda: lower_epoch(member, 5))
    assert epoch == [0]
    ask(settings, "on the new topic", 60, time.time_ns() // 1_000_000)
    until(lambda: member.ran)


def lower_epoch(member: Member, before: int) -> list[int]:
    """The confirmed epoch in a list, once it is below the one before."""
    try:
        epoch = member.topic.epoch()
    except (Refused, Retry):
        return []
    assert epoch < before, "confirmed on a topic that no longer exists"
    return [epoch]
