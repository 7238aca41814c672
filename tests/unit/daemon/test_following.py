"""Replicas that follow one topic: who is right, what a restart remembers, what is refused. No broker."""

from __future__ import annotations

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

from daemon.following import AdapterReplica
from daemon.kafka.announcements import Announcement, Announcements, AnnouncementSettings, from_bytes, to_bytes
from daemon.swap import Configured, Swapper
from lte_runtime.align.registry import Registry
from lte_runtime.answer.embed import StubEncoder
from lte_runtime.answer.engine.stub import STUB_ADAPTER, STUB_FINGERPRINT, StubEngine
from lte_runtime.errors import LteError, NotFound
from lte_runtime.memory.edit_memory import EditMemory

SETTINGS = AnnouncementSettings("nowhere:9092", poll_s=0.0, retry_s=0.01)


@dataclass
class Topic:
    """A partition in memory: offsets are places in a list."""

    id: str = "topic-1"
    values: list[bytes] = field(default_factory=list)
    away: bool = False

    def send(self, _: str, *, key: bytes, value: bytes) -> Any:
        if self.away:
            raise KafkaTimeoutError("no broker")
        assert key == STUB_FINGERPRINT.encode()
        self.values.append(value)
        acknowledged = SimpleNamespace(offset=len(self.values) - 1)
        return SimpleNamespace(get=lambda timeout: acknowledged if timeout else None)

    def close(self, timeout: float = 0) -> None: ...

    def words(self) -> list[Announcement]:
        return [word for value in self.values if (word := from_bytes(value))]


class Consumer:
    def __init__(self, topic: Topic) -> None:
        self.topic, self.next = topic, 0
        self._cluster = SimpleNamespace(topic_id=lambda _: topic.id)

    def partitions_for_topic(self, _: str) -> set[int]:
        return set() if self.topic.away else {0}

    def assign(self, _: object) -> None: ...
    def close(self, timeout_ms: int = 0) -> None: ...

    def seek(self, _: object, offset: int) -> None:
        self.next = offset

    def poll(self, timeout_ms: int) -> dict[str, list[Any]]:
        assert timeout_ms == 0
        found = [
            SimpleNamespace(offset=at, value=self.topic.values[at])
            for at in range(self.next, len(self.topic.values))
        ]
        self.next = len(self.topic.values)
        return {"partition": found}


class Daemon:
    """What one daemon has for its adapters; the registry is shared."""

    def __init__(self, directory: Path, shared: Path, topic: Topic) -> None:
        self.directory, self.shared, self.topic = directory, shared, topic
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
            SETTINGS,
            may_write=lambda: self.may_write,
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


@pytest.mark.parametrize("junk", [None, b"", b"{}", b"\xff", b"[1]", b"[" * 100_000])
def test_junk_is_passed_over(junk: bytes | None) -> None:
    assert from_bytes(junk) is None


def test_words_of_other_base_models_are_not_ours(pair: list[Daemon], topic: Topic) -> None:
    topic.values += [b"junk", to_bytes(Announcement("align-000002", "", "another base", "", 99, 0))]
    settle(pair)
    assert [each.serving() for each in pair] == ["align-000000"] * 2


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
