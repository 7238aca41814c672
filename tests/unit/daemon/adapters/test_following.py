"""Replicas that follow one topic: who is right, what a restart remembers, what is refused. No broker."""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from kafka.errors import KafkaTimeoutError
from stub_adapters import save_adapter

from daemon.adapters.following import AdapterReplica
from daemon.adapters.ownership import owned_epoch
from daemon.adapters.swap import Configured, Swapper
from daemon.kafka.announcements import Announcement, Announcements, AnnouncementSettings, from_bytes, to_bytes
from lte_runtime.align.registry import Registry
from lte_runtime.answer.encoder import StubEncoder
from lte_runtime.answer.engine.stub import STUB_ADAPTER, STUB_FINGERPRINT, StubEngine
from lte_runtime.errors import BadRecord, LteError, NotFound, Refused, Retry
from lte_runtime.memory.edit_memory import EditMemory

SETTINGS = AnnouncementSettings("nowhere:9092", control_topic="control", poll_s=0.0, retry_s=0.01)
ALONE = AnnouncementSettings("nowhere:9092", poll_s=0.0, retry_s=0.01)


@dataclass
class Topic:
    """A partition in memory: offsets are places in a list. Of the control topic, the end alone."""

    id: str = "topic-1"
    values: list[bytes] = field(default_factory=list)
    away: bool = False
    control_end: int | None = 100

    def send(self, _: str, *, key: bytes, value: bytes) -> Any:
        if self.away:
            raise KafkaTimeoutError("no broker")
        assert key == STUB_FINGERPRINT.encode()
        self.values.append(value)
        acknowledged = SimpleNamespace(offset=len(self.values) - 1)
        return SimpleNamespace(get=lambda timeout: acknowledged if timeout else None)

    def close(self, timeout: float = 0) -> None: ...

    def words(self) -> list[Announcement]:
        return [word for value in self.values if (word := readable(value))]


def readable(value: bytes | None) -> Announcement | None:
    try:
        return from_bytes(value)
    except BadRecord:
        return None


class Consumer:
    def __init__(self, topic: Topic) -> None:
        self.topic, self.next = topic, 0
        self._cluster = SimpleNamespace(topic_id=lambda _: topic.id)

    def partitions_for_topic(self, name: str) -> set[int]:
        missing = self.topic.control_end is None if name == "control" else self.topic.away
        return set() if missing else {0}

    def end_offsets(self, partitions: list[Any], timeout_ms: int) -> dict[Any, int]:
        assert timeout_ms > 0
        assert [each.topic for each in partitions] == ["control"]
        return dict.fromkeys(partitions, self.topic.control_end or 0)

    def assign(self, _: object) -> None: ...
    def close(self, timeout_ms: int = 0) -> None: ...

    def seek(self, _: object, offset: int) -> None:
        self.next = offset

    def poll(self, timeout_ms: int) -> dict[str, list[Any]]:
        assert timeout_ms == 0
        values = self.topic.values
        records = [
            SimpleNamespace(topic="adapters", partition=0, offset=at, timestamp=0, value=values[at])
            for at in range(self.next, len(values))
        ]
        self.next = len(self.topic.values)
        return {"partition": records}


class Daemon:
    """What one daemon has for its adapters; the registry is shared."""

    def __init__(
        self, directory: Path, shared: Path, topic: Topic, settings: AnnouncementSettings = SETTINGS
    ) -> None:
        self.directory, self.shared, self.topic = directory, shared, topic
        self.bad: list[str] = []
        self.memory = EditMemory.open(directory, StubEncoder())
        self.engine = StubEngine()
        self.registry = Registry(shared, self.engine.check_adapter)
        self.swapper = Swapper(self.engine, self.registry, self.memory.adapters, Configured(STUB_ADAPTER))
        assert self.swapper.start() == ()
        self.faults: list[str] = []
        self.replica = AdapterReplica(
            self.memory, self.memory.adapters, self.swapper, STUB_FINGERPRINT, self.faults.append
        )
        self.may_write = True
        self.says = Announcements(
            self.replica,
            settings,
            may_write=lambda: self.may_write,
            on_bad=lambda _, code: self.bad.append(code),
            open_consumer=lambda _: Consumer(topic),
            open_sender=lambda _: topic,
        )

    def serving(self) -> str:
        return self.engine.adapter.id if self.engine.adapter else "none"

    def close(self) -> None:
        self.engine.close()
        self.memory.close()

    def restarted(self) -> Daemon:
        self.close()
        return Daemon(self.directory, self.shared, self.topic)


@pytest.fixture
def topic() -> Topic:
    return Topic()


@pytest.fixture
def pair(tmp_path: Path, topic: Topic) -> Iterator[list[Daemon]]:
    made = [Daemon(tmp_path / name, tmp_path / "shared", topic) for name in ("a", "b")]
    for number in (2, 3, 4):
        made[0].registry.add(save_adapter(tmp_path / f"made-{number}", number), {})
    yield made
    for each in made:
        each.close()


def until(condition: Callable[[], bool]) -> None:
    """Against hanging only."""
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def settle(daemons: list[Daemon], rounds: int = 4) -> None:
    for each in daemons * rounds:
        each.says.step()


def test_what_one_activates_all_serve(pair: list[Daemon], topic: Topic) -> None:
    a, b = pair
    settle(pair)
    assert topic.values == []
    a.swapper.activate("align-000002", "promoted", 4)
    settle(pair)
    assert (a.serving(), b.serving()) == ("align-000002", "align-000002")
    (word,) = topic.words()
    assert (word.adapter, word.epoch, word.reason) == ("align-000002", 4, "promoted")
    assert b.memory.adapters.active().followed
    b.swapper.rollback("worse", 4)
    settle(pair)
    assert (a.serving(), b.serving()) == ("align-000000", "align-000000")
    assert [word.adapter for word in topic.words()] == ["align-000002", "configured"]


@pytest.mark.parametrize("seed", range(6))
def test_all_end_where_the_topic_ends(pair: list[Daemon], topic: Topic, seed: int) -> None:
    """Moves on both sides in any order with any steps between, restarts among them: one answer in the end."""
    chance = random.Random(seed)
    for _ in range(25):
        at = chance.randrange(2)
        act = chance.random()
        if act < 0.3:
            pair[at].swapper.activate(f"align-{chance.choice((2, 3, 4)):06d}", "trial")
        elif act < 0.4:
            pair[at] = pair[at].restarted()
        else:
            pair[at].says.step()
    settle(pair)
    last = topic.words()[-1].adapter
    assert {each.serving() for each in pair} == {last}


def test_an_old_word_is_not_followed_again_after_a_restart(pair: list[Daemon], topic: Topic) -> None:
    a, b = pair
    a.swapper.activate("align-000002", "promoted")
    settle(pair)
    topic.away = True
    b.swapper.activate("align-000003", "an operator, while the broker is away")
    with pytest.raises(LteError):
        _restart_and_step(pair, 1)
    topic.away = False
    settle(pair)
    assert {each.serving() for each in pair} == {"align-000003"}


def _restart_and_step(pair: list[Daemon], at: int) -> None:
    pair[at] = pair[at].restarted()
    assert pair[at].serving() == "align-000003"
    pair[at].says.step()


def test_a_lower_epoch_is_refused_and_passed_over(pair: list[Daemon], topic: Topic) -> None:
    a, b = pair
    a.swapper.activate("align-000002", "promoted", 9)
    settle(pair)
    sha = a.registry.get("align-000003").ref.sha256
    zombie = Announcement("align-000003", sha, STUB_FINGERPRINT, "an owner of before", 8, 0)
    topic.values.append(to_bytes(zombie))
    settle(pair)
    assert (a.serving(), b.serving()) == ("align-000002", "align-000002")
    b.swapper.activate("align-000003", "promoted", 9)
    settle(pair)
    assert (a.serving(), b.serving()) == ("align-000003", "align-000003")


def test_an_adapter_that_is_not_there_yet_is_waited_for(
    tmp_path: Path, pair: list[Daemon], topic: Topic
) -> None:
    a, _ = pair
    alone = Daemon(tmp_path / "c", tmp_path / "own", topic)
    a.swapper.activate("align-000002", "promoted")
    a.says.step()
    for _ in range(2):
        with pytest.raises(NotFound):
            alone.says.step()
    assert alone.serving() == "align-000000"
    assert "align-000002" in alone.faults[-1]
    alone.registry.add(tmp_path / "made-2", {})
    alone.says.step()
    assert (alone.serving(), alone.faults[-1]) == ("align-000002", "")
    alone.close()


def test_another_content_under_the_name_is_refused(tmp_path: Path, pair: list[Daemon], topic: Topic) -> None:
    alone = Daemon(tmp_path / "c", tmp_path / "own", topic)
    alone.registry.add(save_adapter(tmp_path / "other", 9, id="align-000002"), {})
    pair[0].swapper.activate("align-000002", "promoted")
    pair[0].says.step()
    alone.says.step()
    assert alone.serving() == "align-000000"
    alone.close()


def test_who_does_not_own_the_topics_says_nothing(pair: list[Daemon], topic: Topic) -> None:
    a, b = pair
    b.may_write = False
    b.swapper.activate("align-000003", "here alone")
    settle(pair)
    assert topic.values == []
    a.swapper.activate("align-000002", "promoted")
    settle(pair)
    assert b.serving() == "align-000002"


def test_a_topic_made_anew_is_told_again(pair: list[Daemon], topic: Topic) -> None:
    a, b = pair
    a.swapper.activate("align-000002", "promoted")
    settle(pair)
    topic.id, topic.values = "topic-2", []
    pair[:] = [a.restarted(), b.restarted()]
    settle(pair)
    assert [word.adapter for word in topic.words()] == ["align-000002"]


SOUND = {
    "adapter": "align-000002",
    "sha256": "ab" * 32,
    "base_fingerprint": STUB_FINGERPRINT,
    "reason": "promoted",
    "epoch": 3,
    "time_ms": 1_750_000_000_000,
}
JUNK: dict[str, bytes | dict[str, Any]] = {
    "empty object": b"{}",
    "not UTF-8": b"\xff",
    "an array": b"[1]",
    "too deep": b"[" * 100_000,
    "too deep an object": b'{"a":' * 40 + b"1" + b"}" * 40,
    "duplicate name": to_bytes(Announcement(**SOUND)).replace(b"{", b'{"epoch": 1, ', 1),
    "too large": {"more": "x" * (64 << 10)},
    "not a number": to_bytes(Announcement(**SOUND)).replace(b'"epoch": 3', b'"epoch": NaN'),
    "5,000 digits": to_bytes(Announcement(**SOUND)).replace(b'"epoch": 3', b'"epoch": ' + b"9" * 5000),
    "epoch 2^70": {"epoch": 2**70},
    "epoch 2^63": {"epoch": 2**63},
    "negative epoch": {"epoch": -1},
    "epoch true": {"epoch": True},
    "epoch 3.0": {"epoch": 3.0},
    "epoch as text": {"epoch": "3"},
    "time 2^70": {"time_ms": 2**70},
    "no adapter": {"adapter": None},
    "adapter with a path": {"adapter": "../align-000002"},
    "adapter with a newline": {"adapter": "align-000002\n"},
    "other digits": {"adapter": "align-00000\u0662"},
    "short hash": {"sha256": "ab"},
    "hash in capitals": {"sha256": "AB" * 32},
    "long reason": {"reason": "x" * 8193},
    "lone surrogate": to_bytes(Announcement(**SOUND)).replace(b"promoted", b"\\ud800"),
    "no base": {"base_fingerprint": ""},
}


@pytest.mark.parametrize("junk", JUNK.values(), ids=JUNK)
def test_junk_is_passed_over_once_and_what_stands_behind_it_is_followed(
    pair: list[Daemon], topic: Topic, junk: bytes | dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    a, b = pair
    value = junk if isinstance(junk, bytes) else json.dumps({**SOUND, **junk}).encode()
    with pytest.raises(BadRecord):
        from_bytes(value)
    topic.values.append(value)
    settle(pair)
    assert "adapters, partition 0, offset 0" in caplog.text
    assert len(a.bad) == len(b.bad) == 1
    pair[:] = [a.restarted(), b.restarted()]
    settle(pair)
    assert [daemon.bad for daemon in pair] == [[], []], "not read again after a restart"
    pair[0].swapper.activate("align-000002", "promoted", 3)
    settle(pair)
    assert [daemon.serving() for daemon in pair] == ["align-000002"] * 2


@pytest.mark.parametrize("nothing", [None, b""])
def test_a_tombstone_says_nothing(nothing: bytes | None) -> None:
    assert from_bytes(nothing) is None


def announced(daemon: Daemon, adapter: str, epoch: int) -> bytes:
    sha256 = daemon.registry.get(adapter).ref.sha256
    return to_bytes(Announcement(adapter, sha256, STUB_FINGERPRINT, "announced", epoch, 0))


def test_an_epoch_beyond_the_end_of_the_control_topic_is_refused(pair: list[Daemon], topic: Topic) -> None:
    """It is followed by nobody and stands in nobody's way."""
    a, b = pair
    topic.values.append(announced(a, "align-000003", 2**62))
    settle(pair)
    assert (a.serving(), b.serving()) == ("align-000000", "align-000000")
    assert (a.bad, b.bad) == (["bad_epoch"], ["bad_epoch"])
    a.swapper.activate("align-000002", "promoted", 7)
    settle(pair)
    assert (a.serving(), b.serving()) == ("align-000002", "align-000002")


def test_a_state_that_followed_such_an_epoch_follows_real_ones_again(pair: list[Daemon]) -> None:
    """As an older version left it: the epoch stands in the ledger of both."""
    for daemon in pair:
        sha256 = daemon.registry.get("align-000003").ref.sha256
        daemon.memory.adapters.point("align-000003", sha256, "announced", 2**62, followed=True)
    pair[:] = a, b = [pair[0].restarted(), pair[1].restarted()]
    assert a.serving() == "align-000003"
    epoch = owned_epoch(lambda: 7, a.memory.adapters)
    a.swapper.activate("align-000002", "by an operator", epoch())
    settle([a, b])
    assert (a.serving(), b.serving()) == ("align-000002", "align-000002")
    assert (a.memory.adapters.epoch(), b.memory.adapters.epoch()) == (7, 7)
    pair[1] = b.restarted()
    assert pair[1].memory.adapters.epoch() == 7


def test_a_control_topic_made_anew_begins_its_epochs_again(pair: list[Daemon], topic: Topic) -> None:
    a, b = pair
    a.swapper.activate("align-000002", "promoted", 50)
    settle(pair)
    topic.control_end = 3
    with pytest.raises(Refused, match="epoch 2 is over"):
        a.swapper.activate("align-000003", "promoted", 2)
    epoch = owned_epoch(lambda: 2, a.memory.adapters)
    a.swapper.activate("align-000003", "promoted", epoch())
    settle(pair)
    assert (a.serving(), b.serving()) == ("align-000003", "align-000003")
    zombie = announced(a, "align-000004", 1)
    topic.values.append(zombie)
    settle(pair)
    assert (a.serving(), b.serving()) == ("align-000003", "align-000003"), "the fence stands again"


def test_a_cluster_made_anew_is_told_the_pointer_without_its_old_epoch(
    tmp_path: Path, pair: list[Daemon], topic: Topic
) -> None:
    """Both topics are new: the last move stands, its epoch does not; a new replica follows it."""
    a, _ = pair
    a.swapper.activate("align-000002", "promoted", 50)
    settle(pair)
    topic.id, topic.values, topic.control_end = "topic-2", [], 3
    a = pair[0] = a.restarted()
    newcomer = Daemon(tmp_path / "c", tmp_path / "shared", topic)
    settle([a, newcomer])
    assert [(word.adapter, word.epoch) for word in topic.words()] == [("align-000002", 0)]
    assert newcomer.serving() == "align-000002"
    newcomer.close()


def test_without_a_control_topic_no_epoch_above_the_seen_one_is_followed(
    tmp_path: Path, pair: list[Daemon], topic: Topic
) -> None:
    alone = Daemon(tmp_path / "c", tmp_path / "shared", topic, ALONE)
    topic.values.append(announced(pair[0], "align-000003", 1))
    alone.says.step()
    assert (alone.serving(), alone.bad) == ("align-000000", ["bad_epoch"])
    topic.values.append(announced(pair[0], "align-000002", 0))
    alone.says.step()
    assert alone.serving() == "align-000002"
    alone.close()


def test_a_word_waits_while_its_epoch_cannot_be_checked(pair: list[Daemon], topic: Topic) -> None:
    a, b = pair
    topic.values.append(announced(a, "align-000003", 4))
    topic.control_end = None
    for _ in range(2):
        with pytest.raises(Retry, match="control does not exist"):
            b.says.step()
    assert (b.serving(), b.bad) == ("align-000000", [])
    topic.control_end = 5
    b.says.step()
    assert b.serving() == "align-000003"


def test_a_long_reason_is_cut_where_it_is_announced(pair: list[Daemon], topic: Topic) -> None:
    pair[0].swapper.activate("align-000002", "x" * 20_000)
    settle(pair)
    assert [daemon.serving() for daemon in pair] == ["align-000002"] * 2
    assert len(topic.words()[0].reason) == 1000


def test_words_of_other_base_models_are_not_ours(pair: list[Daemon], topic: Topic) -> None:
    topic.values += [b"junk", to_bytes(Announcement("align-000002", "", "another base", "", 99, 0))]
    settle(pair)
    assert [each.serving() for each in pair] == ["align-000000"] * 2


def test_words_for_a_base_model_count_once_it_serves(pair: list[Daemon]) -> None:
    one, other = pair
    other.replica.base_fingerprint = "the base before"
    one.swapper.activate("align-000002", "promoted")
    settle(pair)
    assert other.serving() == "align-000000"
    pair[1] = other.restarted()
    settle(pair)
    assert pair[1].serving() == "align-000002"


def test_what_the_pointer_names_is_not_announced_while_it_does_not_serve(
    pair: list[Daemon], topic: Topic
) -> None:
    """As after a start with another base model than the adapter was made for."""
    pair[0].swapper.activate("align-000002", "promoted")
    pair[0].engine.switch(None)
    settle(pair)
    assert topic.words() == []
    pair[0].swapper.activate("configured", "of this base model")
    settle(pair)
    assert [word.adapter for word in topic.words()] == ["configured"]


def test_the_thread_goes_on_after_faults(pair: list[Daemon], topic: Topic) -> None:
    topic.away = True
    thread = threading.Thread(target=pair[1].says.run)
    thread.start()
    until(lambda: bool(pair[1].says.fault))
    topic.away = False
    pair[0].swapper.activate("align-000002", "promoted")
    pair[0].says.step()
    until(lambda: pair[1].serving() == "align-000002")
    pair[1].says.stop()
    thread.join(60)
    assert not thread.is_alive()
