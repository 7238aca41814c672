"""What every call passes: identity, access, limits, and the one place where errors become statuses."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import grpc
from google.rpc import code_pb2, status_pb2
from grpc_status import rpc_status

from daemon.rpc import access, faults
from daemon.rpc.access import Denied, Principal, Unauthenticated
from daemon.rpc.call_context import CallContext
from daemon.rpc.listener import Listener
from daemon.rpc.rate_limit import RateLimited, RateLimits
from daemon.rpc.workers import ListenerThreads, in_pool, kind_of, with_behaviour
from lte_runtime.errors import LteError, Overloaded

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Call:
    """One finished call: full method name, gRPC code's name, seconds; the principal's name once it was
    admitted, else empty."""

    method: str
    code: str
    seconds: float
    principal: str = ""


class Guard(grpc.ServerInterceptor):
    """Stands before every method of one listener. `longest_s` bounds every call of the daemon's services."""

    def __init__(
        self,
        listener: Listener,
        threads: ListenerThreads,
        on_call: Callable[[Call], None],
        limits: RateLimits,
        longest_s: float,
    ) -> None:
        self._listener = listener
        self._threads = threads
        self._on_call = on_call
        self._limits = limits
        self._longest_s = longest_s

    def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        method: str = handler_call_details.method
        workers = self._threads.of(method)
        if access.is_open(method):
            if workers.full:
                return self._unwatched() if workers is self._threads.watches else self._overload(method)
            return in_pool(continuation(handler_call_details), workers)
        try:
            principal = self._admitted(method, handler_call_details.invocation_metadata)
        except (Denied, Unauthenticated, RateLimited) as error:
            return self._refusal(method, error)
        if workers.full:
            return self._overload(method)
        return in_pool(self._guarded(method, continuation(handler_call_details), principal), workers)

    def _admitted(self, method: str, metadata: Any) -> Principal | None:
        """Who calls, before the request is read; None where the client certificate says so, which is known
        only then. Raises `Denied`, `Unauthenticated` or `RateLimited`."""
        if method not in access.RULES:
            raise Denied("this method is not open to anybody")
        principal = self._listener.principal(metadata)
        if principal is not None:
            self._admit(method, principal)
        return principal

    def _admit(self, method: str, principal: Principal) -> None:
        access.check_role(method, principal)
        self._limits.take(principal)

    def _certified(self, method: str, context: grpc.ServicerContext) -> Principal:
        principal = self._listener.certified(context.auth_context())
        self._admit(method, principal)
        return principal

    def _guarded(self, method: str, handler: Any, principal: Principal | None) -> Any:
        """The same handler, between the checks that need the request and the report of the call's end."""
        kind = kind_of(handler)
        run = self._unary if kind == "unary_unary" else self._stream
        return with_behaviour(handler, partial(run, method, getattr(handler, kind), principal))

    def _unary(
        self, method: str, behaviour: Any, principal: Principal | None, request: Any, context: Any
    ) -> Any:
        with self._watched(method, request, context, principal) as call:
            return behaviour(request, call)

    def _stream(
        self, method: str, behaviour: Any, principal: Principal | None, request: Any, context: Any
    ) -> Iterator[Any]:
        with self._watched(method, request, context, principal) as call:
            for reply in behaviour(request, call):
                yield reply
                call.check_time()
            call.check_time()

    @contextmanager
    def _watched(
        self, method: str, request: Any, context: Any, principal: Principal | None
    ) -> Iterator[CallContext]:
        """Checks the rest, reports the end of the call, and aborts it with the status of what it raised."""
        began = time.perf_counter()
        code, status, name = "CANCELLED", None, ""
        try:
            principal = principal or self._certified(method, context)
            access.check_namespaces(method, principal, request)
            name = principal.name
            yield CallContext(context, principal, self._longest_s)
            code = "OK"
        except LteError as error:
            status = faults.status_of(error)
        except Exception as error:
            log.exception("%s failed", method)
            status = faults.status_of(error)
        finally:
            code = code_pb2.Code.Name(status.code) if status else code
            self._on_call(Call(method, code, time.perf_counter() - began, name))
        if status:
            context.abort_with_status(rpc_status.to_status(status))

    def _overload(self, method: str) -> Any:
        return self._refusal(method, Overloaded("too many calls at once: ask again later"))

    def _refusal(self, method: str, error: LteError) -> Any:
        """A handler that answers with the error."""
        status = faults.status_of(error)
        if method in access.RULES:  # anybody can make up others
            self._on_call(Call(method, code_pb2.Code.Name(status.code), 0.0))

        return self._ending(status)

    def _unwatched(self) -> Any:
        """gRPC's clients go on without watching at this code alone; at any other one they send no calls."""
        too_many = "too many streams watch health: ask by Check"
        return self._ending(status_pb2.Status(code=code_pb2.UNIMPLEMENTED, message=too_many))

    def _ending(self, status: status_pb2.Status) -> Any:
        """A handler that ends the call. It takes a stream, so that it waits for no message."""

        def refuse(_requests: Any, context: grpc.ServicerContext) -> Any:
            context.abort_with_status(rpc_status.to_status(status))

        return in_pool(grpc.stream_unary_rpc_method_handler(refuse), self._threads.refusals)
