"""Calls that wait end with their callers and hold a part of the workers only; health has its own."""

from __future__ import annotations

import signal
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from waiting_callers import waiting_callers

from daemon.rpc.gen.lte.v1 import answer_service_pb2 as pb
from lte_runtime.errors import DeadlineExceeded, Overloaded
from tests.unit.daemon.rpc.conftest import TOPIC_ID, Build, Rig
from tests.unit.daemon.rpc.test_rpc_answers import HANG_S, wait_until

NEVER = {"topic_id": TOPIC_ID, "partition": 0, "offset": 1 << 40}
HOUR_S = 3600.0


def codes(rig: Rig) -> Counter[str]:
    return Counter(call.code for call in list(rig.calls))


def serving(build: Build, **settings: Any) -> Rig:
    rig = build(**settings)
    rig.lifecycle.set_caught_up()
    return rig


@pytest.mark.parametrize("method", ["Answer", "AnswerStream", "Retrieve"])
def test_a_killed_process_gives_back_the_places_of_its_calls(build: Build, method: str) -> None:
    """128 calls of one process: 32 wait, the others are refused; once it is dead, all 32 places are free."""
    rig = serving(build)
    with (
        waiting_callers(f"unix:{rig.settings.socket}", TOPIC_ID, method, 128) as child,
        rig.client() as client,
    ):
        wait_until(lambda: codes(rig)["RESOURCE_EXHAUSTED"] == 96)
        assert client.answer("What is a fjord?")["scope"] == "base"
        with pytest.raises(Overloaded, match="32 calls wait for events"):
            client.answer("?", at_least=[NEVER])
        child.send_signal(signal.SIGKILL)
        wait_until(lambda: codes(rig)["CANCELLED"] == 32)
        with pytest.raises(DeadlineExceeded):
            client.answer("?", at_least=[NEVER], timeout_s=0.3)


def test_a_process_that_hangs_gives_back_the_places_of_its_calls(build: Build) -> None:
    """Stopped, it closes nothing: only the keepalive tells."""
    rig = serving(build, max_concurrent=8, keepalive_s=6.0)
    with waiting_callers(f"unix:{rig.settings.socket}", TOPIC_ID, "Answer", 3) as child:
        wait_until(lambda: codes(rig)["RESOURCE_EXHAUSTED"] == 1)
        child.send_signal(signal.SIGSTOP)
        wait_until(lambda: codes(rig)["CANCELLED"] == 2)


def test_a_wait_that_is_over_takes_no_place(build: Build) -> None:
    """What is visible already is answered while every place to wait is taken."""
    rig = serving(build, max_concurrent=4)
    rig.tell({"subject": "Tarn Robotics", "relation": "chief executive", "target": "Ola Brandt"})
    visible = {"topic_id": TOPIC_ID, "partition": 0, "offset": 0}
    with waiting_callers(f"unix:{rig.settings.socket}", TOPIC_ID, "Answer", 2), rig.client() as client:
        wait_until(lambda: codes(rig)["RESOURCE_EXHAUSTED"] == 1)
        assert client.answer("What is a fjord?", at_least=[visible])["scope"] == "base"


def test_a_deadline_is_cut_to_the_longest_allowed(build: Build) -> None:
    rig = serving(build, services={"deadline_max_s": 0.3})
    with rig.client() as client, pytest.raises(DeadlineExceeded, match="not yet applied"):
        client.answer("?", at_least=[NEVER], timeout_s=HOUR_S)


def test_publishing_calls_that_wait_for_kafka_leave_the_others_their_places(build: Build) -> None:
    release = threading.Event()

    class SlowPublisher:
        def publish(self, _events: object, _headers: object) -> list[Any]:
            assert release.wait(HANG_S)
            return []

    rig = serving(build, services={"publisher": SlowPublisher()}, max_concurrent=8)
    outcomes: list[str] = []

    def publish() -> None:
        with rig.client() as client:
            try:
                client.publish([{"subject": "Tarn", "relation": "owner", "target": "Ola"}])
                outcomes.append("published")
            except Overloaded as error:
                outcomes.append(str(error))

    callers = [threading.Thread(target=publish) for _ in range(8)]
    for caller in callers:
        caller.start()
    wait_until(lambda: len(outcomes) == 6)
    with rig.client() as client:
        assert client.answer("What is a fjord?")["scope"] == "base"
    release.set()
    for caller in callers:
        caller.join(HANG_S)
    assert Counter("published" if text == "published" else "refused" for text in outcomes) == {
        "published": 2,
        "refused": 6,
    }
    assert "2 calls wait for Kafka's acknowledgement" in outcomes[0]


@pytest.mark.parametrize(
    "method",
    [
        "/lte.v1.AnswerService/Answer",
        "/lte.v1.EditService/Publish",
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    ],
)
def test_health_answers_while_calls_hold_every_other_thread(build: Build, method: str) -> None:
    """Calls that are opened and send nothing hold a thread each, before any code of ours runs."""
    rig = serving(build, max_concurrent=8)
    with silent_calls(rig, method, 200) as ended, rig.client() as client:
        wait_until(lambda: ended["RESOURCE_EXHAUSTED"] >= 100)
        for service in ("", "lte.v1.AnswerService"):
            assert client.health(service) == "SERVING"
        assert client.status()["state"] == "READY"
        assert not ended["OK"]


class silent_calls:
    """Calls that are open and silent; counts how they end."""

    def __init__(self, rig: Rig, method: str, count: int) -> None:
        self._channel = grpc.insecure_channel(f"unix:{rig.settings.socket}")
        self._method, self._count, self._over = method, count, threading.Event()
        self.ended: Counter[str] = Counter()

    def __enter__(self) -> Counter[str]:
        begin = self._channel.stream_unary(self._method, bytes, bytes)
        for _ in range(self._count):
            begin.future(self._nothing(), timeout=HOUR_S).add_done_callback(self._note)
        return self.ended

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._channel.close()

    def _nothing(self) -> Iterator[bytes]:
        self._over.wait(HANG_S)
        yield from ()

    def _note(self, call: Any) -> None:
        self.ended[call.code().name] += 1


@pytest.mark.parametrize(
    ("method", "count", "code"), [("Check", 1100, "RESOURCE_EXHAUSTED"), ("Watch", 100, "UNIMPLEMENTED")]
)
def test_silent_calls_to_health_leave_the_questions_their_threads(
    build: Build, method: str, count: int, code: str
) -> None:
    rig = serving(build, max_concurrent=4)
    with silent_calls(rig, f"/grpc.health.v1.Health/{method}", count) as ended, rig.client() as client:
        wait_until(lambda: ended[code] > 0)
        assert client.answer("What is a fjord?")["scope"] == "base"


def test_watchers_of_health_that_read_nothing_or_go_away_hold_nobody_up(build: Build) -> None:
    rig = serving(build)
    request = health_pb2.HealthCheckRequest(service="")
    with grpc.insecure_channel(f"unix:{rig.settings.socket}") as channel, rig.client() as client:
        stub = health_pb2_grpc.HealthStub(channel)
        watchers = [stub.Watch(request, timeout=HANG_S) for _ in range(40)]
        assert {next(watcher).status for watcher in watchers[:20]} == {health_pb2.HealthCheckResponse.SERVING}
        for round_ in range(40):
            rig.lifecycle.set_degraded("trial", f"change {round_}")
            watchers[20 + round_ % 20].cancel()
        assert client.health() == "SERVING"
        rig.lifecycle.set_stopping()
        assert client.health() == "NOT_SERVING"


def test_a_flood_of_calls_is_refused_and_health_answers(build: Build) -> None:
    """More at once than there are threads for refusals; every call ends."""
    rig = serving(build, engine={"token_s": 0.01}, max_concurrent=4)
    codes: Counter[str] = Counter()
    with grpc.insecure_channel(f"unix:{rig.settings.socket}") as channel, rig.client() as client:
        ask = channel.unary_unary(
            "/lte.v1.AnswerService/Answer", pb.AnswerRequest.SerializeToString, pb.AnswerResponse.FromString
        )
        calls = [ask.future(pb.AnswerRequest(question="What is it?"), timeout=HANG_S) for _ in range(800)]
        assert client.health() == "SERVING"
        for call in calls:
            codes[call.code().name] += 1
    assert set(codes) == {"OK", "RESOURCE_EXHAUSTED"}
    assert codes["OK"] >= 4
