"""What routes share: the daemon's calls, the limits, and who sent the request."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import Annotated, TypeVar, cast

from fastapi import Depends, Request

from daemon.gateway import errors
from daemon.gateway.daemon_calls import Caller, DaemonCalls
from daemon.gateway.errors import HttpError
from daemon.rpc.access import HEADER
from daemon.settings import GatewaySettings
from lte_runtime.places import Places

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Context:
    """`app.state.context`: what is made once for all requests. `streams` bounds the streamed answers,
    `started` is in seconds since the epoch."""

    settings: GatewaySettings
    daemon: DaemonCalls
    streams: Places
    started: int = field(default_factory=lambda: int(time.time()))


def context_of(request: Request) -> Context:
    return cast(Context, request.app.state.context)


def caller_of(request: Request) -> Caller:
    """The request's own token, as it came; never one of the gateway's."""
    return Caller.of_header(request.headers.get(HEADER, ""))


GatewayContext = Annotated[Context, Depends(context_of)]
RequestCaller = Annotated[Caller, Depends(caller_of)]


async def while_connected(request: Request, work: Awaitable[T]) -> T:
    """The result of `work`, which is cancelled, with its call of the daemon, when the client goes away."""
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise HttpError(errors.CANCELLED, "the client went away")
        return await task
    finally:
        task.cancel()
        gone.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
