"""Who may do what through the gateway: tokens, namespaces, and what a browser of another site can send."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from daemon_house import House, fact, question
from gateway_process import GatewayProcess, Tokens, started
from openai import AuthenticationError, OpenAI, PermissionDeniedError

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.timeout(1200)]
CHAT = {"model": "lte", "messages": [{"role": "user", "content": "What is the capital of Kenya?"}]}


@pytest.fixture
def client(guarded_gateway: GatewayProcess) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=guarded_gateway.url, timeout=60) as opened:
        yield opened


def code(reply: httpx.Response) -> tuple[int, str]:
    return reply.status_code, reply.json()["error"]["code"]


@pytest.mark.parametrize("key", [None, "Bearer sk-none-of-ours-0123456789", "Bearer"])
def test_without_a_token_of_ours_asking_and_reading_is_all(client: httpx.Client, key: str | None) -> None:
    headers = {"Authorization": key} if key else {}
    assert client.post("/v1/chat/completions", json=CHAT, headers=headers).status_code == 200
    assert client.get("/v1/facts", headers=headers).status_code == 200
    for path, body in (
        ("/v1/facts", fact("Ivo", "Rolf")),
        ("/v1/facts/batch", {"facts": [fact("Ivo", "Rolf")]}),
        ("/v1/facts/retract", {"subject": "Ivo", "relation": "owner"}),
    ):
        refused = client.post(path, json=body, headers=headers)
        assert code(refused) == (401, "invalid_api_key")
        assert refused.headers["WWW-Authenticate"] == "Bearer"


def test_an_expired_token_is_refused_and_not_taken_for_none(client: httpx.Client, tokens: Tokens) -> None:
    headers = tokens.headers("expired")
    for reply in (
        client.post("/v1/chat/completions", json=CHAT, headers=headers),
        client.post("/v1/chat/completions", json={**CHAT, "stream": True}, headers=headers),
        client.get("/v1/facts", headers=headers),
        client.post("/v1/facts", json=fact("Ivo", "Rolf"), headers=headers),
    ):
        assert code(reply) == (401, "invalid_api_key")
        assert "expired" in reply.json()["error"]["message"]


def test_a_foreign_namespace_is_refused(client: httpx.Client, tokens: Tokens) -> None:
    asker, publisher = tokens.headers("asker"), tokens.headers("publisher")
    other = {"X-LTE-Namespace": "team-b"}
    for reply in (
        client.post("/v1/chat/completions", json=CHAT, headers=asker | other),
        client.post("/v1/chat/completions", json={**CHAT, "stream": True}, headers=asker | other),
        client.get("/v1/facts", params={"namespace": "team-b"}, headers=asker),
        client.get("/v1/history", params={"subject": "a", "namespace": "team-b"}, headers=asker),
        client.post("/v1/facts", json=fact("Ivo", "Rolf", namespace="team-b"), headers=publisher),
        client.post("/v1/facts", json=fact("Ivo", "Rolf"), headers=publisher),
    ):
        assert code(reply) == (403, "permission_denied")


def test_a_role_is_needed(client: httpx.Client, tokens: Tokens) -> None:
    body = fact("Ivo", "Rolf", namespace="team-a")
    assert code(client.post("/v1/facts", json=body, headers=tokens.headers("asker")))[0] == 403


def test_openais_client_knows_the_refusals(guarded_gateway: GatewayProcess, tokens: Tokens) -> None:
    messages: Any = CHAT["messages"]
    for name, refusal in (("expired", AuthenticationError), ("asker", PermissionDeniedError)):
        with OpenAI(
            base_url=f"{guarded_gateway.url}/v1", api_key=tokens.by_name[name], max_retries=0
        ) as client:
            for stream in (False, True):
                with pytest.raises(refusal):
                    client.chat.completions.create(
                        model="lte", messages=messages, stream=stream, extra_body={"lte": {"namespace": "b"}}
                    )


def test_a_publisher_publishes_and_everybody_is_answered(
    guarded_house: House, client: httpx.Client, tokens: Tokens
) -> None:
    body = fact("Quern", "Ann Lee", namespace="team-a")
    reply = client.post("/v1/facts", json=body, headers=tokens.headers("publisher"))
    assert reply.status_code == 201
    lte = {"namespace": "team-a", "at_least": reply.json()["positions"]}
    chat = {"model": "lte", "messages": [{"role": "user", "content": question("Quern")}], "lte": lte}
    answer = client.post("/v1/chat/completions", json=chat, headers=tokens.headers("asker"))
    assert answer.json()["choices"][0]["message"]["content"] == "Ann Lee"
    assert guarded_house.ask(question("Quern"), namespace="team-a")["text"] == "Ann Lee"


@pytest.fixture(scope="module")
def public(guarded_house: House, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    """A gateway behind a proxy."""
    settings = {"LTE_GATEWAY__TRUSTED_PROXIES": '["127.0.0.1"]', "LTE_GATEWAY__HOSTS": '["127.0.0.1"]'}
    running = started(guarded_house, tmp_path_factory.mktemp("public"), **settings)
    yield running
    running.close()


def test_behind_a_proxy_every_request_needs_a_token(public: GatewayProcess, tokens: Tokens) -> None:
    with httpx.Client(base_url=public.url, timeout=60) as client:
        for headers in ({}, {"Authorization": "Bearer sk-none-of-ours-0123456789"}):
            assert code(client.post("/v1/chat/completions", json=CHAT, headers=headers))[0] == 401
            assert code(client.get("/v1/facts", headers=headers))[0] == 401
        known = tokens.headers("operator")
        assert client.post("/v1/chat/completions", json=CHAT, headers=known).status_code == 200
        assert client.get("/healthz").status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example:80", "localhost.evil.example", ""])
@pytest.mark.parametrize("path", ["/v1/models", "/v1/facts", "/healthz", "/", "/mcp", "/openapi.json"])
def test_a_name_that_was_pointed_here_is_refused(client: httpx.Client, host: str, path: str) -> None:
    reply = client.get(path, headers={"Host": host})
    assert reply.status_code in (400, 421)
    assert "data" not in reply.text


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "cors"},
        {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "no-cors"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"},
    ],
)
def test_a_post_of_another_site_is_refused(
    client: httpx.Client, tokens: Tokens, headers: dict[str, str]
) -> None:
    for path, body in (("/v1/chat/completions", CHAT), ("/v1/facts", fact("Ivo", "Rolf")), ("/mcp", {})):
        reply = client.post(path, json=body, headers=headers | tokens.headers("operator"))
        assert code(reply) == (403, "permission_denied")
        assert not [name for name in reply.headers if name.startswith("access-control")]


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""]
)
def test_what_a_form_can_send_is_refused(client: httpx.Client, tokens: Tokens, kind: str) -> None:
    headers = tokens.headers("operator") | {"Content-Type": kind}
    for path in ("/v1/chat/completions", "/v1/facts", "/mcp"):
        reply = client.post(path, content=json.dumps(CHAT), headers=headers)
        assert code(reply) == (415, "unsupported_media_type")


def test_no_script_of_another_site_gets_leave(client: httpx.Client) -> None:
    preflight = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
    for path in ("/v1/chat/completions", "/v1/facts", "/mcp"):
        reply = client.options(path, headers=preflight)
        assert reply.status_code == 403
        assert not [name for name in reply.headers if name.startswith("access-control")]


def test_the_gateways_own_site_may_ask(client: httpx.Client, guarded_gateway: GatewayProcess) -> None:
    headers = {"Origin": guarded_gateway.url, "Sec-Fetch-Site": "same-origin"}
    assert client.post("/v1/chat/completions", json=CHAT, headers=headers).status_code == 200


def test_the_api_is_shown_as_a_page_without_scripts(client: httpx.Client) -> None:
    page = client.get("/docs")
    assert "script" not in page.headers["Content-Security-Policy"]
    assert "<script" not in page.text
    for path in client.get("/openapi.json").json()["paths"]:
        assert path in page.text
    assert "max_completion_tokens" in page.text


def test_a_large_body_is_refused_declared_or_not(client: httpx.Client) -> None:
    body = b'{"model": "' + b"x" * (1 << 20) + b'"}'
    headers = {"Content-Type": "application/json"}
    declared = client.post("/v1/chat/completions", content=body, headers=headers)
    assert code(declared) == (413, "request_too_large")
    pieces = client.post("/v1/chat/completions", content=iter([body[:1000], body[1000:]]), headers=headers)
    assert code(pieces) == (413, "request_too_large")


def test_one_stream_more_than_the_limit_is_refused(guarded_house: House, tmp_path: Path) -> None:
    running = started(guarded_house, tmp_path, LTE_GATEWAY__MAX_STREAMS="1")
    ahead = [{"topic_id": guarded_house.topic_id, "partition": 0, "offset": 1 << 40}]
    held = http.client.HTTPConnection(running.url.removeprefix("http://"))
    body = {**CHAT, "stream": True, "lte": {"at_least": ahead}}
    try:
        held.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"})
        with httpx.Client(base_url=running.url, timeout=60) as client:
            while True:
                reply = client.post("/v1/chat/completions", json={**CHAT, "stream": True})
                if reply.status_code != 200:  # the other one has come first
                    break
            assert code(reply) == (429, "rate_limit_exceeded")
            assert reply.headers["Retry-After"] == "1"
            held.close()
            while client.post("/v1/chat/completions", json={**CHAT, "stream": True}).status_code != 200:
                pass
    finally:
        held.close()
        running.close()
