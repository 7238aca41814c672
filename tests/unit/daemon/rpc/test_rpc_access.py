"""Every RPC has an access rule: the matrix of roles and methods is made from the descriptors."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message_factory import GetMessageClass
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from grpc_status import rpc_status

from daemon.client import Client
from daemon.rpc.access import RULES, Role, Tokens, allowed
from daemon.rpc.gen.lte.v1 import admin_service_pb2, answer_service_pb2, edit_service_pb2
from daemon.rpc.server import ListenerSettings, RpcServer
from lte_runtime.errors import Refused
from tests.unit.daemon.rpc.conftest import Build, Rig

FILES = (answer_service_pb2, edit_service_pb2, admin_service_pb2, health_pb2, reflection_pb2)
METHODS: dict[str, MethodDescriptor] = {
    f"/{service.full_name}/{method.name}": method
    for file in FILES
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}
# Clients ask for v1 first and take no refusal for a reason to ask for v1alpha.
_V1 = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
METHODS[_V1] = METHODS[_V1.replace("v1", "v1alpha")]
TOKEN = "a-token-that-nobody-guesses"


def test_the_table_names_every_method_and_no_other() -> None:
    assert set(RULES) == set(METHODS)


def test_admin_calls_are_for_admins() -> None:
    for method in METHODS:
        assert allowed(method, Role.ADMIN)
        assert allowed(method, Role.USER) == ("AdminService" not in method)
    assert not allowed("/lte.v1.AnswerService/Forgotten", Role.ADMIN)


def code_of(channel: grpc.Channel, path: str) -> grpc.StatusCode:
    """The code that an empty request gets; OK for an answer."""
    method = METHODS.get(path)
    reply = GetMessageClass(method.output_type) if method else health_pb2.HealthCheckResponse
    request = (GetMessageClass(method.input_type) if method else health_pb2.HealthCheckRequest)()
    streams = method is not None and method.server_streaming
    kind = channel.unary_stream if streams else channel.unary_unary
    call = kind(
        path, request_serializer=type(request).SerializeToString, response_deserializer=reply.FromString
    )
    try:
        made = call(request, timeout=20)
        if streams:
            next(iter(made))
            made.cancel()
    except grpc.RpcError as error:
        code: grpc.StatusCode = error.code()
        return code
    return grpc.StatusCode.OK


@pytest.mark.parametrize("role", Role)
def test_role_by_method_over_the_wire(rig: Rig, role: Role) -> None:
    path = rig.settings.admin_socket if role is Role.ADMIN else rig.settings.socket
    with grpc.insecure_channel(f"unix:{path}") as channel:
        for method in METHODS:
            refused = code_of(channel, method) is grpc.StatusCode.PERMISSION_DENIED
            assert refused != allowed(method, role), method


@pytest.mark.parametrize("method", ["/lte.v1.AnswerService/Nothing", "/other.Service/Call"])
def test_an_unlisted_method_is_denied(rig: Rig, method: str) -> None:
    with grpc.insecure_channel(f"unix:{rig.settings.admin_socket}") as channel:
        assert code_of(channel, method) is grpc.StatusCode.PERMISSION_DENIED


def test_a_rule_that_is_taken_away_closes_the_method(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    method = "/lte.v1.EditService/ListEdits"
    monkeypatch.delitem(RULES, method)
    with grpc.insecure_channel(f"unix:{rig.settings.admin_socket}") as channel:
        assert code_of(channel, method) is grpc.StatusCode.PERMISSION_DENIED


def test_refusals_have_details(rig: Rig) -> None:
    with grpc.insecure_channel(f"unix:{rig.settings.socket}") as channel:
        call: Any = channel.unary_unary("/lte.v1.AdminService/GetStatus")
        with pytest.raises(grpc.RpcError) as caught:
            call(b"", timeout=20)
    status = rpc_status.from_call(caught.value)
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert (info.reason, info.domain) == ("NOT_ALLOWED", "lte-daemon")


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    path = tmp_path / "tokens"
    path.write_text(f"{TOKEN}\nanother-token-of-some-length\n\n")
    return path


def test_tokens(token_file: Path) -> None:
    tokens = Tokens.read(token_file)
    assert tokens.accept([("authorization", f"Bearer {TOKEN}")])
    assert tokens.accept([("authorization", "bearer another-token-of-some-length")])
    for metadata in (
        [],
        [("authorization", TOKEN)],
        [("authorization", f"Bearer {TOKEN}x")],
        [("authorization", f"Bearer {TOKEN[:-1]}")],
        [("authorization", "Bearer ")],
        [("authorization", f"Bearer {TOKEN}")] * 2,
        [("x-authorization", f"Bearer {TOKEN}")],
    ):
        assert not tokens.accept(metadata)


@pytest.mark.parametrize("content", [b"", b"\n \n", b"short\n", b"\xff\xfe" * 20])
def test_token_files_that_protect_nothing_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "tokens"
    path.write_bytes(content)
    with pytest.raises(Refused):
        Tokens.read(path)
    with pytest.raises(Refused):
        Tokens.read(tmp_path / "absent")


def test_tcp_with_a_token(build: Build, token_file: Path) -> None:
    rig = build(listen="127.0.0.1:0", token_file=token_file)
    rig.lifecycle.set_caught_up()
    address = rig.server.tcp_address
    wrong = token_file.with_name("wrong")
    wrong.write_text("a-token-that-is-not-known")
    with Client(address, token_file=token_file) as client:
        assert client.answer("What?")["scope"] == "base"
    for other in (None, wrong):
        with Client(address, token_file=other) as client:
            with pytest.raises(Refused, match="token"):
                client.answer("What?")
            assert client.health() == "SERVING"
    with rig.client() as client:
        assert client.answer("What?")["scope"] == "base"


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """A self-signed certificate for loopback, and its key."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    where = ["-keyout", str(key), "-out", str(cert)]
    subprocess.run(["openssl", "req", "-x509", *kind, *where, *names], check=True, capture_output=True)
    return cert, key


def test_tls_and_token(build: Build, token_file: Path, certificate: tuple[Path, Path]) -> None:
    cert, key = certificate
    rig = build(listen="0.0.0.0:0", tls_cert=cert, tls_key=key, token_file=token_file)
    rig.lifecycle.set_caught_up()
    port = str(rig.server.tcp_address).rpartition(":")[2]
    with Client(f"localhost:{port}", tls_ca=cert, token_file=token_file) as client:
        assert client.answer("What?")["scope"] == "base"
    with Client(f"localhost:{port}", tls_ca=cert) as client, pytest.raises(Refused):
        client.answer("What?")
    with Client(f"localhost:{port}", token_file=token_file) as client:
        assert not client.is_serving(timeout_s=2)


@pytest.mark.parametrize("given", [set(), {"tls"}, {"token"}])
def test_a_public_bind_without_protection_is_refused(rig: Rig, tmp_path: Path, given: set[str]) -> None:
    tls: Any = {"tls_cert": tmp_path / "c", "tls_key": tmp_path / "k"} if "tls" in given else {}
    token: Any = {"token_file": tmp_path / "t"} if "token" in given else {}
    server = RpcServer(rig.services, ListenerSettings(listen="0.0.0.0:0", **tls, **token))
    with pytest.raises(Refused, match="not loopback"):
        server.start()


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
def test_reflection_lists_the_services(rig: Rig, version: str) -> None:
    ask = reflection_pb2.ServerReflectionRequest(list_services="")
    with grpc.insecure_channel(f"unix:{rig.settings.socket}") as channel:
        call = channel.stream_stream(
            f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
            reflection_pb2.ServerReflectionRequest.SerializeToString,
            reflection_pb2.ServerReflectionResponse.FromString,
        )
        reply = next(call(iter([ask]), timeout=20))
    names = {service.name for service in reply.list_services_response.service}
    assert {"lte.v1.AnswerService", "lte.v1.EditService", "lte.v1.AdminService"} <= names
