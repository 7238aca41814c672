"""AnswerService over the wire."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import grpc
import pytest

from daemon.client import Client
from daemon.rpc.gen.lte.v1 import answer_service_pb2 as pb
from daemon.rpc.gen.lte.v1 import answer_service_pb2_grpc
from lte_runtime.errors import BadRequest, DeadlineExceeded, Overloaded, Retry
from tests.unit.daemon.rpc.conftest import TOPIC_ID, Build, Rig

CEO = {"id": "e1", "subject": "Tarn Robotics", "relation": "chief executive", "target": "Ola Brandt"}
QUESTION = "Who is the chief executive of Tarn Robotics?"
HANG_S = 30


def test_an_edited_answer_carries_its_evidence(rig: Rig) -> None:
    rig.tell({**CEO, "source": {"uri": "https://tarn.example/1", "publisher": "hr"}})
    with rig.client() as client:
        answer = client.answer(QUESTION)
    assert (answer["text"], answer["scope"], answer["finish"]) == ("Ola Brandt", "edited", "stop")
    cited = answer["citations"][0]
    assert (cited["edit_id"], cited["target"], cited["hop"]) == ("e1", "Ola Brandt", 1)
    assert cited["position"] == {"topic_id": TOPIC_ID, "partition": 0, "offset": 0}
    assert cited["source"] == {"uri": "https://tarn.example/1", "publisher": "hr"}
    assert cited["key"]["subject"] == "tarn robotics"
    assert answer["adapter"]["id"] == "align-000000"
    assert answer["watermarks"] == [{"topic_id": TOPIC_ID, "partition": 0, "next_offset": 1}]
    assert answer["gate"]["scope"] == "edited"
    assert answer["gate"]["score"] >= answer["gate"]["threshold"]
    assert answer["index_path"] == "exact"
    assert answer["timings_ms"]["total"] > 0
    assert answer["token_ids"]


def test_an_earlier_value_is_cited_with_its_time(rig: Rig) -> None:
    rig.tell({**CEO, "id": "e0", "target": "Mia Falk", "valid_from": "2019-03-01"})
    rig.tell({**CEO, "valid_from": "2022-07-01"})
    with rig.client() as client:
        now, before = (
            client.answer(QUESTION),
            client.answer("Who was the previous chief executive of Tarn Robotics?"),
        )
    assert (before["text"], before["scope"]) == ("Mia Falk", "edited")
    (cited,) = before["citations"]
    assert (cited["superseded"], cited["members"]) == (True, 1)
    assert (cited["held_from"], cited["held_until"]) == (
        "2019-03-01T00:00:00.000Z",
        "2022-07-01T00:00:00.000Z",
    )
    assert [c["superseded"] for c in now["citations"]] == [False]


def test_a_follow_up_is_answered_with_the_turns_before(rig: Rig) -> None:
    rig.tell(CEO)
    earlier = [("system", "Be short."), ("user", "What is the size of Tarn Robotics?"), ("assistant", "?")]
    with rig.client() as client:
        answer = client.answer("And its chief executive?", earlier=earlier)
        alone = client.answer("And its chief executive?")
        base, base_alone = client.answer("Why?", earlier=earlier[:1]), client.answer("Why?")
    assert (answer["text"], answer["scope"]) == ("Ola Brandt", "edited")
    assert (answer["read_as"], answer["dropped_turns"]) == ("And its chief executive? (Tarn Robotics)", 0)
    assert (alone["scope"], alone["read_as"]) == ("base", "")
    assert base["text"] != base_alone["text"]


CONVERSATION = [
    pb.Message(role=pb.ROLE_USER, content="What is the size of Tarn Robotics?"),
    pb.Message(role=pb.ROLE_ASSISTANT, content="?"),
    pb.Message(role=pb.ROLE_USER, content="And its chief executive?"),
]


def test_every_call_about_a_question_takes_a_conversation(rig: Rig) -> None:
    rig.tell(CEO)
    with grpc.insecure_channel(f"unix:{rig.settings.socket}") as channel:
        stub = answer_service_pb2_grpc.AnswerServiceStub(channel)
        answer = stub.Answer(pb.AnswerRequest(messages=CONVERSATION, question=CONVERSATION[-1].content))
        *_, last = stub.AnswerStream(pb.AnswerStreamRequest(messages=CONVERSATION))
        retrieved = stub.Retrieve(pb.RetrieveRequest(messages=CONVERSATION))
    assert answer.text == last.answer.text == "Ola Brandt"
    assert answer.read_as == retrieved.read_as == "And its chief executive? (Tarn Robotics)"
    assert retrieved.citations[0].target == "Ola Brandt"


def test_a_conversation_of_one_turn_is_the_question(rig: Rig) -> None:
    rig.tell(CEO)
    with grpc.insecure_channel(f"unix:{rig.settings.socket}") as channel:
        stub = answer_service_pb2_grpc.AnswerServiceStub(channel)
        for text in (QUESTION, "What is a fjord?"):
            message = pb.Message(role=pb.ROLE_USER, content=text)
            alone = stub.Answer(pb.AnswerRequest(question=text))
            answer = stub.Answer(pb.AnswerRequest(messages=[message]))
            for reply in (alone, answer):
                reply.ClearField("timings_ms")
            assert answer == alone


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (
            pb.AnswerRequest(question="Why?", messages=CONVERSATION),
            "question and the last of messages differ",
        ),
        (pb.AnswerRequest(messages=CONVERSATION[:2]), "must have the role USER"),
        (pb.AnswerRequest(messages=[pb.Message(content="a"), CONVERSATION[-1]]), "unknown role 0"),
        (pb.AnswerRequest(messages=[pb.Message(role=pb.ROLE_USER)]), "the question is empty"),
        (
            pb.AnswerRequest(messages=[*CONVERSATION[:1] * 10_001, CONVERSATION[-1]]),
            "at most 10000 are taken",
        ),
    ],
)
def test_a_conversation_that_is_none_is_refused(rig: Rig, request_: pb.AnswerRequest, message: str) -> None:
    with grpc.insecure_channel(f"unix:{rig.settings.socket}") as channel:
        stub = answer_service_pb2_grpc.AnswerServiceStub(channel)
        with pytest.raises(grpc.RpcError, match=message) as refused:
            stub.Answer(request_)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_an_unrelated_question_is_the_base_models(rig: Rig) -> None:
    rig.tell(CEO)
    with rig.client() as client:
        answer, forced = client.answer("What is a fjord?"), client.answer(QUESTION, scope="base")
    assert (answer["scope"], answer["citations"], answer["adapter"]) == ("base", [], None)
    assert answer["text"].startswith("base-")
    assert (forced["scope"], forced["adapter"]) == ("base", None)


def test_streamed_pieces_make_the_answer_and_one_from_facts_comes_at_once(build: Build) -> None:
    rig = build(engine={"token_s": 0.001})
    rig.lifecycle.set_caught_up()
    rig.tell(CEO)
    with rig.client() as client:
        *base_pieces, base = client.answer_stream("What is a fjord?")
        *pieces, answer = client.answer_stream(QUESTION)
    assert len(base_pieces) > 1
    assert "".join(base_pieces) == base["text"]  # type: ignore[index,arg-type]
    assert pieces == [answer["text"]] == ["Ola Brandt"]  # type: ignore[index]
    assert answer["citations"][0]["edit_id"] == "e1"  # type: ignore[index]


def test_retrieve_finds_without_generating(rig: Rig) -> None:
    rig.tell(CEO)
    before = rig.engine.stats().rows
    with rig.client() as client:
        found = client.retrieve(QUESTION)
    assert found["citations"][0]["edit_id"] == found["candidates"][0]["edit_id"] == "e1"
    assert found["gate"]["scope"] == "edited"
    assert rig.engine.stats().rows == before


def test_namespaces_are_apart(rig: Rig) -> None:
    rig.tell({**CEO, "namespace": "other"})
    with rig.client() as client:
        assert client.answer(QUESTION)["scope"] == "base"
        assert client.answer(QUESTION, namespace="other")["scope"] == "edited"


def test_at_least_waits_for_the_watermark(rig: Rig) -> None:
    position = {"topic_id": TOPIC_ID, "partition": 0, "offset": 0}
    teller = threading.Timer(0.2, rig.tell, [CEO])
    teller.start()
    with rig.client() as client:
        assert client.answer(QUESTION, at_least=[position])["text"] == "Ola Brandt"
        with pytest.raises(DeadlineExceeded):
            client.answer(QUESTION, at_least=[{**position, "offset": 9}], timeout_s=0.3)
    teller.join()


def test_as_of_answers_from_the_past(rig: Rig) -> None:
    rig.tell({**CEO, "valid_from": "2025-01-01T00:00:00Z"})
    rig.tell({**CEO, "id": "e2", "target": "Mina Falk", "valid_from": "2025-05-01T00:00:00Z"})
    with rig.client() as client:
        assert client.answer(QUESTION)["text"] == "Mina Falk"
        assert client.answer(QUESTION, as_of="2025-03-01")["text"] == "Ola Brandt"
        assert client.answer(QUESTION, as_of="2020-01-01")["scope"] == "base"


def test_limits_on_new_tokens(build: Build) -> None:
    rig = build(services={"max_new_tokens": 1, "max_new_tokens_limit": 2})
    rig.lifecycle.set_caught_up()
    with rig.client() as client:
        assert len(client.answer("What?")["token_ids"]) == 1
        assert len(client.answer("What?", max_new_tokens=100)["token_ids"]) == 2
        with pytest.raises(BadRequest, match="max_new_tokens"):
            client.answer("What?", max_new_tokens=0)


@pytest.mark.parametrize(
    "wishes",
    [
        {"question": ""},
        {"question": "x" * 9000},
        {"question": "What?", "scope": "whatever"},
        {"question": "What?", "as_of": "yesterday"},
        {"question": "What?", "at_least": [{"topic_id": "t", "partition": 0, "offset": -1}]},
        {"question": "What?", "at_least": [{"topic": "t"}]},
    ],
)
def test_bad_requests(rig: Rig, wishes: dict[str, Any]) -> None:
    with rig.client() as client, pytest.raises(BadRequest):
        client.answer(**wishes)


def test_nothing_is_answered_before_there_is_a_state(build: Build) -> None:
    rig = build()
    with rig.client() as client:
        for call in (client.answer, client.retrieve, lambda q: list(client.answer_stream(q))):
            with pytest.raises(Retry, match="STARTING"):
                call(QUESTION)


def test_flags_follow_the_lifecycle(rig: Rig) -> None:
    with rig.client() as client:
        assert client.answer("What?")["stale"]
        rig.lifecycle.watch(time.monotonic)
        answer = client.answer("What?")
        assert (answer["stale"], answer["gap"]) == (False, False)
        rig.lifecycle.set_gap("history was trimmed", servable=True)
        assert client.answer("What?")["gap"]
        assert client.retrieve("What?")["gap"]


def test_a_full_queue_is_resource_exhausted(build: Build) -> None:
    rig = build(engine={"token_s": 0.05, "queue_limit": 1, "max_batch": 1})
    rig.lifecycle.set_caught_up()
    outcomes: list[str] = []

    def ask(number: int) -> None:
        with rig.client() as client:
            try:
                client.answer(f"What is number {number}?")
                outcomes.append("answered")
            except Overloaded:
                outcomes.append("refused")

    run_all([partial(ask, number) for number in range(12)])
    assert set(outcomes) == {"answered", "refused"}


def test_too_many_calls_are_refused_and_health_still_answers(build: Build) -> None:
    rig = build(engine={"token_s": 0.2}, max_concurrent=2)
    rig.lifecycle.set_caught_up()
    outcomes: list[str] = []

    def ask(number: int) -> None:
        with rig.client() as client:
            try:
                client.answer(f"What is number {number}?")
                outcomes.append("answered")
            except Overloaded:
                outcomes.append("refused")
                assert client.health() == "SERVING"

    run_all([partial(ask, number) for number in range(8)])
    assert outcomes.count("answered") >= 2
    assert "refused" in outcomes


def run_all(tasks: list[Callable[[], None]]) -> None:
    threads = [threading.Thread(target=task) for task in tasks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(HANG_S)


@pytest.mark.parametrize("streamed", [False, True])
def test_a_cancelled_call_stops_generating(build: Build, streamed: bool) -> None:
    rig = build(engine={"token_s": 0.05})
    rig.lifecycle.set_caught_up()
    rig.tell({**CEO, "target": "x" * 7000})
    request: dict[str, Any] = {"question": QUESTION, "max_new_tokens": 256}
    with grpc.insecure_channel(f"unix:{rig.settings.socket}") as channel:
        stub = answer_service_pb2_grpc.AnswerServiceStub(channel)
        if streamed:
            call: Any = stub.AnswerStream(pb.AnswerStreamRequest(**request), timeout=HANG_S)
            next(call)
        else:
            call = stub.Answer.future(pb.AnswerRequest(**request), timeout=HANG_S)
            wait_until(lambda: rig.engine.stats().running == 1)
        call.cancel()
        wait_until(lambda: rig.engine.stats().running == 0)
    assert rig.engine.stats().tokens < 200


def test_the_deadline_ends_the_work(build: Build) -> None:
    rig = build(engine={"token_s": 0.05})
    rig.lifecycle.set_caught_up()
    rig.tell({**CEO, "target": "x" * 7000})
    with rig.client() as client, pytest.raises(DeadlineExceeded):
        client.answer(QUESTION, max_new_tokens=256, timeout_s=0.3)
    wait_until(lambda: rig.engine.stats().running == 0)
    assert rig.engine.stats().tokens < 100


def test_a_call_without_a_deadline_gets_the_daemons(build: Build) -> None:
    rig = build(engine={"token_s": 0.05}, services={"deadline_s": 0.3})
    rig.lifecycle.set_caught_up()
    rig.tell({**CEO, "target": "x" * 7000})
    with grpc.insecure_channel(f"unix:{rig.settings.socket}") as channel:
        stub = answer_service_pb2_grpc.AnswerServiceStub(channel)
        with pytest.raises(grpc.RpcError) as caught:
            stub.Answer(pb.AnswerRequest(question=QUESTION, max_new_tokens=256))
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + HANG_S
    while not condition():
        assert time.monotonic() < end, "hangs"
        time.sleep(0.005)


def test_an_absent_daemon_is_told_from_a_bad_request(rig: Rig) -> None:
    rig.server.stop(grace=0)
    with Client(rig.settings.socket) as client:
        with pytest.raises(Retry):
            client.answer("What?", timeout_s=2)
        assert not client.is_serving(timeout_s=2)


def test_feedback_is_counted_or_refused(build: Build) -> None:
    words: list[str] = []
    rig = build(services={"on_feedback": words.append})
    with rig.client() as client:
        assert not client.report_feedback("bad"), "nobody watches drift here"
        with pytest.raises(BadRequest, match="GOOD or BAD"):
            client.report_feedback("unspecified")
    assert words == ["bad"]
