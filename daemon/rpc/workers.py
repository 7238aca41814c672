"""The threads of one listener: each kind of call has its own, and a call that finds none free is refused."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import grpc

from daemon.rpc.access import HEALTH, Role

T = TypeVar("T")

# Health checks at once: several load balancers and a human, whatever the other calls do.
HEALTH_WORKERS = 16
# Reflection streams at once; an open one holds its thread, so that they must not share with the questions.
REFLECTION_WORKERS = 16
# A refusal waits for nothing: two threads say as many as gRPC can take in.
REFUSAL_WORKERS = 2
# Refusals not yet said. gRPC turns away what comes beyond, so that a flood of calls fills no memory.
PENDING_REFUSALS = 1024
_KINDS = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")


class Workers(ThreadPoolExecutor):
    """A pool that knows whether a call would have to wait for a thread.

    gRPC asks the interceptor and submits in one thread: what was not full stays so until the submit.
    """

    def __init__(self, most: int, name: str) -> None:
        super().__init__(most, thread_name_prefix=name)
        self._most, self._busy, self._counting = most, 0, threading.Lock()

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

    def __init__(self, role: Role, max_concurrent: int) -> None:
        self.calls = Workers(max_concurrent, f"rpc-{role}")
        self.streams = ThreadPoolExecutor(max_concurrent, f"answer-stream-{role}")
        self.health = Workers(HEALTH_WORKERS, f"health-{role}")
        self.reflection = Workers(REFLECTION_WORKERS, f"reflection-{role}")
        self.refusals = ThreadPoolExecutor(REFUSAL_WORKERS, f"refusals-{role}")
        self.most = max_concurrent + HEALTH_WORKERS + REFLECTION_WORKERS + PENDING_REFUSALS

    def of(self, method: str) -> Workers:
        if method.startswith("/lte."):
            return self.calls
        return self.health if method.startswith(HEALTH) else self.reflection

    def shutdown(self) -> None:
        for pool in (self.calls, self.streams, self.health, self.reflection, self.refusals):
            pool.shutdown(wait=False, cancel_futures=True)


def in_pool(handler: Any, pool: ThreadPoolExecutor) -> Any:
    """The same handler, run in this pool instead of the server's."""
    kind = next(kind for kind in _KINDS if getattr(handler, kind))
    behaviour: Any = functools.partial(getattr(handler, kind))
    # gRPC reads these from the function that it calls; the health service needs the second one.
    behaviour.experimental_thread_pool = pool
    behaviour.experimental_non_blocking = getattr(getattr(handler, kind), "experimental_non_blocking", False)
    build = getattr(grpc, f"{kind}_rpc_method_handler")
    return build(behaviour, handler.request_deserializer, handler.response_serializer)
