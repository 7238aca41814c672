"""SIGKILL of the whole daemon while events arrive: nothing is lost, nothing doubled, every fact is right."""

from __future__ import annotations

import itertools
import json
import os
import random
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from daemon_house import House, question, targets, until
from kafka import KafkaConsumer, TopicPartition

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.timeout(1200)]
SEED = int(os.environ.get("LTE_TEST_SEED", "20"))
KILLS = int(os.environ.get("LTE_TEST_KILLS", "4"))
EVENTS = 2000
Place = tuple[str, int, int]


def written(seed: int, count: int) -> Iterator[tuple[bytes, bytes]]:
    """Assertions, updates, revisions and withdrawals of 120 keys; 1 % sent twice, 1 % no events at all."""
    chance = random.Random(seed)
    said: list[tuple[bytes, bytes, str]] = []
    for number in range(count):
        roll = chance.random()
        subject = f"Unit {chance.randrange(120)}"
        if roll < 0.01 and said:
            yield chance.choice(said[-50:])[:2]
            continue
        if roll < 0.02:
            yield subject.encode(), chance.choice([b"", b"{", b'{"op": "assert"}', b"\xff\xfe", b"[1]"])
            continue
        event: dict[str, Any] = {"id": f"e{number}", "subject": subject, "relation": "keeper"}
        if roll < 0.10:
            event |= {"op": "retract"}
        elif roll < 0.14 and said:
            _, value, subject = chance.choice(said[-50:])
            named = json.loads(value)["id"]
            event |= {"op": "retract", "retracts": named, "subject": subject}
        else:
            event |= {"target": f"Keeper {chance.randrange(40)}"}
            if chance.random() < 0.1:
                event["revision"] = chance.randrange(5)
        record = event["subject"].encode(), json.dumps(event).encode()
        if "target" in event:
            said.append((*record, event["subject"]))
        yield record


class Model:
    """What the topic says, by the documented rules, sharing no code with the daemon.

    A key is a list of (revision, arrival, id, target), lowest first; the last one is what questions see.
    """

    def __init__(self) -> None:
        self.keys: dict[str, list[tuple[int, int, str, str]]] = defaultdict(list)
        self.good: set[Place] = set()
        self.bad: set[Place] = set()
        self._seen: set[tuple[str, str]] = set()
        self._first: dict[tuple[str, int, str], str] = {}
        self._joined: dict[tuple[str, str], str] = {}

    def take(self, place: Place, arrival: int, value: bytes) -> None:
        try:
            event = json.loads(value.decode("utf-8"))
            subject, relation, name = event["subject"], event["relation"], event["id"]
        except (ValueError, KeyError, TypeError):
            self.bad.add(place)
            return
        self.good.add(place)
        key, retract = f"{subject}/{relation}", event.get("op") == "retract"
        if (key, name) not in self._seen:
            self._seen.add((key, name))
            self._withdraw(key, event) if retract else self._assert(key, arrival, event)

    def _assert(self, key: str, arrival: int, event: dict[str, Any]) -> None:
        revision, target = event.get("revision", -1), event["target"]
        if revision >= 0:
            first = self._first.setdefault((key, revision, target), event["id"])
            if first != event["id"]:  # the same said again at the same revision shares the first one's fate
                self._joined[key, event["id"]] = first
                return
        self.keys[key] = sorted([*self.keys[key], (revision, arrival, event["id"], target)])

    def _withdraw(self, key: str, event: dict[str, Any]) -> None:
        standing = self.keys[key]
        if named := event.get("retracts"):
            named = self._joined.get((key, named), named)
            self.keys[key] = [it for it in standing if it[2] != named]
            return
        top = standing[-1][3] if standing else None
        while standing and standing[-1][3] == top:
            standing.pop()

    def current(self) -> dict[str, str]:
        return {key: standing[-1][3] for key, standing in self.keys.items() if standing}


def dumped(house: House) -> Model:
    """The topic read from its beginning by a plain consumer."""
    model, name = Model(), house.topic.topic_id
    consumer = KafkaConsumer(bootstrap_servers=house.topic.bootstrap, enable_auto_commit=False)
    parts = [TopicPartition(house.topic.topic, number) for number in range(3)]
    consumer.assign(parts)
    consumer.seek_to_beginning(*parts)
    ends = consumer.end_offsets(parts)
    arrival = itertools.count()
    while any(consumer.position(part) < ends[part] for part in parts):
        for records in consumer.poll(1000).values():
            for record in records:
                model.take((name, record.partition, record.offset), next(arrival), record.value or b"")
    consumer.close()
    return model


def places(rows: list[dict[str, Any]]) -> list[Place]:
    return [(at["topic_id"], at["partition"], at["offset"]) for at in rows]


class Burst:
    """A part of the events, sent at speed by a thread of its own."""

    def __init__(self, house: House, records: list[tuple[bytes, bytes]]) -> None:
        self.acknowledged: list[Place] = []
        self._house, self._records = house, records
        self._thread = threading.Thread(target=self._send, daemon=True)
        self._thread.start()

    def _send(self) -> None:
        for start in range(0, len(self._records), 25):
            self.acknowledged += places(self._house.send(self._records[start : start + 25]))

    def join(self) -> list[Place]:
        self._thread.join(60)
        assert not self._thread.is_alive()
        return self.acknowledged


def test_kills_while_events_arrive(make_house: Callable[..., House]) -> None:
    """Four SIGKILLs, each after a random number of records of that life."""
    print(f"seed {SEED}, N = {KILLS} kills, {EVENTS} events")
    house = make_house(LTE_KAFKA__POLL_MAX_RECORDS="25", LTE_MEMORY__SNAPSHOT_INTERVAL_S="1")
    chance = random.Random(SEED)
    records = list(written(SEED, EVENTS))
    share = EVENTS // (KILLS + 1)
    acknowledged: list[Place] = []
    for number in range(KILLS):
        burst = Burst(house, records[number * share : (number + 1) * share])
        process = house.stack.launch_daemon()
        goal = chance.randrange(1, share)
        until(partial(has_read, house, goal), f"{goal} records in life {number}")
        assert process.poll() is None, house.log[-2000:]
        house.stack.kill_daemon()
        acknowledged += burst.join()
    acknowledged += Burst(house, records[KILLS * share :]).join()
    house.start()
    until(lambda: house.lag() == 0, "the end of the topic")
    model = dumped(house)
    check_log(house, model, acknowledged)
    check_answers(house, model, chance)
    assert house.client.verify_index()["ok"]


def has_read(house: House, goal: int) -> bool:
    """Whether this life of the daemon has read so many records."""
    return house.metrics().get(("lte_ingest_events_total", ()), 0) >= goal


def check_log(house: House, model: Model, acknowledged: list[Place]) -> None:
    """Every acknowledged record is kept once: as an edit's delivery, or in the quarantine."""
    edits = list(house.pages(house.client.list_edits, "edits"))
    letters = list(house.pages(house.client.dead_letters, "dead_letters"))
    good = [place for edit in edits for place in places(edit["positions"])]
    bad = places([letter["position"] for letter in letters])
    assert len(acknowledged) == len(set(acknowledged)) == EVENTS
    assert sorted(good + bad) == sorted(acknowledged)
    assert (set(good), set(bad)) == (model.good, model.bad)
    assert len(good) == len(set(good))
    held = {f"{e['subject']}/{e['relation']}": e["target"] for e in edits if e["state"] == "current"}
    assert held == model.current()


def check_answers(house: House, model: Model, chance: random.Random) -> None:
    """What questions see is what the topic says, for keys with a fact and for keys without."""
    current = model.current()
    for key in chance.sample(sorted(model.keys), 30):
        subject, relation = key.split("/")
        answer = house.ask(question(subject, relation))
        found = targets(answer) if answer["scope"] == "edited" else []
        assert found == ([current[key]] if key in current else []), key
        assert (answer["text"] == current.get(key)) == (key in current)
