"""SIGKILL at any moment loses and doubles nothing: the log is applied exactly once (P1, short form)."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kafka_house import Running, until
from kafka_topic import KafkaTopic

from lte_runtime.answer.encoder.stub import StubEncoder
from lte_runtime.memory.edit_memory import EditMemory
from lte_runtime.types import Position

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.timeout(900)]
CHILD = Path(__file__).with_name("ingest_child.py")
KILLS = int(os.environ.get("LTE_TEST_KILLS", "5"))
EVENTS = 400 * KILLS


def events(seed: int) -> Iterator[bytes]:
    """Asserts, updates and retractions on few keys, 1 % sent twice, 1 % no events at all."""
    chance = random.Random(seed)
    last = b""
    for number in range(EVENTS):
        roll = chance.random()
        if roll < 0.01 and last:
            yield last
            continue
        if roll < 0.02:
            yield b"{no event %d" % number
            continue
        body: dict[str, Any] = {
            "id": f"e{number}",
            "subject": f"subject {chance.randrange(60)}",
            "relation": "r",
        }
        if roll < 0.1:
            body["op"] = "retract"
        else:
            body["target"] = f"target {chance.randrange(1000)}"
        last = json.dumps(body).encode()
        yield last


class Child:
    """The ingesting process; `progress` is the sum of its next offsets."""

    def __init__(self, topic: KafkaTopic, directory: Path) -> None:
        command = [sys.executable, str(CHILD), topic.bootstrap, topic.topic, str(directory)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.progress = -1
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.progress = int(line)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self._reader.join(10)
        if self.process.stdout is not None:
            self.process.stdout.close()


@pytest.fixture
def spawn(tmp_path: Path) -> Iterator[Callable[[KafkaTopic], Child]]:
    """Start an ingesting process on the one state directory of the test."""
    children: list[Child] = []

    def start(topic: KafkaTopic) -> Child:
        children.append(Child(topic, tmp_path / "killed"))
        return children[-1]

    yield start
    for child in children:
        child.kill()


@pytest.fixture
def published(make_topic: Callable[..., KafkaTopic]) -> Iterator[tuple[KafkaTopic, list[tuple[int, int]]]]:
    """A topic that is being written during the test, and what the broker has acknowledged so far."""
    topic, acknowledged = make_topic(partitions=3), list[tuple[int, int]]()
    values = list(events(seed=7))

    def write() -> None:
        for start in range(0, len(values), 50):
            acknowledged.extend(topic.append_many(values[start : start + 50]))
            time.sleep(0.1)

    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    yield topic, acknowledged
    writer.join(60)


def test_kills_lose_and_double_nothing(
    published: tuple[KafkaTopic, list[tuple[int, int]]],
    spawn: Callable[[KafkaTopic], Child],
    ingesting: Callable[..., Running],
    tmp_path: Path,
) -> None:
    topic, acknowledged = published
    chance = random.Random(11)
    for _ in range(KILLS):
        child = spawn(topic)
        until(lambda child=child: child.progress >= 0)
        goal = min(child.progress + chance.randrange(300), EVENTS)
        until(lambda child=child, goal=goal: child.progress >= goal)
        time.sleep(chance.random() * 0.05)
        child.kill()
    child = spawn(topic)
    until(lambda: child.progress == EVENTS)
    child.kill()
    memory = EditMemory.open(tmp_path / "killed", StubEncoder())
    positions = stored_positions(memory)
    assert len(positions) == len(set(positions))
    assert set(positions) == {Position(topic.topic_id, *each) for each in acknowledged}
    assert len(acknowledged) == EVENTS
    clean = EditMemory.open(tmp_path / "clean", StubEncoder())
    running = ingesting(topic, clean).ready()
    running.stop()
    assert memory.state_hash() == clean.state_hash()
    assert memory.verify().ok
    memory.close()
    clean.close()


def stored_positions(memory: EditMemory) -> list[Position]:
    """Every position that the memory has taken in, as an edit or as a quarantined record."""
    edits = memory.list_edits(limit=100_000)
    bad = memory.quarantined(limit=100_000)
    return [each for edit in edits for each in edit.positions] + [row.record.position for row in bad]
