"""OpenAI's clients, which are not ours, through a real gateway and a real daemon."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from daemon_house import House, fact, question, until
from gateway_process import GatewayProcess
from langchain_openai import ChatOpenAI
from openai import BadRequestError, InternalServerError, NotFoundError, OpenAI
from pydantic import SecretStr

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.timeout(1200)]
FAR = 1 << 40


@pytest.fixture(scope="module")
def client(gateway: GatewayProcess) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{gateway.url}/v1", api_key="unused", max_retries=0) as opened:
        yield opened


def ask(client: OpenAI, content: Any, at_least: Any = (), **more: Any) -> Any:
    extra = {"lte": {"at_least": list(at_least), **more.pop("lte", {})}}
    messages: Any = [{"role": "user", "content": content}]
    return client.chat.completions.create(model="lte", messages=messages, extra_body=extra, **more)


def test_an_answer_cites_its_facts_in_the_field_lte(house: House, client: OpenAI) -> None:
    sent = house.publish([fact("Orlina", "Tamsin Vey", id="orlina-1")])
    reply = ask(client, question("Orlina"), sent)
    assert reply.choices[0].message.content == "Tamsin Vey"
    assert reply.choices[0].finish_reason == "stop"
    assert reply.object == "chat.completion"
    assert [citation["edit_id"] for citation in reply.lte["citations"]] == ["orlina-1"]
    assert reply.lte["scope"] == "edited"
    assert reply.lte["gate"]["score"] >= reply.lte["gate"]["threshold"]
    assert reply.lte["watermarks"]
    direct = house.client.answer(question("Orlina"))
    assert reply.usage.completion_tokens == len(direct["token_ids"])
    assert reply.usage.prompt_tokens == direct["prompt_tokens"] > 0
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens


def test_a_streamed_answer_is_the_plain_one_in_pieces(house: House, client: OpenAI) -> None:
    sent = house.publish([fact("Pellworm", "Ann Lee")])
    plain = ask(client, question("Pellworm"), sent)
    chunks: list[Any] = list(
        ask(client, question("Pellworm"), stream=True, stream_options={"include_usage": True})
    )
    assert {chunk.id for chunk in chunks} == {chunks[0].id}
    assert chunks[0].choices[0].delta.role == "assistant"
    pieces = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert "".join(pieces).strip() == plain.choices[0].message.content
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert [citation["target"] for citation in chunks[-2].lte["citations"]] == ["Ann Lee"]
    assert (chunks[-1].choices, chunks[-1].usage) == ([], plain.usage)


def test_a_stream_without_usage_ends_with_the_evidence(client: OpenAI) -> None:
    chunks: list[Any] = list(ask(client, "What is the capital of Kenya?", stream=True))
    assert all(chunk.usage is None for chunk in chunks)
    assert chunks[-1].lte["scope"] == "base"


def test_langchain_answers_and_streams(house: House, gateway: GatewayProcess) -> None:
    house.publish([fact("Marrow Bay", "Rolf")])
    chat = ChatOpenAI(
        base_url=f"{gateway.url}/v1", api_key=SecretStr("unused"), model="lte", temperature=0, max_retries=0
    )
    until(lambda: chat.invoke(question("Marrow Bay")).content == "Rolf", "the fact to be answered")
    reply = chat.invoke([("system", "Be short."), ("human", question("Marrow Bay"))])
    assert reply.usage_metadata is not None
    assert reply.usage_metadata["output_tokens"] > 0
    text = "".join(str(piece.content) for piece in chat.stream(question("Marrow Bay")))
    assert text.strip() == "Rolf"


def test_the_last_user_turn_is_the_question(house: House, client: OpenAI) -> None:
    sent = house.publish([fact("Tolmin", "Ada"), fact("Sarn", "Ben")])
    messages: Any = [
        {"role": "system", "content": "You are terse."},
        {"role": "user", "content": question("Tolmin")},
        {"role": "assistant", "content": "Ada"},
        {"role": "user", "content": [{"type": "text", "text": question("Sarn")}]},
    ]
    reply = client.chat.completions.create(
        model="lte", messages=messages, extra_body={"lte": {"at_least": sent}}
    )
    assert reply.choices[0].message.content == "Ben"


def test_namespace_time_and_position_come_by_header_or_body(house: House, client: OpenAI) -> None:
    era = {"valid_from": "2020-01-01T00:00:00Z", "valid_until": "2021-01-01T00:00:00Z"}
    sent = house.publish(
        [
            fact("Veldt", "Old", namespace="history", **era),
            fact("Veldt", "New", namespace="history", valid_from="2021-01-01T00:00:00Z"),
        ]
    )
    then = {"namespace": "history", "as_of": "2020-06-01"}
    marks = ",".join("{topic_id}:{partition}:{offset}".format(**position) for position in sent)
    by_header = {"X-LTE-Namespace": "history", "X-LTE-As-Of": "2020-06-01", "X-LTE-At-Least": marks}
    assert ask(client, question("Veldt"), sent, lte=then).choices[0].message.content == "Old"
    reply: Any = client.chat.completions.create(
        model="lte", messages=[{"role": "user", "content": question("Veldt")}], extra_headers=by_header
    )
    assert reply.choices[0].message.content == "Old"
    assert ask(client, question("Veldt"), lte={"namespace": "history"}).choices[0].message.content == "New"
    assert ask(client, question("Veldt")).lte["citations"] == []


def test_the_models_are_listed(client: OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["lte"]
    assert client.models.retrieve("lte").owned_by == "lte-daemon"
    with pytest.raises(NotFoundError) as refused:
        client.models.retrieve("gpt-5")
    assert refused.value.code == "model_not_found"


def test_limits_of_tokens_are_honoured(house: House, client: OpenAI) -> None:
    sent = house.publish([fact("Long Acre", "a value with a good many words in it")])
    for name in ("max_tokens", "max_completion_tokens"):
        reply = ask(client, question("Long Acre"), sent, **{name: 2})
        assert reply.usage.completion_tokens == 2
        assert reply.choices[0].finish_reason == "length"


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        ("n", 2),
        ("tools", [{"type": "function", "function": {"name": "f", "parameters": {}}}]),
        ("logprobs", True),
        ("stop", ["\n"]),
        ("response_format", {"type": "json_object"}),
    ],
)
def test_a_parameter_that_cannot_be_honoured_is_refused_by_name(
    client: OpenAI, parameter: str, value: Any
) -> None:
    with pytest.raises(BadRequestError) as refused:
        ask(client, "Who?", **{parameter: value})
    assert refused.value.code == "unsupported_parameter"
    assert refused.value.param == parameter


def test_parameters_without_effect_are_named(client: OpenAI) -> None:
    reply = ask(client, "What is the capital of Kenya?", temperature=0.7, seed=3, n=1, user="u")
    assert reply.lte["ignored_parameters"] == ["seed", "temperature", "user"]


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "system", "content": "x"}]}, "role user"),
        ({"messages": [{"role": "user", "content": " "}]}, "question is empty"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "type text"),
        ({"messages": [{"role": "user", "content": "x"}] * 257}, "at most 256"),
        ({"messages": [{"role": "user", "content": "x"}], "max_tokens": 0}, "max_tokens"),
        ({"messages": [{"role": "user", "content": "x"}], "lte": {"nmespace": "a"}}, "nmespace"),
        ({"messages": [{"role": "user", "content": "x"}], "lte": {"as_of": "May"}}, "ISO 8601"),
        ({"messages": [{"role": "user", "content": "x"}], "lte": {"as_of": 1 << 62}}, "as_of"),
    ],
)
def test_a_bad_request_says_what_is_wrong(client: OpenAI, body: Any, text: str) -> None:
    with pytest.raises(BadRequestError) as refused:
        client.post("/chat/completions", cast_to=object, body={"model": "lte", **body})
    error: Any = refused.value.body
    assert text in error["message"]
    assert error["type"] == "invalid_request_error"


def test_a_bad_header_is_refused(client: OpenAI) -> None:
    for headers in ({"X-LTE-At-Least": "latest"}, {"X-LTE-Scope": "all"}, {"X-LTE-As-Of": "May"}):
        with pytest.raises(BadRequestError):
            client.chat.completions.create(
                model="lte", messages=[{"role": "user", "content": "x"}], extra_headers=headers
            )


@pytest.mark.parametrize("stream", [False, True])
def test_what_the_daemon_refuses_is_a_status_streamed_or_not(client: OpenAI, stream: bool) -> None:
    with pytest.raises(BadRequestError, match="longer than 8192 characters"):
        ask(client, "Who? " * 2000, stream=stream)


@pytest.mark.parametrize("stream", [False, True])
def test_the_daemons_call_is_cancelled_when_the_client_goes_away(
    house: House, gateway: GatewayProcess, stream: bool
) -> None:
    before = _cancelled(house)
    ahead = [{"topic_id": house.topic_id, "partition": 0, "offset": FAR}]
    body = {"model": "lte", "stream": stream, "messages": [{"role": "user", "content": "Who?"}]}

    def leave() -> bool:
        connection = http.client.HTTPConnection(gateway.url.removeprefix("http://"))
        content = json.dumps(body | {"lte": {"at_least": ahead}})
        connection.request("POST", "/v1/chat/completions", content, {"Content-Type": "application/json"})
        time.sleep(0.3)  # it may take longer until the daemon waits for what is ahead: then once more
        connection.close()
        return _cancelled(house) > before

    until(leave, "the daemon to notice")


def _cancelled(house: House) -> float:
    return sum(
        value
        for (name, labels), value in house.metrics().items()
        if name == "lte_answers_total" and ("code", "CANCELLED") in labels
    )


def test_a_daemon_that_is_away_is_a_503(house: House, gateway: GatewayProcess, client: OpenAI) -> None:
    house.stack.stop_daemon()
    try:
        with pytest.raises(InternalServerError) as refused:
            ask(client, "Who?")
        assert refused.value.status_code == 503
        assert refused.value.response.headers["retry-after"] == "1"
    finally:
        house.start()
    gateway.wait()
    assert ask(client, "What is the capital of Kenya?").choices[0].message.content
