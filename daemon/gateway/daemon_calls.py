"""Calls of the daemon's gRPC for one HTTP request: the caller's token goes along, the gateway has none.

A request without a token may ask and read, and only where the gateway is on loopback. OpenAI's clients always
send some key: on loopback a key that the daemon does not know counts as none for asking and reading.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import grpc
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc

from daemon.client import channel_options, tls_credentials
from daemon.gateway.errors import UNAUTHENTICATED, HttpError, of_grpc
from daemon.messages import message, module
from daemon.rpc.access import HEADER, Role, allowed
from daemon.rpc.token_file import token_hash

HEALTH_TIMEOUT_S = 2.0
# For so many seconds a key that the daemon did not know counts as none at once, where no token is needed.
STRANGER_S = 30.0
MOST_STRANGERS = 1024  # such keys that are remembered
_DETAILS = "grpc-status-details-bin"
# Why the daemon knows nobody, where the key may be one that OpenAI's clients send to all. An expired token is
# not among them: who has lost rights is told so.
_NO_TOKEN_OF_OURS = ("unknown", "malformed")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sent a request: the value of its Authorization header, empty without one."""

    authorization: str = ""

    @classmethod
    def of_header(cls, authorization: str) -> Caller:
        """Raises `HttpError` for what gRPC cannot carry."""
        if not (authorization.isascii() and authorization.isprintable()):
            raise HttpError(UNAUTHENTICATED, "the Authorization header holds characters no token has")
        return cls(authorization)

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        return ((HEADER, self.authorization),) if self.authorization else ()


NOBODY = Caller()


class _Strangers:
    """Callers whose key the daemon did not know a moment ago, by hash: it may be a secret elsewhere."""

    def __init__(self) -> None:
        self._until: dict[bytes, float] = {}

    def add(self, caller: Caller) -> None:
        if len(self._until) >= MOST_STRANGERS:
            self._until.clear()
        self._until[token_hash(caller.authorization)] = time.monotonic() + STRANGER_S

    def __contains__(self, caller: Caller) -> bool:
        if not self._until or not caller.authorization:
            return False
        return self._until.get(token_hash(caller.authorization), 0.0) > time.monotonic()


class DaemonCalls:
    """One channel to the daemon or the replicas at `address`, a target of gRPC, opened with the first call.

    `token_needed`: whether every call needs a token. Every call raises `HttpError`.
    """

    def __init__(
        self,
        address: str,
        *,
        tls_ca: Path | None,
        token_needed: bool,
        timeout_s: float,
        max_message_bytes: int,
        tls_cert: Path | None = None,
        tls_key: Path | None = None,
    ) -> None:
        self.address = address
        self._tls_ca = tls_ca
        self._tls_pair = (tls_cert, tls_key)
        self._token_needed = token_needed
        self._timeout_s = timeout_s
        self._options = [
            *channel_options(address, tls=tls_ca is not None),
            ("grpc.max_receive_message_length", max_message_bytes),
        ]
        self._channel: grpc.aio.Channel | None = None
        self._strangers = _Strangers()

    async def close(self) -> None:
        if self._channel is not None:
            await self._channel.close()

    async def call(self, caller: Caller, service: str, method: str, **fields: Any) -> Any:
        """The reply's message. `service` is answer, edit or admin; fields that are None stay absent."""
        request = message(service, f"{method}Request", **fields)
        stub = getattr(self._stub(service), method)
        return await self._with_access(
            caller,
            _path(service, method),
            lambda metadata: stub(request, timeout=self._timeout_s, metadata=metadata),
        )

    async def stream(self, caller: Caller, service: str, method: str, **fields: Any) -> AsyncGenerator[Any]:
        """The messages of a stream. Closing the iterator cancels the call."""
        request = message(service, f"{method}Request", **fields)
        stub = getattr(self._stub(service), method)

        async def start(metadata: Any) -> tuple[Any, Any]:
            call = stub(request, timeout=self._timeout_s, metadata=metadata)
            return call, await call.read()

        call, part = await self._with_access(caller, _path(service, method), start)
        try:
            while part is not grpc.aio.EOF:
                yield part
                part = await call.read()
        except grpc.aio.AioRpcError as error:
            raise _http_error(error) from error
        finally:
            call.cancel()

    async def is_serving(self) -> bool:
        """Whether the daemon answers questions now."""
        stub = health_pb2_grpc.HealthStub(self._opened())
        try:
            reply = await stub.Check(health_pb2.HealthCheckRequest(), timeout=HEALTH_TIMEOUT_S)
        except grpc.aio.AioRpcError:
            return False
        return bool(reply.status == health_pb2.HealthCheckResponse.SERVING)

    async def _with_access(self, caller: Caller, path: str, start: Callable[[Any], Awaitable[T]]) -> T:
        """Runs the call with the caller's token, or without one where that is allowed."""
        open_to_all = not self._token_needed and allowed(path, (Role.ASKER,))
        if not caller.metadata and not open_to_all:
            raise HttpError(
                UNAUTHENTICATED,
                f"{path} needs a token: send Authorization: Bearer TOKEN (`lte up` prints one, "
                "`lte token new` makes one)",
            )
        if open_to_all and caller in self._strangers:
            caller = NOBODY
        try:
            return await start(caller.metadata)
        except grpc.aio.AioRpcError as error:
            if not (open_to_all and caller.metadata and _info(error).get("why") in _NO_TOKEN_OF_OURS):
                raise _http_error(error) from error
        self._strangers.add(caller)
        return await self._with_access(NOBODY, path, start)

    def _stub(self, service: str) -> Any:
        stub = getattr(module(f"{service}_service_pb2_grpc"), f"{service.capitalize()}ServiceStub")
        return stub(self._opened())

    def _opened(self) -> grpc.aio.Channel:
        if self._channel is None:
            if self._tls_ca and not self.address.startswith("unix:"):
                roots = tls_credentials(self._tls_ca, *self._tls_pair)
                self._channel = grpc.aio.secure_channel(self.address, roots, self._options)
            else:
                self._channel = grpc.aio.insecure_channel(self.address, self._options)
        return self._channel


def _path(service: str, method: str) -> str:
    return f"/lte.v1.{service.capitalize()}Service/{method}"


def _http_error(error: grpc.aio.AioRpcError) -> HttpError:
    return of_grpc(error.code().name, error.details() or "", _info(error).get("code"))


def _info(error: grpc.aio.AioRpcError) -> Mapping[str, str]:
    """The metadata of the status' google.rpc.ErrorInfo; empty where the error is not the daemon's own."""
    info = error_details_pb2.ErrorInfo()
    for name, value in error.trailing_metadata() or ():
        if name == _DETAILS and isinstance(value, bytes):
            for detail in status_pb2.Status.FromString(value).details:
                if detail.Unpack(info):
                    return dict(info.metadata)
    return {}
