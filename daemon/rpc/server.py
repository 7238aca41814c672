"""The daemon's sockets: one gRPC server for each listener, which says what a caller without a token may do.

Order of a start: every socket is bound, health says NOT_SERVING, then calls are taken; health follows the
lifecycle from there. Order of a stop: health down, calls get their time to end, sockets are gone.
"""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import grpc
import structlog
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2

from daemon.lifecycle import LifecycleStatus
from daemon.rpc.access import Role
from daemon.rpc.admin_servicer import AdminServicer
from daemon.rpc.answer_servicer import AnswerServicer
from daemon.rpc.edit_servicer import EditServicer
from daemon.rpc.gen.lte.v1 import (
    admin_service_pb2,
    admin_service_pb2_grpc,
    answer_service_pb2,
    answer_service_pb2_grpc,
    edit_service_pb2,
    edit_service_pb2_grpc,
)
from daemon.rpc.interceptors import Call, Guard
from daemon.rpc.listener import Listener, admin_listener, socket_listener, tcp_listener
from daemon.rpc.rate_limit import RateLimits
from daemon.rpc.services import Services
from daemon.rpc.token_store import TokenStore
from daemon.rpc.workers import ListenerThreads
from daemon.settings import SOCKET_PATH_MAX, is_loopback
from lte_runtime.errors import Refused
from lte_runtime.private_files import UMASK, make_state_directory

log = structlog.get_logger(__name__)

ANSWERS = answer_service_pb2.DESCRIPTOR.services_by_name["AnswerService"].full_name
EDITS = edit_service_pb2.DESCRIPTOR.services_by_name["EditService"].full_name
ADMIN = admin_service_pb2.DESCRIPTOR.services_by_name["AdminService"].full_name

# Seconds. A caller that hangs, or whose machine is gone, closes nothing: a silent connection is asked for a
# sign of life, and is closed with its calls when none comes within a third of that time.
KEEPALIVE_S = 30.0
# Seconds. Long enough to watch a training of two hours, and an end for what was forgotten.
DEADLINE_MAX_S = 7200.0


@dataclass(frozen=True, slots=True)
class ListenerSettings:
    """Where to listen; None for nowhere. `listen` is host:port, port 0 takes a free one. Sizes in bytes.

    `socket` is given to the group of the directory `group_of`, whose members may then call. `socket_roles`
    are those of callers without a token, `listen_roles` the same on TCP beside a token file. With
    `tls_client_ca` TCP clients must bring a certificate of these roots.
    """

    socket: Path | None = None
    group_of: Path | None = None
    listen: str | None = None
    admin_socket: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    tls_client_ca: Path | None = None
    token_file: Path | None = None
    socket_roles: tuple[Role, ...] = (Role.ASKER, Role.PUBLISHER)
    listen_roles: tuple[Role, ...] = ()
    deadline_max_s: float = DEADLINE_MAX_S
    max_concurrent: int = 128
    max_message_bytes: int = 1 << 20
    keepalive_s: float = KEEPALIVE_S


class RpcServer:
    """Raises `Refused` for a socket that is in use, a public bind without TLS and token, unreadable files."""

    def __init__(
        self, services: Services, settings: ListenerSettings, on_call: Callable[[Call], None] = lambda _: None
    ) -> None:
        self._services = services
        self._settings = settings
        self._on_call = on_call
        # A watcher without a thread of its own is sent to under the lock that every check takes: one that
        # reads nothing, or goes away at that moment, would stop the listener.
        self._health = health.HealthServicer(experimental_non_blocking=False)
        self._limits = RateLimits()
        self._servers: list[grpc.Server] = []
        self._threads: list[ListenerThreads] = []
        self._sockets: list[Path] = []
        self.tcp_address: str | None = None
        self.tokens: TokenStore | None = None

    def start(self) -> None:
        """Binds all sockets, then takes calls on all of them; binds none if one cannot be bound."""
        self._set_health(serving=False)
        try:
            self._bind()
        except BaseException:
            self.stop(grace=0)
            raise
        for server in self._servers:
            server.start()
        self._services.lifecycle.on_change(self._follow)
        self._follow(self._services.lifecycle.status())

    def stop(self, grace: float) -> None:
        """Gives open calls `grace` seconds to end; harmless a second time."""
        self._health.enter_graceful_shutdown()
        for stopped in [server.stop(grace) for server in self._servers]:
            stopped.wait()
        for threads in self._threads:
            threads.shutdown()
        for path in self._sockets:
            path.unlink(missing_ok=True)
        self._servers, self._threads, self._sockets = [], [], []

    def _bind(self) -> None:
        settings = self._settings
        if settings.listen:
            self._check_public(settings.listen)
        if settings.token_file:
            self.tokens = TokenStore(settings.token_file)
        if settings.socket:
            self._bind_unix(settings.socket, socket_listener(settings.socket_roles, self.tokens), mode=0o660)
            if settings.group_of is not None:
                _give_to_group(settings.socket, settings.group_of)
        if settings.admin_socket:
            self._bind_unix(settings.admin_socket, admin_listener(), mode=0o600)
        if settings.listen:
            self._bind_tcp(settings.listen)

    def _check_public(self, listen: str) -> None:
        settings = self._settings
        secure = settings.tls_cert and settings.tls_key
        if not is_loopback(listen) and not (secure and settings.token_file):
            raise Refused(f"{listen} is not loopback: it needs TLS (certificate and key) and a token file")
        if not is_loopback(listen) and settings.listen_roles:
            raise Refused(f"{listen} is not loopback: every call needs a token there")

    def _bind_unix(self, path: Path, listener: Listener, mode: int) -> None:
        make_way(path)
        server = self._server(listener)
        with _umask(UMASK):
            _bound(server.add_insecure_port, f"unix:{path}")
        self._sockets.append(path)
        path.chmod(mode)

    def _bind_tcp(self, listen: str) -> None:
        settings = self._settings
        certificates = settings.tls_client_ca is not None
        roles = settings.listen_roles if self.tokens else settings.socket_roles
        server = self._server(tcp_listener(roles, self.tokens, certificates=certificates))
        if settings.tls_cert and settings.tls_key:
            credentials = self._credentials(settings.tls_key, settings.tls_cert)
            port = _bound(server.add_secure_port, listen, credentials)
        else:
            port = _bound(server.add_insecure_port, listen)
        self.tcp_address = f"{listen.rpartition(':')[0]}:{port}"

    def _credentials(self, key: Path, certificate: Path) -> grpc.ServerCredentials:
        roots = self._settings.tls_client_ca
        try:
            pair = key.read_bytes(), certificate.read_bytes()
            client_roots = None if roots is None else roots.read_bytes()
        except OSError as error:
            raise Refused(f"TLS: {error}") from error
        return grpc.ssl_server_credentials([pair], client_roots, require_client_auth=roots is not None)

    def _server(self, listener: Listener) -> grpc.Server:
        threads = ListenerThreads(listener.name, self._settings.max_concurrent)
        self._threads.append(threads)
        server = grpc.server(
            threads.calls,
            interceptors=[
                Guard(listener, threads, self._on_call, self._limits, self._settings.deadline_max_s)
            ],
            options=[
                # Without this a second daemon would share the port silently.
                ("grpc.so_reuseport", 0),
                ("grpc.max_receive_message_length", self._settings.max_message_bytes),
                ("grpc.keepalive_time_ms", round(self._settings.keepalive_s * 1000)),
                ("grpc.http2.ping_timeout_ms", round(self._settings.keepalive_s * 1000 / 3)),
            ],
            maximum_concurrent_rpcs=threads.most,
        )
        self._register(server, threads)
        self._servers.append(server)
        return server

    def _register(self, server: grpc.Server, threads: ListenerThreads) -> None:
        """Every service on every listener: access rules decide, so that a refusal says why."""
        services = self._services
        answer_service_pb2_grpc.add_AnswerServiceServicer_to_server(
            AnswerServicer(services, threads.streams), server
        )
        edit_service_pb2_grpc.add_EditServiceServicer_to_server(EditServicer(services), server)
        admin_service_pb2_grpc.add_AdminServiceServicer_to_server(AdminServicer(services), server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        names = (ANSWERS, EDITS, ADMIN, health.SERVICE_NAME)
        reflection.enable_server_reflection(names, server)
        server.add_generic_rpc_handlers([_reflection_v1(names)])

    def _follow(self, _: LifecycleStatus) -> None:
        self._set_health(serving=self._services.lifecycle.serving())

    def _set_health(self, *, serving: bool) -> None:
        """Admin calls are what ends a gap or a suspension: they are served as long as the process runs."""
        states = health_pb2.HealthCheckResponse
        now = states.SERVING if serving else states.NOT_SERVING
        for name in ("", ANSWERS, EDITS):
            self._health.set(name, now)
        self._health.set(ADMIN, states.SERVING if self._servers else states.NOT_SERVING)


def _reflection_v1(names: Sequence[str]) -> grpc.GenericRpcHandler:
    """Reflection under its final name, which clients ask for first; the messages are those of v1alpha."""
    servicer = reflection.ReflectionServicer(names)
    handler = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        reflection_pb2.ServerReflectionRequest.FromString,
        reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    return grpc.method_handlers_generic_handler(
        "grpc.reflection.v1.ServerReflection", {"ServerReflectionInfo": handler}
    )


def make_way(path: Path) -> None:
    """Removes a socket that a killed daemon left; raises `Refused` when it is in use, or no socket."""
    if len(str(path)) > SOCKET_PATH_MAX:
        raise Refused(f"the socket path {path} is longer than {SOCKET_PATH_MAX} characters")
    make_state_directory(path.parent)
    if not os.path.lexists(path):
        return
    if not stat.S_ISSOCK(path.lstat().st_mode):
        raise Refused(f"{path} exists and is not a socket")
    if _answers(path):
        raise Refused(f"another process listens on {path}")
    path.unlink()


def _give_to_group(path: Path, directory: Path) -> None:
    """A user may give files to its own groups only; otherwise the socket stays with the group it has."""
    group = directory.stat().st_gid
    try:
        os.chown(path, -1, group)
    except PermissionError:
        log.warning("socket_group", socket=str(path), group=group, error="this user is not in the group")


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1.0)
        # A full backlog blocks, which is a sign of life too; only a refusal means that nobody is there.
        with suppress(TimeoutError):
            return probe.connect_ex(str(path)) == 0
        return True


def _bound(add_port: Callable[..., int], address: str, *credentials: grpc.ServerCredentials) -> int:
    try:
        return add_port(address, *credentials)
    except RuntimeError as error:
        raise Refused(f"cannot listen on {address}: {error}") from error


@contextmanager
def _umask(mask: int) -> Iterator[None]:
    """The socket must not be open to others even between bind and chmod."""
    old = os.umask(mask)
    try:
        yield
    finally:
        os.umask(old)
