"""The threads of one listener: each kind of call has its own, and a call that finds none free is refused."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import grpc

from daemon.rpc.access import HEALTH

T = TypeVar("T")

# A health check takes a millisecond: those beyond the threads wait, and are refused only in a flood.
CHECK_WORKERS, MOST_CHECKS = 16, 1024
# Streams that watch health, one for each client of several daemons, and reflection: an open one holds
# a thread.
WATCH_WORKERS, REFLECTION_WORKERS = 64, 16
# A refusal waits for nothing: two threads say as many as gRPC can take in.
REFUSAL_WORKERS = 2
# Refusals not yet said. gRPC turns away what comes beyond, so that a flood of calls fills no memory.
PENDING_REFUSALS = 1024
_KINDS = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")


class Workers(ThreadPoolExecutor):
    """A pool that knows whether it has its `most` calls: as many as threads, if none shall wait for one.

    gRPC asks the interceptor and submits in one thread: what was not full stays so until the submit.
    """

    def __init__(self, threads: int, name: str, most: int = 0) -> None:
        super().__init__(threads, thread_name_prefix=name)
        self._most, self._busy, self._counting = most or threads, 0, threading.Lock()

    @property
    def full(self) -> bool:
        return self._busy >= self._most

    def submit(self, task: Callable[..., T], /, *arguments: Any, **options: Any) -> Future[T]:
        with self._counting:
            self._busy += 1
        future = super().submit(task, *arguments, **options)
        future.add_done_callback(self._ended)
        return future

    def _ended(self, _: Future[Any]) -> None:
        with self._counting:
            self._busy -= 1


class ListenerThreads:
    """`calls` answers the daemon's own services, `streams` makes the answers that are passed on in pieces."""

    def __init__(self, listener: str, max_concurrent: int) -> None:
        self.calls = Workers(max_concurrent, f"rpc-{listener}")
        self.streams = ThreadPoolExecutor(max_concurrent, f"answer-stream-{listener}")
        self.checks = Workers(CHECK_WORKERS, f"health-{listener}", MOST_CHECKS)
        self.watches = Workers(WATCH_WORKERS, f"health-watch-{listener}")
        self.reflection = Workers(REFLECTION_WORKERS, f"reflection-{listener}")
        self.refusals = ThreadPoolExecutor(REFUSAL_WORKERS, f"refusals-{listener}")
        self.most = max_concurrent + MOST_CHECKS + WATCH_WORKERS + REFLECTION_WORKERS + PENDING_REFUSALS

    def of(self, method: str) -> Workers:
        if method.startswith("/lte."):
            return self.calls
        if method.startswith(HEALTH):
            return self.watches if method.endswith("/Watch") else self.checks
        return self.reflection

    def shutdown(self) -> None:
        pools = (self.calls, self.streams, self.checks, self.watches, self.reflection, self.refusals)
        for pool in pools:
            pool.shutdown(wait=False, cancel_futures=True)


def in_pool(handler: Any, pool: ThreadPoolExecutor) -> Any:
    """The same handler, run in this pool instead of the server's."""
    behaviour: Any = functools.partial(getattr(handler, kind_of(handler)))
    # gRPC reads this from the function that it calls.
    behaviour.experimental_thread_pool = pool
    return with_behaviour(handler, behaviour)


def kind_of(handler: Any) -> str:
    """Whether a handler takes and gives one message or a stream: unary_unary, unary_stream ..."""
    return next(kind for kind in _KINDS if getattr(handler, kind))


def with_behaviour(handler: Any, behaviour: Callable[..., Any]) -> Any:
    """A handler of the same kind and messages that calls `behaviour`."""
    build = getattr(grpc, f"{kind_of(handler)}_rpc_method_handler")
    return build(behaviour, handler.request_deserializer, handler.response_serializer)
