"""More than the daemon can do is refused at once, and a listener for everybody needs its guards."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from daemon_house import GUARD_S, House, Json, fact, question, run_lte, targets, until
from waiting_callers import waiting_callers

from lte_runtime.errors import BadRequest, DeadlineExceeded, LteError, Overloaded

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def slow_house(make_module_house: Callable[..., House]) -> House:
    """Two questions at once, four that wait, a tenth of a second for each token."""
    return make_module_house(
        LTE_MODEL__PATH="stub:0.1",
        LTE_MODEL__MAX_BATCH="2",
        LTE_MODEL__QUEUE_LIMIT="4",
        LTE_RPC__MAX_CONCURRENT="24",
    ).start()


def outcome(house: House, number: int) -> str:
    try:
        return str(house.ask(f"What about {number}?")["scope"])
    except LteError as error:
        return type(error).__name__


def test_too_many_questions(slow_house: House) -> None:
    """Some are refused, each ends, the daemon stays well, later ones are answered."""
    at = slow_house.publish([fact("Davit", "Odd")])
    slow_house.ask(question("Davit"), at)
    with ThreadPoolExecutor(64) as pool:
        asked = [pool.submit(outcome, slow_house, number) for number in range(64)]
        begin = time.monotonic()
        assert slow_house.client.is_serving(GUARD_S)
        print(f"health answered after {time.monotonic() - begin:.2f} s in the overload")
        counted = Counter(each.result(GUARD_S) for each in asked)
    assert set(counted) == {"base", "Overloaded"}
    assert counted["base"] >= 5  # one that ran when the others came, and the queue
    assert targets(slow_house.ask(question("Davit"))) == ["Odd"]
    samples = slow_house.metrics()
    refused = samples[("lte_answers_total", (("code", "RESOURCE_EXHAUSTED"), ("scope", "none")))]
    assert refused == counted["Overloaded"]


def test_too_many_calls_that_wait(slow_house: House) -> None:
    """Calls that wait for an event hold a quarter of the workers; they end when it comes."""
    (at,) = slow_house.publish([fact("Davit", "Odd")])
    awaited = {**at, "offset": at["offset"] + 1}
    outcomes: list[str] = []

    def wait() -> None:
        try:
            slow_house.client.retrieve("?", at_least=[awaited])
            outcomes.append("found")
        except Overloaded:
            outcomes.append("refused")

    callers = [threading.Thread(target=wait, daemon=True) for _ in range(30)]
    for caller in callers:
        caller.start()
    until(lambda: outcomes.count("refused") == 24, "the calls above the limit to be refused")
    assert slow_house.ask(question("Davit"))["citations"], "others are answered meanwhile"
    slow_house.publish([fact("Davit", "Pil")])
    for caller in callers:
        caller.join(GUARD_S)
    assert Counter(outcomes) == {"found": 6, "refused": 24}


def test_calls_of_a_killed_process_give_their_places_back(slow_house: House) -> None:
    """128 calls with a deadline of an hour; questions are answered before and after the kill."""
    (at,) = slow_house.publish([fact("Davit", "Odd")])
    address = f"unix:{slow_house.stack.addresses.socket}"
    with waiting_callers(address, slow_house.topic_id, "Answer", 128) as child:
        until(lambda: waits(slow_house, at) is Overloaded, "the places to wait, taken")
        assert targets(slow_house.ask(question("Davit"), [at])) == ["Odd"]
        assert slow_house.client.is_serving(GUARD_S)
        child.send_signal(signal.SIGKILL)
        until(lambda: waits(slow_house, at) is DeadlineExceeded, "the places to wait, free")
    assert targets(slow_house.ask(question("Davit"), [at])) == ["Odd"]


def waits(house: House, at: Json) -> type[LteError]:
    """How a short wait for an event that never comes ends."""
    with pytest.raises((Overloaded, DeadlineExceeded)) as raised:
        house.client.retrieve("?", at_least=[{**at, "offset": 1 << 40}], timeout_s=0.2)
    return raised.type


def test_a_deadline_ends_the_work(slow_house: House) -> None:
    """Also the work: nothing is left in the queue."""
    with pytest.raises(DeadlineExceeded):
        slow_house.ask("What takes longer than this?", timeout_s=0.15)
    until(lambda: engine(slow_house) == (0, 0), "an idle engine")


def engine(house: House) -> tuple[int, int]:
    found: Json = house.status()["engine"]
    return found["queue_depth"], found["running"]


def test_questions_that_are_too_large(slow_house: House) -> None:
    with pytest.raises(BadRequest, match="8192"):
        slow_house.ask("x" * 10_000)
    with pytest.raises(Overloaded):
        slow_house.ask("x" * (2 << 20))
    assert slow_house.ask("x")["scope"] == "base"


def test_a_public_listener_without_guards_is_refused(tmp_path: Path) -> None:
    refused = run_lte("serve", "--listen", "0.0.0.0:0", "--state-dir", str(tmp_path), "--metrics", "off")
    assert refused.code != 0
    assert "not loopback" in refused.err
    assert "tls_cert" in refused.err
    assert not (tmp_path / "edits.db").exists()


def test_the_sockets_are_not_open_to_others(slow_house: House) -> None:
    places = slow_house.stack.addresses
    assert oct(os.stat(places.socket).st_mode & 0o777) == "0o660"
    assert oct(os.stat(places.admin_socket).st_mode & 0o777) == "0o600"
    with grpc.insecure_channel(f"unix:{places.socket}") as channel:
        grpc.channel_ready_future(channel).result(GUARD_S)
