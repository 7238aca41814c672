"""READY means ready, and a stop ends what was begun."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable

import pytest
from daemon_house import GUARD_S, House, Json, fact, question, targets, until

from daemon.client import Client
from lte_runtime.errors import DeadlineExceeded, Retry

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.timeout(1200)]
BACKLOG = 3000
# How long a call gets to reach the daemon, which tells nobody of calls that wait; it needs some milliseconds.
ARRIVES_S = 2.0


def probe(house: House) -> str:
    """By a client of its own: one whose connection was refused waits before it tries again."""
    try:
        with Client(house.stack.addresses.socket) as client:
            return client.health(timeout_s=5)
    except (Retry, DeadlineExceeded):
        return "UNREACHABLE"


def test_never_serving_before_it_has_caught_up(make_house: Callable[..., House]) -> None:
    """Probed at 20 Hz over a start with a backlog; small batches make the catching up long enough to see."""
    house = make_house(LTE_KAFKA__POLL_MAX_RECORDS="5")
    events = [fact(f"Berth {n % 500}", f"Ship {n}") for n in range(BACKLOG)]
    last: dict[tuple[str, int], int] = {}
    for at in house.publish(events):
        place = at["topic_id"], at["partition"]
        last[place] = max(last.get(place, 0), at["offset"] + 1)
    house.stack.launch_daemon()
    seen: list[str] = []
    begin = time.monotonic()
    while not seen or seen[-1] != "SERVING":
        assert time.monotonic() - begin < GUARD_S, house.log[-2000:]
        seen.append(probe(house))
        if seen[-1] == "NOT_SERVING":
            refused_or_caught_up(house, last)
        time.sleep(0.05)
    answer = house.ask(question("Berth 499"))
    assert marks(answer) == last
    assert targets(answer) == [f"Ship {BACKLOG - 1}"]
    assert "NOT_SERVING" in seen, "the sockets came too late to see anything"
    assert set(seen) <= {"UNREACHABLE", "NOT_SERVING", "SERVING"}


def refused_or_caught_up(house: House, last: dict[tuple[str, int], int]) -> None:
    """A question just after the probe: it may have become READY in between, but not before the end."""
    refused = ""
    try:
        found = marks(house.ask(question("Berth 1")))
    except Retry as error:
        refused, found = str(error), last
    assert found == last
    assert not refused or "CATCHING_UP" in refused or "STARTING" in refused


def marks(answer: Json) -> dict[tuple[str, int], int]:
    return {(each["topic_id"], each["partition"]): each["next_offset"] for each in answer["watermarks"]}


def test_sigterm_lets_open_calls_end(make_house: Callable[..., House]) -> None:
    """A call that waits for an event is answered although the daemon was told to stop meanwhile."""
    house = make_house().start()
    (before,) = house.publish([fact("Pier", "Old Owner")])
    house.ask(question("Pier"), [before])
    awaited = {**before, "offset": before["offset"] + 1}
    found: list[Json | Exception] = []

    def wait() -> None:
        try:
            found.append(house.ask(question("Pier"), [awaited]))
        except Exception as error:  # noqa: BLE001 - the test looks at it
            found.append(error)

    caller = threading.Thread(target=wait, daemon=True)
    caller.start()
    time.sleep(ARRIVES_S)
    begin = time.monotonic()
    os.kill(house.stack.daemon_pid, signal.SIGTERM)
    until(lambda: '"stopping"' in house.log, "the stop to begin")
    (after,) = house.publish([fact("Pier", "New Owner")])
    assert after == awaited
    caller.join(GUARD_S)
    assert isinstance(found[0], dict), found
    assert targets(found[0]) == ["New Owner"]
    until(lambda: house.stack.daemon_exit() is not None, "the end")
    took = time.monotonic() - begin
    print(f"stopped in {took:.1f} s")
    assert house.stack.daemon_exit() == 0, house.log[-2000:]
    assert took < 10 * 30
    with pytest.raises(Retry):
        house.ask(question("Pier"))


def test_logs_are_json_lines_without_fact_text(make_house: Callable[..., House]) -> None:
    """Outside a terminal: every line is an object; no subject, target or question at INFO."""
    house = make_house().start()
    at = house.publish([fact("Secretholm", "Wilhelmina"), {"subject": "Secretholm"}])
    house.ask(question("Secretholm"), at)
    house.stack.stop_daemon()
    lines = [json.loads(line) for line in house.log.splitlines()]
    states = [line["state"] for line in lines if line["event"] == "state"]
    assert states[-1] == "STOPPING"
    assert "READY" in states
    assert not any(word in house.log for word in ("Secretholm", "secretholm", "Wilhelmina"))
