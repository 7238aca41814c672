"""What every request passes, on the bare ASGI interface."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from prometheus_client import generate_latest
from starlette.types import Message, Receive, Scope, Send

from daemon.gateway import security
from daemon.gateway.observed import Observed
from daemon.gateway.security import Security
from daemon.metrics import GatewayMetrics

JSON = {"content-type": "application/json"}
HOST = {"host": "localhost:8464"}


class Application:
    """Answers with the length of the body that it got."""

    def __init__(self) -> None:
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["route"] = None
        part = await receive()
        await self.may_answer.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": str(len(part["body"])).encode()})


def guarded(app: Any, **settings: Any) -> Security:
    limits = {"hosts": (), "max_body_bytes": 100, "max_concurrent": 1} | settings
    return Security(app, **limits)


async def request(
    app: Any, method: str, headers: dict[str, str], *parts: Message, path: str = "/v1/facts"
) -> tuple[int, bytes]:
    """Status and body of the reply."""
    sent: list[Message] = []
    waiting = list(parts or ({"type": "http.request", "body": b"{}"},))

    async def receive() -> Message:
        if not waiting:
            await asyncio.Event().wait()
        return waiting.pop(0)

    async def send(part: Message) -> None:
        sent.append(part)

    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "method": method, "path": path, "headers": raw, "query_string": b""}
    await app(scope, receive, send)
    return sent[0]["status"], b"".join(part.get("body", b"") for part in sent[1:])


def status(method: str, headers: dict[str, str], *parts: Message, **settings: Any) -> int:
    return asyncio.run(request(guarded(Application(), **settings), method, headers, *parts))[0]


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1:80", "[::1]", "[::1]:80"])
def test_loopback_is_served_by_any_port(host: str) -> None:
    assert status("GET", {"host": host}) == 200


@pytest.mark.parametrize("host", ["", "evil.example", "localhost.evil.example", "127.0.0.1.evil.example:80"])
def test_other_hosts_are_not(host: str) -> None:
    assert status("GET", {"host": host}) == 421


def test_hosts_that_are_named_replace_those_of_loopback() -> None:
    assert status("GET", {"host": "lte.example:443"}, hosts=["lte.example"]) == 200
    assert status("GET", HOST, hosts=["lte.example"]) == 421


def test_a_link_of_another_site_opens_a_page_and_nothing_else() -> None:
    foreign = {**HOST, "sec-fetch-site": "cross-site"}
    link = {"sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
    assert status("GET", foreign | link) == 200
    assert status("GET", foreign | {"sec-fetch-mode": "no-cors", "sec-fetch-dest": "image"}) == 403
    assert status("POST", foreign | link | JSON) == 403


def test_a_body_that_stays_away_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(security, "BODY_TIMEOUT_S", 0.01)
    part: Message = {"type": "http.request", "body": b"{", "more_body": True}
    assert status("POST", HOST | JSON, part) == 408


def test_a_body_comes_in_pieces_up_to_the_limit() -> None:
    def pieces(size: int) -> list[Message]:
        return [
            {"type": "http.request", "body": b"x" * size, "more_body": True},
            {"type": "http.request", "body": b"x" * size},
        ]

    assert asyncio.run(request(guarded(Application()), "POST", HOST | JSON, *pieces(50))) == (200, b"100")
    assert status("POST", HOST | JSON, *pieces(51)) == 413
    assert status("POST", HOST | JSON | {"content-length": "101"}) == 413


def test_one_request_more_than_the_limit_is_refused_but_health_is_not() -> None:
    async def main() -> None:
        app = Application()
        app.may_answer.clear()
        door = guarded(app)
        first = asyncio.ensure_future(request(door, "POST", HOST | JSON))
        await asyncio.sleep(0)
        code, body = await request(door, "POST", HOST | JSON)
        assert (code, json.loads(body)["error"]["code"]) == (429, "rate_limit_exceeded")
        health = asyncio.ensure_future(request(door, "GET", HOST, path="/healthz"))
        await asyncio.sleep(0)
        app.may_answer.set()
        assert (await first)[0] == (await health)[0] == 200
        assert (await request(door, "POST", HOST | JSON))[0] == 200

    asyncio.run(main())


def test_requests_are_counted_by_route_and_status_and_paths_of_strangers_are_no_labels() -> None:
    metrics = GatewayMetrics()
    door = Observed(guarded(Application()), metrics=metrics)
    asyncio.run(request(door, "GET", {"host": "evil.example"}, path="/a/b/c"))
    asyncio.run(request(door, "GET", HOST, path="/a/b/c"))
    text = generate_latest(metrics.registry).decode()
    assert 'lte_gateway_requests_total{route="none",status="421"} 1.0' in text
    assert 'lte_gateway_requests_total{route="none",status="200"} 1.0' in text
    assert "lte_gateway_requests_running 0.0" in text
    assert "/a/b/c" not in text
