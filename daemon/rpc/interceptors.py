"""What every call passes: access, token, limit, and the one place where errors become statuses."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import grpc
from google.rpc import code_pb2, status_pb2
from grpc_status import rpc_status

from daemon.rpc import faults
from daemon.rpc.access import HEALTH, RULES, Role, Tokens, allowed
from daemon.rpc.workers import ListenerThreads, in_pool
from lte_runtime.errors import LteError, Overloaded

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Call:
    """One finished call: full method name, gRPC code's name, seconds."""

    method: str
    code: str
    seconds: float


class Guard(grpc.ServerInterceptor):
    """Stands before every method of one listener, whose role it knows."""

    def __init__(
        self,
        role: Role,
        tokens: Tokens | None,
        threads: ListenerThreads,
        on_call: Callable[[Call], None],
    ) -> None:
        self._role = role
        self._tokens = tokens
        self._threads = threads
        self._on_call = on_call

    def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        method: str = handler_call_details.method
        if not allowed(method, self._role):
            shown = method if method in RULES else "this method"
            return self._refusal(faults.denied(shown, self._role))
        if not self._is_authenticated(method, handler_call_details.invocation_metadata):
            return self._refusal(faults.unauthenticated())
        workers = self._threads.of(method)
        if workers.full:
            return self._overload(method)
        handler = continuation(handler_call_details)
        return in_pool(self._guarded(method, handler) if method.startswith("/lte.") else handler, workers)

    def _is_authenticated(self, method: str, metadata: Sequence[tuple[str, str | bytes]]) -> bool:
        """Probes of load balancers bring no token: health is open."""
        return self._tokens is None or method.startswith(HEALTH) or self._tokens.accept(metadata)

    def _guarded(self, method: str, handler: Any) -> Any:
        if handler.response_streaming:
            return grpc.unary_stream_rpc_method_handler(
                lambda request, context: self._stream(method, handler.unary_stream, request, context),
                handler.request_deserializer,
                handler.response_serializer,
            )
        return grpc.unary_unary_rpc_method_handler(
            lambda request, context: self._unary(method, handler.unary_unary, request, context),
            handler.request_deserializer,
            handler.response_serializer,
        )

    def _unary(self, method: str, behaviour: Any, request: Any, context: grpc.ServicerContext) -> Any:
        with self._watched(method, context):
            return behaviour(request, context)

    def _stream(
        self, method: str, behaviour: Any, request: Any, context: grpc.ServicerContext
    ) -> Iterator[Any]:
        with self._watched(method, context):
            yield from behaviour(request, context)

    @contextmanager
    def _watched(self, method: str, context: grpc.ServicerContext) -> Iterator[None]:
        """Reports the end of the call, and aborts it with the status of what it raised."""
        began = time.perf_counter()
        code, status = "CANCELLED", None
        try:
            yield
            code = "OK"
        except LteError as error:
            status = faults.status_of(error)
        except Exception as error:
            log.exception("%s failed", method)
            status = faults.status_of(error)
        finally:
            code = code_pb2.Code.Name(status.code) if status else code
            self._on_call(Call(method, code, time.perf_counter() - began))
        if status:
            context.abort_with_status(rpc_status.to_status(status))

    def _overload(self, method: str) -> Any:
        status = faults.status_of(Overloaded("too many calls at once: ask again later"))
        self._on_call(Call(method, code_pb2.Code.Name(status.code), 0.0))
        return self._refusal(status)

    def _refusal(self, status: status_pb2.Status) -> Any:
        """A handler that answers with the status. It takes a stream, so that it waits for no message."""

        def refuse(_requests: Any, context: grpc.ServicerContext) -> Any:
            context.abort_with_status(rpc_status.to_status(status))

        return in_pool(grpc.stream_unary_rpc_method_handler(refuse), self._threads.refusals)
