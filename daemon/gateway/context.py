"""What routes share: the daemon's calls, the limits, and who sent the request."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar, cast

from fastapi import Depends, Request

from daemon.gateway import errors
from daemon.gateway.daemon_calls import HEADER, Caller, DaemonCalls
from daemon.gateway.errors import HttpError
from daemon.settings import GatewaySettings
from lte_runtime.places import Places

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Context:
    """`app.state.context`: what is made once for all requests. `streams` bounds the streamed answers."""

    settings: GatewaySettings
    daemon: DaemonCalls
    streams: Places


def context_of(request: Request) -> Context:
    return cast(Context, request.app.state.context)


def caller_of(request: Request) -> Caller:
    """The request's own token, as it came; never one of the gateway's."""
    return Caller(request.headers.get(HEADER))


GatewayContext = Annotated[Context, Depends(context_of)]
RequestCaller = Annotated[Caller, Depends(caller_of)]


async def while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T:
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


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
