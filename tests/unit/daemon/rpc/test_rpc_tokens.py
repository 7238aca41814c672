"""Who is let in over the wire: tokens, certificates, their ends and limits, and a file that changes."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import structlog
from certificates import Authority, authority
from google.protobuf.message import Message
from google.rpc import error_details_pb2
from grpc_reflection.v1alpha import reflection_pb2
from grpc_status import rpc_status

from daemon.client import Client
from daemon.gateway.daemon_calls import NOBODY, DaemonCalls
from daemon.rpc import token_file as files
from daemon.rpc.access import Limit, Principal, Role, Unauthenticated
from daemon.rpc.call_context import CallContext
from daemon.rpc.gen.lte.v1 import answer_service_pb2 as answers
from daemon.rpc.gen.lte.v1 import answer_service_pb2_grpc
from daemon.rpc.rate_limit import RateLimited, RateLimits
from daemon.rpc.server import ListenerSettings, RpcServer
from daemon.rpc.token_store import TokenStore, token_in
from lte_runtime.errors import BadRequest, DeadlineExceeded, Overloaded, Refused
from tests.unit.daemon.rpc.conftest import Build, Principals, Rig

OLD_TOKEN = "a-token-that-nobody-guesses"


@pytest.fixture
def old_file(tmp_path: Path) -> Path:
    path = tmp_path / "tokens"
    path.write_text(f"{OLD_TOKEN}\nanother-token-of-some-length\n\n")
    return path


@pytest.fixture
def serve(build: Build) -> Build:
    """A rig that serves, on loopback TCP too unless `listen` says otherwise."""

    def make(**rpc: Any) -> Rig:
        rig = build(**{"listen": "127.0.0.1:0", **rpc})
        rig.lifecycle.set_caught_up()
        return rig

    return make


def test_tcp_with_a_token_file_of_before(serve: Build, old_file: Path) -> None:
    rig = serve(token_file=old_file)
    address = rig.server.tcp_address
    wrong = old_file.with_name("wrong")
    wrong.write_text("a-token-that-is-not-known")
    with Client(address, token_file=old_file) as client:
        assert client.answer("What?")["scope"] == "base"
        assert len(client.publish([{"subject": "A", "relation": "b", "target": "c"}])) == 1
    for other in (None, wrong):
        with Client(address, token_file=other) as client:
            with pytest.raises(Refused, match="token"):
                client.answer("What?")
            assert client.health() == "SERVING"
    with rig.client() as client:
        assert client.answer("What?")["scope"] == "base"


def test_roles_without_a_token_on_loopback(serve: Build, token_file: Principals) -> None:
    token = token_file.add("writer", Role.PUBLISHER, write=["default"])
    rig = serve(token_file=token_file.path, listen_roles=(Role.ASKER,))
    with Client(str(rig.server.tcp_address)) as client:
        assert client.answer("What?")["scope"] == "base"
        with pytest.raises(Refused, match="publisher"):
            client.publish([{"subject": "A", "relation": "b", "target": "c"}])
    with token_file.client(rig, token, rig.server.tcp_address) as client:
        assert len(client.publish([{"subject": "A", "relation": "b", "target": "c"}])) == 1


def test_a_token_decides_on_the_client_socket_too(serve: Build, token_file: Principals) -> None:
    """A gateway on the socket lends its callers none of the socket's rights."""
    token = token_file.add("bot", Role.ASKER, read=["default"])
    rig = serve(token_file=token_file.path)
    with token_file.client(rig, token) as client:
        assert client.answer("What?")["scope"] == "base"
        with pytest.raises(Refused, match="role publisher"):
            client.publish([{"subject": "A", "relation": "b", "target": "c"}])
    with token_file.client(rig, "unknown-token-of-some-length") as client, pytest.raises(Refused):
        client.answer("What?")
    # The admin socket is the daemon's own user, whatever it brings.
    with token_file.client(rig, token, f"unix:{rig.settings.admin_socket}") as client:
        assert client.status()["state"] == "READY"


def test_a_token_where_there_is_no_file_is_refused(serve: Build, token_file: Principals) -> None:
    rig = serve()
    for address in (rig.server.tcp_address, str(rig.settings.socket)):
        with (
            token_file.client(rig, OLD_TOKEN, address) as client,
            pytest.raises(Refused, match=r"no rpc\.token_file"),
        ):
            client.answer("What?")


def test_an_operator_over_tcp(serve: Build, token_file: Principals) -> None:
    token = token_file.add("ops", Role.OPERATOR, read=["*"])
    rig = serve(token_file=token_file.path)
    with token_file.client(rig, token, rig.server.tcp_address) as client:
        assert client.status()["state"] == "READY"
        with pytest.raises(
            Refused, match=r"needs to write all namespaces \('\*'\); ops \(operator\) may write none"
        ):
            client.take_snapshot()
    assert ("/lte.v1.AdminService/GetStatus", "OK", "ops") in {
        (call.method, call.code, call.principal) for call in rig.calls
    }


def failure(rig: Rig, metadata: list[tuple[str, str]]) -> tuple[grpc.StatusCode, dict[str, str]]:
    """Code and ErrorInfo's metadata of a question over TCP."""
    with grpc.insecure_channel(str(rig.server.tcp_address)) as channel:
        stub: Any = answer_service_pb2_grpc.AnswerServiceStub(channel)
        with pytest.raises(grpc.RpcError) as caught:
            stub.Answer(answers.AnswerRequest(question="What?"), metadata=metadata, timeout=20)
    info = error_details_pb2.ErrorInfo()
    detail(caught.value, info)
    assert info.domain == "lte-daemon"
    return caught.value.code(), dict(info.metadata)


def detail(error: Any, message: Message) -> None:
    status = rpc_status.from_call(error)
    assert any(part.Unpack(message) for part in status.details)


def test_why_a_token_is_not_accepted(serve: Build, token_file: Principals) -> None:
    expired = token_file.add("old", Role.ASKER, read=["*"], expires_s=1.0)
    good = token_file.add("bot", Role.ASKER, read=["*"])
    rig = serve(token_file=token_file.path)
    sent = {
        "missing": [],
        "expired": [("authorization", f"Bearer {expired}")],
        "unknown": [("authorization", f"Bearer {good}x")],
        "malformed": [("authorization", good)],
    }
    for why, metadata in sent.items():
        assert failure(rig, metadata) == (grpc.StatusCode.UNAUTHENTICATED, {"why": why})
    twice = [("authorization", f"Bearer {good}")] * 2
    assert failure(rig, twice) == (grpc.StatusCode.UNAUTHENTICATED, {"why": "malformed"})


def test_a_header_that_is_no_text() -> None:
    with pytest.raises(Unauthenticated):
        token_in([("authorization", b"Bearer x")])
    assert token_in([("x-authorization", "Bearer x")]) is None


# -- a file that changes -----------------------------------------------------------------------------------


def test_a_changed_file_holds_without_a_restart(serve: Build, token_file: Principals) -> None:
    first = token_file.add("first", Role.ASKER, read=["default"])
    rig = serve(token_file=token_file.path)
    store = rig.server.tokens
    assert store is not None
    second = token_file.add("second", Role.ASKER, read=["default"])
    with token_file.client(rig, second) as client:
        with pytest.raises(Refused, match="not known"):
            client.answer("What?")
        store.look()
        assert client.answer("What?")["scope"] == "base"
    token_file.lines = token_file.lines[-1:]  # the file is torn: its first lines are gone
    token_file.path.write_text("".join(token_file.lines))
    with structlog.testing.capture_logs() as logged:
        store.look()
        store.look()
    assert [(line["event"], line["log_level"]) for line in logged] == [("token_file_refused", "error")]
    assert "the tokens of before stay in force" in store.fault
    for token in (first, second):
        with token_file.client(rig, token) as client:
            assert client.answer("What?")["scope"] == "base"
    token_file.path.write_text("\n".join((files.SECTION, *token_file.lines)))
    store.look()
    assert store.fault == ""
    with token_file.client(rig, first) as client, pytest.raises(Refused, match="not known"):
        client.answer("What?")


def test_a_file_that_is_cut_short_keeps_the_tokens(tmp_path: Path) -> None:
    principals = Principals(tmp_path / "tokens.toml")
    token = principals.add("bot", Role.ASKER, read=["default"])
    principals.add("other", Role.ASKER, read=["default"])
    store, content = TokenStore(principals.path), principals.path.read_text()
    # What is cut between two entries is a file of its own.
    valid = {"\n".join(principals.lines[:2]), "\n".join(principals.lines)}
    for cut in range(len(content)):
        principals.path.write_text(content[:cut])
        store.look()
        assert bool(store.fault) != (content[:cut].strip() in valid), content[:cut]
        assert store.principal_of(token).name == "bot"


def test_a_file_that_is_gone_or_replaced(tmp_path: Path) -> None:
    """Kubernetes exchanges a link; an editor renames a file; a backup restores an old time."""
    principals = Principals(tmp_path / "one.toml")
    token = principals.add("bot", Role.ASKER, read=["default"])
    link = tmp_path / "tokens.toml"
    link.symlink_to(principals.path)
    store = TokenStore(link)
    link.unlink()
    store.look()
    assert "No such file" in store.fault
    assert store.principal_of(token).name == "bot"
    other = Principals(tmp_path / "two.toml")
    other_token = other.add("new", Role.ASKER, read=["default"])
    about = principals.path.stat()
    os.utime(other.path, ns=(about.st_atime_ns, about.st_mtime_ns))
    link.symlink_to(other.path)
    store.look()
    assert store.fault == ""
    assert store.principal_of(other_token).name == "new"
    with pytest.raises(Unauthenticated):
        store.principal_of(token)


def test_a_server_does_not_start_with_a_wrong_file(rig: Rig, tmp_path: Path) -> None:
    path = tmp_path / "tokens.toml"
    path.write_text("[principals]\n")
    server = RpcServer(rig.services, ListenerSettings(listen="127.0.0.1:0", token_file=path))
    with pytest.raises(Refused, match="must hold 1 to"):
        server.start()


def test_a_clients_file_holds_the_token_itself(token_file: Principals) -> None:
    token_file.add("bot", Role.ASKER, read=["default"])
    for path in (token_file.path, token_file.path.with_name("absent")):
        with pytest.raises(BadRequest, match="token"):
            Client("unix:/nowhere", token_file=path)


# -- rates and times ---------------------------------------------------------------------------------------


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_bucket_fills_up_again() -> None:
    clock = Clock()
    limits, caller = RateLimits(clock), Principal("bot", frozenset(), limit=Limit(4.0, 2))
    limits.take(caller)
    limits.take(caller)
    with pytest.raises(RateLimited) as caught:
        limits.take(caller)
    assert caught.value.retry_s == pytest.approx(0.25)
    clock.now += 0.25
    limits.take(caller)
    with pytest.raises(RateLimited):
        limits.take(caller)
    clock.now += 3600
    for _ in range(2):
        limits.take(caller)
    with pytest.raises(RateLimited):
        limits.take(caller)
    limits.take(Principal("another", frozenset(), limit=Limit(4.0, 2)))
    limits.take(Principal("bot", frozenset(), limit=Limit(5.0, 2)))  # its entry was changed
    for _ in range(100):
        limits.take(Principal("free", frozenset()))


def test_a_rate_over_the_wire(serve: Build, token_file: Principals) -> None:
    slow = Limit(0.01, 3)
    token = token_file.add("bot", Role.ASKER, read=["default"], limit=slow)
    other = token_file.add("other", Role.ASKER, read=["default"], limit=slow)
    rig = serve(token_file=token_file.path)
    with token_file.client(rig, token) as client:
        for _ in range(3):
            client.retrieve("What?")
        with pytest.raises(Overloaded, match=r"bot may make 0\.01 calls a second, 3 at once") as caught:
            client.answer("What?")
        retry = error_details_pb2.RetryInfo()
        detail(caught.value.__cause__, retry)
        assert 90 < retry.retry_delay.seconds <= 100
        assert client.health() == "SERVING"
    with token_file.client(rig, other) as client:
        client.retrieve("What?")
    assert [call.code for call in rig.calls].count("RESOURCE_EXHAUSTED") == 1


def test_a_stream_that_outlives_the_longest_time_ends(serve: Build) -> None:
    rig = serve(deadline_max_s=0.3)
    with grpc.insecure_channel(f"unix:{rig.settings.socket}") as channel:
        call = channel.stream_stream(
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
            reflection_pb2.ServerReflectionRequest.SerializeToString,
            reflection_pb2.ServerReflectionResponse.FromString,
        )
        with pytest.raises(grpc.RpcError) as caught:
            for _ in call(endless_requests()):
                pass
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert "rpc.deadline_max_s" in caught.value.details()


def endless_requests() -> Iterator[reflection_pb2.ServerReflectionRequest]:
    while True:
        yield reflection_pb2.ServerReflectionRequest(list_services="")
        time.sleep(0.05)


class Connection:
    """What gRPC says of a call with so many seconds left; None for no deadline."""

    def __init__(self, time_left: float | None) -> None:
        self._time_left = time_left

    def time_remaining(self) -> float | None:
        return self._time_left

    def is_active(self) -> bool:
        return True


@pytest.mark.parametrize(("own", "expected"), [(None, None), (1e12, None), (2.0, 2.0), (9000.0, 100.0)])
def test_the_time_that_is_left(own: float | None, expected: float | None) -> None:
    connection: Any = Connection(own)
    call = CallContext(connection, Principal("bot", frozenset()), longest_s=100.0)
    assert call.time_remaining() == (expected if expected is None else pytest.approx(expected, abs=1))
    assert call.is_active()
    over = CallContext(connection, Principal("bot", frozenset()), longest_s=0.0)
    assert not over.is_active()
    with pytest.raises(DeadlineExceeded):
        over.check_time()


# -- names in what is published ----------------------------------------------------------------------------


def test_published_events_bear_the_callers_name(serve: Build, token_file: Principals) -> None:
    token = token_file.add("etl", Role.PUBLISHER, write=["default"])
    rig = serve(token_file=token_file.path)
    event = {"subject": "A", "relation": "b", "target": "c"}
    with token_file.client(rig, token) as client:
        client.publish([event, {**event, "source": {"uri": "doc:1", "publisher": "hr"}}])
        client.publish([{**event, "source": {"uri": "doc:1"}}])
    with rig.client() as client:
        client.publish([event])
    sources = [published.get("source") for published in rig.publisher.events]
    own = {"publisher": "etl"}
    assert sources == [own, {"uri": "doc:1", "publisher": "hr"}, {"uri": "doc:1", **own}, None]
    assert rig.publisher.headers == [("lte-principal", b"etl")] * 2 + [("lte-principal", b"lte.sock")]


# -- TLS ---------------------------------------------------------------------------------------------------


@pytest.fixture
def roots(tmp_path: Path) -> Authority:
    return authority(tmp_path)


def test_tls_and_token(serve: Build, old_file: Path, roots: Authority) -> None:
    cert, key = roots.signed("server", "/CN=localhost")
    rig = serve(listen="0.0.0.0:0", tls_cert=cert, tls_key=key, token_file=old_file)
    port = str(rig.server.tcp_address).rpartition(":")[2]
    with Client(f"localhost:{port}", tls_ca=roots.root, token_file=old_file) as client:
        assert client.answer("What?")["scope"] == "base"
    with Client(f"localhost:{port}", tls_ca=roots.root) as client, pytest.raises(Refused):
        client.answer("What?")
    with Client(f"localhost:{port}", token_file=old_file) as client:
        assert not client.is_serving(timeout_s=2)


Channel = Callable[..., grpc.Channel]


@pytest.fixture
def certified(serve: Build, token_file: Principals, roots: Authority) -> tuple[Rig, Channel]:
    """A daemon that asks for certificates, and channels to it with the certificate of a subject."""
    cert, key = roots.signed("server", "/CN=localhost")
    token_file.add("bot", Role.ASKER, read=["default"], subject="CN=bot,O=Acme")
    rig = serve(tls_cert=cert, tls_key=key, tls_client_ca=roots.root, token_file=token_file.path)
    port = str(rig.server.tcp_address).rpartition(":")[2]

    def channel(subject: str = "", signer: Authority = roots) -> grpc.Channel:
        pair = [path.read_bytes() for path in reversed(signer.signed("client", subject))] if subject else []
        trust = grpc.ssl_channel_credentials(roots.root.read_bytes(), *pair)
        return grpc.secure_channel(f"localhost:{port}", trust)

    return rig, channel


def asked(channel: grpc.Channel, metadata: list[tuple[str, str]] | None = None) -> grpc.StatusCode:
    with channel:
        stub: Any = answer_service_pb2_grpc.AnswerServiceStub(channel)
        try:
            stub.Answer(answers.AnswerRequest(question="What?"), metadata=metadata, timeout=5)
        except grpc.RpcError as error:
            code: grpc.StatusCode = error.code()
            return code
    return grpc.StatusCode.OK


def test_a_certificate_stands_for_its_principal(
    certified: tuple[Rig, Channel], roots: Authority, tmp_path: Path
) -> None:
    rig, channel = certified
    assert asked(channel("/O=Acme/CN=bot")) is grpc.StatusCode.OK
    assert rig.calls[-1].principal == "bot"
    cert, key = (roots.directory / f"client.{end}" for end in ("crt", "key"))
    with Client(rig.server.tcp_address, tls_ca=roots.root, tls_cert=cert, tls_key=key) as client:
        assert client.answer("What?")["scope"] == "base"
    assert asked(channel("/O=Acme/CN=mallory")) is grpc.StatusCode.UNAUTHENTICATED
    # Without a certificate, or with one of another authority, there is no connection.
    assert asked(channel()) is grpc.StatusCode.UNAVAILABLE
    stranger = authority(tmp_path, "stranger")
    assert asked(channel("/O=Acme/CN=bot", stranger)) is grpc.StatusCode.UNAVAILABLE
    # A token outranks the certificate: a gateway with one forwards its callers' tokens.
    wrong = [("authorization", "Bearer unknown")]
    assert asked(channel("/O=Acme/CN=bot"), wrong) is grpc.StatusCode.UNAUTHENTICATED


def test_a_gateway_brings_its_certificate(certified: tuple[Rig, Channel], roots: Authority) -> None:
    rig, _ = certified
    cert, key = roots.signed("gateway", "/O=Acme/CN=bot")

    async def ask() -> Any:
        calls = DaemonCalls(
            str(rig.server.tcp_address),
            tls_ca=roots.root,
            token_needed=False,
            timeout_s=5.0,
            max_message_bytes=1 << 20,
            tls_cert=cert,
            tls_key=key,
        )
        try:
            return await calls.call(NOBODY, "answer", "Answer", question="What?")
        finally:
            await calls.close()

    assert asyncio.run(ask()).text
    assert rig.calls[-1].principal == "bot"


def test_a_certificates_rights_end_where_its_entry_says(certified: tuple[Rig, Channel]) -> None:
    _, channel = certified
    with channel("/O=Acme/CN=bot") as open_channel:
        stub: Any = answer_service_pb2_grpc.AnswerServiceStub(open_channel)
        with pytest.raises(grpc.RpcError) as caught:
            stub.Answer(answers.AnswerRequest(question="What?", namespace="team-a"), timeout=5)
        assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
        status: Any = open_channel.unary_unary("/lte.v1.AdminService/GetStatus")
        with pytest.raises(grpc.RpcError) as caught:
            status(b"", timeout=5)
        assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED


@pytest.mark.parametrize("given", [set(), {"tls"}, {"token"}])
def test_a_public_bind_without_protection_is_refused(rig: Rig, tmp_path: Path, given: set[str]) -> None:
    tls: Any = {"tls_cert": tmp_path / "c", "tls_key": tmp_path / "k"} if "tls" in given else {}
    token: Any = {"token_file": tmp_path / "t"} if "token" in given else {}
    server = RpcServer(rig.services, ListenerSettings(listen="0.0.0.0:0", **tls, **token))
    with pytest.raises(Refused, match="not loopback"):
        server.start()
