"""What every request passes before a route sees it: host, origin, content type, size, time and number.

- Host: a page of another site whose name was pointed at this machine (DNS rebinding) names its own host.
- Origin and Sec-Fetch-Site: a browser says when another site sends a request.
- JSON on every POST: a form of another site cannot send it, and without CORS a script may not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from daemon.gateway import errors
from daemon.gateway.errors import HttpError

LOOPBACK_HOSTS = ("localhost", "127.0.0.1", "[::1]")
# Seconds in which a body must have arrived.
BODY_TIMEOUT_S = 10.0
_READING = ("GET", "HEAD", "OPTIONS")
# Set where a route has not set them: nothing of ours is for frames, caches, or another site's script.
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}


class Security:
    """ASGI middleware."""

    def __init__(
        self, app: ASGIApp, *, hosts: Iterable[str], max_body_bytes: int, max_concurrent: int
    ) -> None:
        self._app = app
        self._hosts = frozenset(host.lower() for host in hosts) or frozenset(LOOPBACK_HOSTS)
        self._max_body_bytes = max_body_bytes
        self._max_concurrent = max_concurrent
        self._running = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            # Lifespan passes; a websocket finds no route and is closed.
            await self._app(scope, receive, send)
            return
        guarded = _with_headers(send)
        try:
            self._check(scope["method"], Headers(scope=scope), scope["path"])
            body = await self._body(Headers(scope=scope), receive)
        except HttpError as error:
            await error.response(scope, receive, guarded)
            return
        self._running += 1
        try:
            await self._app(scope, _replayed(body, receive), guarded)
        finally:
            self._running -= 1

    def _check(self, method: str, headers: Headers, path: str) -> None:
        host = headers.get("host", "")
        if _name(host) not in self._hosts:
            raise HttpError(errors.WRONG_HOST, "this host name is not served here: add it to gateway.hosts")
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc.lower() != host.lower():
            raise HttpError(errors.DENIED, "requests of other sites are refused")
        foreign = headers.get("sec-fetch-site") in ("cross-site", "same-site")
        if foreign and not _opens_a_page(method, headers):
            raise HttpError(errors.DENIED, "requests of other sites are refused")
        if method not in _READING and not _is_json(headers) and not _is_empty_delete(method, headers):
            raise HttpError(errors.NOT_JSON, "send the body as JSON, with Content-Type: application/json")
        if self._running >= self._max_concurrent and not path.startswith(OPEN_PATHS):
            raise HttpError(
                errors.OVERLOADED, f"{self._max_concurrent} requests run already: come back later"
            )

    async def _body(self, headers: Headers, receive: Receive) -> bytes:
        """The whole body; larger ones are refused, most of them before they are read."""
        most = self._max_body_bytes
        length = headers.get("content-length", "0")
        if length.isdigit() and int(length) > most:
            raise HttpError(errors.TOO_LARGE, f"the body has {length} bytes, at most {most} are taken")
        try:
            async with asyncio.timeout(BODY_TIMEOUT_S):
                return await _read(receive, most)
        except TimeoutError:
            raise HttpError(
                errors.TIMED_OUT_BODY, f"the body did not arrive within {BODY_TIMEOUT_S:.0f} s"
            ) from None


# Health is asked by what must know that the gateway is busy.
OPEN_PATHS = ("/healthz", "/readyz")


async def _read(receive: Receive, most: int) -> bytes:
    body = bytearray()
    while True:
        part = await receive()
        if part["type"] == "http.disconnect":
            raise HttpError(errors.CANCELLED, "the client went away")
        body += part.get("body", b"")
        if len(body) > most:
            raise HttpError(errors.TOO_LARGE, f"the body has more than the {most} bytes that are taken")
        if not part.get("more_body", False):
            return bytes(body)


def _replayed(body: bytes, receive: Receive) -> Receive:
    """The body once more for the route, then what the server says, which is that the client went away."""
    waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def next_message() -> Message:
        return waiting.pop() if waiting else await receive()

    return next_message


def _with_headers(send: Send) -> Send:
    async def guarded(part: Message) -> None:
        if part["type"] == "http.response.start":
            headers = MutableHeaders(scope=part)
            for name, value in _HEADERS.items():
                headers.setdefault(name, value)
        await send(part)

    return guarded


def _name(host: str) -> str:
    """The name in a Host header, without its port."""
    name, colon, port = host.rpartition(":")
    return (name if colon and port.isdigit() else host).lower()


def _opens_a_page(method: str, headers: Headers) -> bool:
    """A link of another site that a person follows."""
    return (
        method == "GET"
        and headers.get("sec-fetch-mode") == "navigate"
        and headers.get("sec-fetch-dest") == "document"
    )


def _is_json(headers: Headers) -> bool:
    return headers.get("content-type", "").partition(";")[0].strip().lower() == "application/json"


def _is_empty_delete(method: str, headers: Headers) -> bool:
    return method == "DELETE" and "content-type" not in headers
