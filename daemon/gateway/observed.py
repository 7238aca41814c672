"""Counts and times of requests, however they end."""

from __future__ import annotations

import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from daemon.gateway.errors import CLIENT_CLOSED
from daemon.metrics import GatewayMetrics

# Refused before a route was looked for, or for a path that has none: paths of strangers are no labels.
NO_ROUTE = "none"


class Observed:
    """ASGI middleware around all others."""

    def __init__(self, app: ASGIApp, *, metrics: GatewayMetrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status, began = CLIENT_CLOSED, time.perf_counter()

        async def noted(part: Message) -> None:
            nonlocal status
            if part["type"] == "http.response.start":
                status = part["status"]
            await send(part)

        self._metrics.began()
        try:
            await self._app(scope, receive, noted)
        finally:
            route = getattr(scope.get("route"), "path", NO_ROUTE)
            self._metrics.ended(route, status, time.perf_counter() - began)
