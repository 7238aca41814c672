"""Kafka may be away: answers go on, staleness is shown, and the daemon catches up by itself."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from daemon_house import House, Json, fact, question, targets, until

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.timeout(1200)]
STALE_S = 2.0
AWAY_S = 2 * STALE_S


class Steady:
    """Five questions a second by a thread of its own, and their answers and errors."""

    def __init__(self, house: House) -> None:
        self._house = house
        self.answers: list[Json] = []
        self.errors: list[BaseException] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        while not self._stop.wait(0.2):
            try:
                answer = self._house.ask(question("Beacon"))
            except Exception as error:  # noqa: BLE001 - the test demands that there is none
                self.errors.append(error)
            else:
                self.answers.append(answer)

    def __enter__(self) -> Steady:
        self._thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._stop.set()
        self._thread.join(60)


def test_a_stopped_broker(make_house: Callable[..., House]) -> None:
    """SIGSTOP leaves the connections open and silent, which is the harder way of being away."""
    house = make_house(LTE_KAFKA__STALE_AFTER_S=str(STALE_S)).start()
    house.ask(question("Beacon"), house.publish([fact("Beacon", "Harbour Board")]))
    pid = house.stack.daemon_pid
    house.stack.broker.pause()
    try:
        with Steady(house) as steady:
            time.sleep(AWAY_S)
            until(lambda: steady.answers and steady.answers[-1]["stale"], "a stale answer")
    finally:
        house.stack.broker.resume()
    assert not steady.errors
    assert all(targets(answer) == ["Harbour Board"] for answer in steady.answers)
    assert house.status()["state"] in ("READY", "DEGRADED")
    caught_up(house, pid)


def test_a_broker_that_is_gone_and_absent_at_start(make_house: Callable[..., House]) -> None:
    """Killed under a running daemon; the daemon restarted without it; then the broker comes back."""
    house = make_house(LTE_KAFKA__STALE_AFTER_S=str(STALE_S)).start()
    house.ask(question("Beacon"), house.publish([fact("Beacon", "Harbour Board")]))
    broker = house.stack.broker
    broker.kill()
    try:
        with Steady(house) as steady:
            until(lambda: steady.answers and steady.answers[-1]["stale"], "a stale answer")
        house.stack.stop_daemon()
        house.start()  # from the state on disk, before any broker has answered
        pid = house.stack.daemon_pid
        assert house.status()["state"] == "DEGRADED"
        with Steady(house) as again:
            until(lambda: len(again.answers) >= 5, "answers without a broker")
    finally:
        broker.start()
    for asked in (steady, again):
        assert not asked.errors
        assert all(targets(answer) == ["Harbour Board"] for answer in asked.answers)
    assert all(answer["stale"] for answer in again.answers)
    caught_up(house, pid)


def caught_up(house: House, pid: int) -> None:
    """New events are applied and staleness ends, in the same process."""
    at = house.publish([fact("Beacon", "Pilot Guild")])
    assert targets(house.ask(question("Beacon"), at)) == ["Pilot Guild"]
    until(lambda: not house.ask(question("Beacon"))["stale"], "answers that are not stale")
    until(lambda: house.lag() == 0, "no lag")
    until(lambda: house.status()["state"] == "READY", "READY")
    assert (house.stack.daemon_pid, house.stack.daemon_exit()) == (pid, None)
