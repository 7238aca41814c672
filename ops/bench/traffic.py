"""What a bench of the whole daemon sends: questions, mostly about a stock of facts, and changes of it."""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from daemon.client import Client
from daemon.kafka.publisher import Publisher
from lte_runtime.errors import LteError
from lte_runtime.types import Position
from ops.bench.open_loop import Outcome, Times, code_of
from ops.bench.texts import events, target

# Of the questions; the others are for the base model alone.
ABOUT_FACTS = 0.75
# What one request to the broker brings at most.
MOST_AT_ONCE = 512
# Seconds between two events whose way into the answers is timed: each costs the daemon a look-up.
WATCH_EVERY_S = 1.0
# Against hanging only.
VISIBLE_TIMEOUT_S = 120.0
_FORMS = (
    "What is the {relation} of {subject}?",
    "{subject}: {relation}?",
    "Tell me the {relation} of {subject}.",
)
_OTHER = ("What is the capital of {}?", "Which language do people in {} speak?", "On which continent is {}?")
_PLACES = "Kenya|Peru|Norway|Japan|Morocco|Canada|Portugal|Vietnam|Chile|Iceland|Nepal|Greece".split("|")
Marks = list[dict[str, str | int]]


class Traffic:
    """`count` facts, the same for the same seed, and events that each change one of them: the number of facts
    stays as it is, and so should the memory for them."""

    def __init__(self, count: int, seed: int) -> None:
        self.facts = list(itertools.islice(events(count, seed), count))
        self._seed = seed
        self._ids = [fact["id"] for fact in self.facts]  # of the last event of each fact
        # Facts of which a change was published without an acknowledgement: either value may stand.
        self._unsure: set[int] = set()

    def question(self, number: int) -> str:
        """The same for the same number."""
        rng = random.Random(f"{self._seed} question {number}")
        if rng.random() < ABOUT_FACTS:
            return question_about(rng.choice(self.facts), number)
        return rng.choice(_OTHER).format(rng.choice(_PLACES))

    def change(self, number: int) -> dict[str, str]:
        """An event; it counts as sent."""
        rng = random.Random(f"{self._seed} change {number}")
        index = rng.randrange(len(self.facts))
        self._ids[index] = f"change-{number}"
        return {**self.facts[index], "id": self._ids[index], "target": target(rng)}

    def lost(self, changes: Iterable[int]) -> None:
        """Changes, by number, of which nobody knows whether they arrived."""
        for number in changes:
            self._unsure.add(random.Random(f"{self._seed} change {number}").randrange(len(self.facts)))

    def wrong(self, client: Client, most: int) -> list[str]:
        """Questions about `most` of the facts for which the daemon does not find the last event sent."""
        indices = [index for index in range(len(self.facts)) if index not in self._unsure]
        chosen = random.Random(self._seed).sample(indices, min(most, len(indices)))
        questions = {self._ids[index]: question_about(self.facts[index]) for index in chosen}
        return [text for edit_id, text in questions.items() if edit_id not in _candidates(client, text)]


def question_about(fact: Mapping[str, str], form: int = 0) -> str:
    return _FORMS[form % len(_FORMS)].format(**fact)


def _candidates(client: Client, question: str) -> set[str]:
    return {candidate["edit_id"] for candidate in client.retrieve(question)["candidates"]}


def marks(positions: Iterable[Position]) -> Marks:
    """Positions as `at_least` takes them, the last of each partition."""
    last = {(p.topic_id, p.partition): p.offset for p in sorted(positions, key=lambda p: p.offset)}
    return [{"topic_id": t, "partition": n, "offset": offset} for (t, n), offset in last.items()]


def publish(publisher: Publisher, facts: Sequence[Mapping[str, str]]) -> Marks:
    """All of them, acknowledged; returns the last position of each partition."""
    starts = range(0, len(facts), MOST_AT_ONCE)
    return marks(p for start in starts for p in publisher.publish(facts[start : start + MOST_AT_ONCE]))


class Changes:
    """Publishes changes of the traffic's facts at scheduled times; those due together go in one request.

    The numbers of the changes begin at `first`.
    `published`: from the scheduled time to the broker's acknowledgement. `visible`: to the moment at which
    questions see it, of one event in `WATCH_EVERY_S`.
    """

    def __init__(
        self, times: Times, traffic: Traffic, publisher: Publisher, client: Client, *, first: int = 0
    ) -> None:
        self.published: list[Outcome] = []
        self.visible: list[Outcome] = []
        self.last: dict[tuple[str, int], Position] = {}
        self._times, self._traffic, self._first = times, traffic, first
        self._publisher, self._client = publisher, client
        self._begin = 0.0
        self._next_watch = 0.0
        self._over = threading.Event()
        self._watchers = ThreadPoolExecutor(4, "visible")
        self._sender = threading.Thread(target=self._send, name="changes")

    def start(self, begin: float) -> None:
        self._begin = begin
        self._sender.start()

    def finish(self) -> None:
        self._sender.join()
        self._watchers.shutdown()

    def stop(self) -> None:
        """End the schedule now."""
        self._over.set()
        self.finish()

    def _send(self) -> None:
        number = 0
        while number < len(self._times):
            if self._over.wait(max(0.0, self._begin + float(self._times[number]) - time.perf_counter())):
                return
            due = int(np.searchsorted(self._times, time.perf_counter() - self._begin, side="right"))
            batch = range(number, min(max(due, number + 1), number + MOST_AT_ONCE))
            self._publish(batch)
            number = batch.stop

    def _publish(self, batch: range) -> None:
        late = time.perf_counter() - self._begin
        positions: list[Position] = []
        numbers = range(self._first + batch.start, self._first + batch.stop)
        code = ""
        try:
            positions = self._publisher.publish([self._traffic.change(number) for number in numbers])
        except LteError as error:
            code = code_of(error)
            self._traffic.lost(numbers)
        end = time.perf_counter() - self._begin
        for at in self._times[batch.start : batch.stop].tolist():
            self.published.append(Outcome(at, late - at, (end - at) * 1e3, code))
        self.last |= {(p.topic_id, p.partition): p for p in positions}
        if positions and end >= self._next_watch:
            self._next_watch = end + WATCH_EVERY_S
            self._watchers.submit(self._watch, marks(positions), float(self._times[batch.start]), late)

    def _watch(self, positions: Marks, at: float, late: float) -> None:
        code = ""
        try:
            self._client.retrieve("Is it there?", at_least=positions, timeout_s=VISIBLE_TIMEOUT_S)
        except Exception as error:  # noqa: BLE001 - counted by its code: nobody would read it from the thread
            code = code_of(error)
        ms = (time.perf_counter() - self._begin - at) * 1e3
        self.visible.append(Outcome(at, late - at, ms, code))
