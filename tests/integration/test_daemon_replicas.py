"""Three daemons on one topic behind a client that goes round among them, one of which is killed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from daemon_house import House, fact, question, targets, until

from daemon.client import Client
from lte_runtime.errors import LteError
from lte_runtime.store.backup import summarise

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.timeout(1200)]
FACTS, CALLERS = 60, 6


@dataclass
class Callers:
    """Ask without a pause; note answers, errors and answers with other values than expected."""

    client: Client
    expected: Mapping[str, str]
    answers: int = 0
    errors: list[str] = field(default_factory=list)
    wrong: list[tuple[str, str, list[str]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._over, self._counting = threading.Event(), threading.Lock()

    @contextmanager
    def asking(self) -> Iterator[None]:
        threads = [threading.Thread(target=self._run) for _ in range(CALLERS)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._over.set()
            for thread in threads:
                thread.join()

    def _run(self) -> None:
        while not self._over.is_set():
            for subject, target in self.expected.items():
                self._ask(subject, target)

    def _ask(self, subject: str, target: str) -> None:
        try:
            answer = self.client.answer(question(subject))
        except LteError as error:
            self.errors.append(f"{type(error).__name__}: {error}")
            return
        with self._counting:
            self.answers += 1
        if (answer["text"], targets(answer)) != (target, [target]):
            self.wrong.append((subject, answer["text"], targets(answer)))


@pytest.fixture
def replicas(make_house: Callable[..., House], tmp_path: Path) -> list[House]:
    first = make_house(directory=tmp_path / "0").start()
    return [first, *(make_house(directory=tmp_path / n, topic=first.topic).start() for n in ("1", "2"))]


def answered(house: House) -> float:
    samples = house.metrics()
    return sum(value for (name, _), value in samples.items() if name == "lte_answers_total")


def state_of(house: House) -> tuple[str, dict[tuple[str, int], int]]:
    summary = summarise(house.state_dir / "edits.db")
    return summary.state_hash, summary.next_offsets


def test_a_kill_of_one_is_noticed_by_nobody_who_asks(replicas: list[House]) -> None:
    killed = replicas[2]
    expected = {f"Quay {number}": f"Owner {number}" for number in range(FACTS)}
    last = replicas[0].publish([fact(subject, target) for subject, target in expected.items()])
    for house in replicas:
        house.ask(question("Quay 0"), last)
    with Client(",".join(house.stack.addresses.grpc for house in replicas), timeout_s=60.0) as fleet:
        callers = Callers(fleet, expected)
        with callers.asking():
            until(lambda: all(answered(house) > FACTS / 2 for house in replicas), "answers of all three")
            killed.stack.kill_daemon()
            alone = callers.answers
            # What happens meanwhile: changes, a withdrawal, and a record that is no edit.
            events = [fact(f"Berth {number}", f"Tenant {number}") for number in range(200)]
            last = replicas[0].publish([*events, fact("Berth 3", "Tenant 0"), {"op": "nothing"}])
            until(lambda: callers.answers > alone + 2 * FACTS, "answers of the two that are left")
            killed.start()
            until(lambda: answered(killed) > FACTS / 2, "answers of the one that came back")
        assert callers.errors == []
        assert callers.wrong == []
    for house in replicas:
        assert targets(house.ask(question("Berth 3"), last)) == ["Tenant 0"]
        until(lambda house=house: house.lag() == 0, "no lag")
    states = [state_of(house) for house in replicas]
    assert states[0] == states[1] == states[2]
    assert states[0][0] != state_of_nothing(), "the hash is one of facts"


def state_of_nothing() -> str:
    """The hash of a store without facts ends in zeros."""
    return "2-" + "0" * 64
