"""Every RPC has an access rule: the matrix of roles, methods and namespaces is made from the descriptors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import Descriptor, MethodDescriptor
from google.protobuf.message_factory import GetMessageClass
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from grpc_status import rpc_status

from daemon.rpc.access import RULES, Role, allowed
from daemon.rpc.gen.lte.v1 import admin_service_pb2, answer_service_pb2, edit_service_pb2
from lte_runtime.errors import NotFound, Refused
from tests.unit.daemon.rpc.conftest import Build, Principals, Rig

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
# Which roles may call what, written apart from the table that it checks: method without its package -> roles,
# and whether it reads or writes the namespaces that the request names.
READERS = "asker publisher operator"
EXPECTED = {
    "AnswerService/Answer": ("asker", "read"),
    "AnswerService/AnswerStream": ("asker", "read"),
    "AnswerService/Retrieve": ("asker", "read"),
    "AnswerService/ReportFeedback": ("asker", ""),
    "EditService/GetEdit": (READERS, ""),
    "EditService/ListEdits": (READERS, "read"),
    "EditService/GetHistory": (READERS, "read"),
    "EditService/WhyNot": (READERS, ""),
    "EditService/Publish": ("publisher", "write"),
    "EditService/DryRun": ("asker publisher", "read"),
    "AdminService/EraseFact": ("operator", "write"),
    "Health/Check": (READERS, ""),
    "Health/Watch": (READERS, ""),
    "ServerReflection/ServerReflectionInfo": (READERS, ""),
}
# Of AdminService, those that only look; the others change something, and both concern all namespaces.
LOOKING = (
    "GetStatus VerifyIndex ListDeadLetters GetDeadLetter ListAdapters VerifyAdapter GetDrift GetRealignment "
    "ListRealignments WatchRealignment"
).split()
PATTERNS = {"own": ["team-a"], "prefix": ["team-*"], "all": ["*"]}
# As a caller writes it -> what it means; None leaves the field empty.
NAMESPACES = {"team-a": "team-a", " TEAM-A ": "team-a", "team-b": "team-b", "other": "other", None: "default"}


def expected_of(method: str) -> tuple[set[str], str]:
    service, name = method.rpartition(".")[2].split("/")
    listed = EXPECTED.get(f"{service}/{name}")
    roles, access = listed or ("operator", "read" if name in LOOKING else "write")
    return set(roles.split()), access


def namespace_paths(message: Descriptor, prefix: str = "") -> Iterator[str]:
    """The dotted paths of all fields that name a namespace."""
    for field in message.fields:
        if field.name == "namespace":
            yield prefix + field.name
        elif field.message_type is not None:
            yield from namespace_paths(field.message_type, f"{prefix}{field.name}.")


def test_the_table_names_every_method_and_no_other() -> None:
    assert set(RULES) == set(METHODS)


def test_the_table_names_every_namespace_that_a_request_can_carry() -> None:
    for name, method in METHODS.items():
        rule = RULES[name].namespaces
        named = [rule.field] if rule and rule.field else []
        assert list(namespace_paths(method.input_type)) == named, name


def test_a_reply_that_shows_namespaces_comes_by_a_rule() -> None:
    for name, method in METHODS.items():
        if any(namespace_paths(method.output_type)):
            assert RULES[name].namespaces is not None, name


@pytest.mark.parametrize("role", Role)
def test_roles_are_as_expected(role: Role) -> None:
    for method in METHODS:
        roles, access = expected_of(method)
        assert allowed(method, {role}) == (role in roles), method
        namespaces = RULES[method].namespaces
        if access:
            assert namespaces is not None
            assert namespaces.access == access, method
    assert not allowed("/lte.v1.AnswerService/Forgotten", Role)


def request_to(method: str, namespace: str | None = None) -> Any:
    """An otherwise empty request that concerns a namespace."""
    descriptor = METHODS.get(method)
    message = GetMessageClass(descriptor.input_type)() if descriptor else health_pb2.HealthCheckRequest()
    for path in namespace_paths(message.DESCRIPTOR):
        if namespace is not None:
            set_field(message, path, namespace)
        elif path.startswith("events."):
            message.events.add()
    return message


def set_field(message: Any, path: str, value: str) -> None:
    name, _, below = path.partition(".")
    if not below:
        setattr(message, name, value)
    elif message.DESCRIPTOR.fields_by_name[name].is_repeated:
        set_field(getattr(message, name).add(), below, value)
    else:
        set_field(getattr(message, name), below, value)


def code_of(
    channel: grpc.Channel, path: str, namespace: str | None = None, token: str | None = None
) -> grpc.StatusCode:
    """The code that an otherwise empty request gets; OK for an answer."""
    method = METHODS.get(path)
    reply = GetMessageClass(method.output_type) if method else health_pb2.HealthCheckResponse
    request = request_to(path, namespace)
    streams = method is not None and method.server_streaming
    kind = channel.unary_stream if streams else channel.unary_unary
    call = kind(
        path, request_serializer=type(request).SerializeToString, response_deserializer=reply.FromString
    )
    try:
        started = call(request, timeout=20, metadata=bearer(token))
        if streams:
            next(iter(started))
            started.cancel()
    except grpc.RpcError as error:
        code: grpc.StatusCode = error.code()
        return code
    return grpc.StatusCode.OK


def bearer(token: str | None) -> list[tuple[str, str]]:
    return [] if token is None else [("authorization", f"Bearer {token}")]


def is_permitted(method: str, role: Role, patterns: list[str], namespace: str | None) -> bool:
    """By the rules as a person would read them, without the code that is tested."""
    roles, access = expected_of(method)
    if role not in roles:
        return False
    if method.endswith("ListEdits") and namespace is None:
        return patterns == ["*"]
    if "AdminService" in method and not method.endswith("EraseFact"):
        return patterns == ["*"]
    if not access or patterns == ["*"]:
        return True
    means = NAMESPACES[namespace]
    return means == "team-a" or (patterns == ["team-*"] and means == "team-b")


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("patterns", PATTERNS)
def test_role_by_method_by_namespace_over_the_wire(
    build: Build, token_file: Principals, role: Role, patterns: str
) -> None:
    own = PATTERNS[patterns]
    # What it may do the other way must not help.
    access = {"read": own, "write": own}
    token = token_file.add("caller", role, **access)
    rig = build(token_file=token_file.path)
    rig.lifecycle.set_caught_up()
    with grpc.insecure_channel(f"unix:{rig.settings.socket}") as channel:
        for method, descriptor in METHODS.items():
            named = NAMESPACES if list(namespace_paths(descriptor.input_type)) else [None]
            for namespace in named:
                refused = code_of(channel, method, namespace, token) is grpc.StatusCode.PERMISSION_DENIED
                permitted = is_permitted(method, role, own, namespace)
                assert refused != permitted, (method, namespace)


@pytest.mark.parametrize(("may", "may_not"), [("read", "write"), ("write", "read")])
def test_reading_and_writing_are_two_rights(
    build: Build, token_file: Principals, may: str, may_not: str
) -> None:
    token = token_file.add("caller", *Role, **{may: ["*"], may_not: ["elsewhere"]})
    rig = build(token_file=token_file.path)
    rig.lifecycle.set_caught_up()
    with grpc.insecure_channel(f"unix:{rig.settings.socket}") as channel:
        for method in METHODS:
            rule = RULES[method].namespaces
            if rule is None or rule.of_result:
                continue
            refused = code_of(channel, method, None, token) is grpc.StatusCode.PERMISSION_DENIED
            assert refused == (rule.access == may_not), method


@pytest.mark.parametrize("role", Role)
def test_roles_of_the_socket(build: Build, role: Role) -> None:
    rig = build(socket_roles=(role,))
    rig.lifecycle.set_caught_up()
    with grpc.insecure_channel(f"unix:{rig.settings.socket}") as channel:
        for method in METHODS:
            refused = code_of(channel, method) is grpc.StatusCode.PERMISSION_DENIED
            assert refused == (role not in expected_of(method)[0]), method


def test_the_sockets_as_they_are_without_settings(rig: Rig) -> None:
    with (
        grpc.insecure_channel(f"unix:{rig.settings.socket}") as client_socket,
        grpc.insecure_channel(f"unix:{rig.settings.admin_socket}") as admin_socket,
    ):
        for method in METHODS:
            refused = code_of(client_socket, method) is grpc.StatusCode.PERMISSION_DENIED
            assert refused == ("AdminService" in method), method
            assert code_of(admin_socket, method) is not grpc.StatusCode.PERMISSION_DENIED, method


def test_a_socket_without_roles_asks_for_a_token(build: Build, token_file: Principals) -> None:
    token = token_file.add("caller", Role.ASKER, read=["default"])
    rig = build(socket_roles=(), token_file=token_file.path)
    rig.lifecycle.set_caught_up()
    method = "/lte.v1.AnswerService/Retrieve"
    with grpc.insecure_channel(f"unix:{rig.settings.socket}") as channel:
        assert code_of(channel, method) is grpc.StatusCode.UNAUTHENTICATED
        assert code_of(channel, method, token=token) is grpc.StatusCode.INVALID_ARGUMENT  # no question
        assert code_of(channel, "/grpc.health.v1.Health/Check") is grpc.StatusCode.OK


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


def test_refusals_say_what_is_needed(build: Build, token_file: Principals) -> None:
    token = token_file.add("bot", Role.ASKER, read=["team-a", "default"])
    rig = build(token_file=token_file.path)
    rig.lifecycle.set_caught_up()
    with token_file.client(rig, token) as client:
        with pytest.raises(Refused, match=r"needs the role publisher; bot \(asker\) has no such role"):
            client.publish([{"subject": "A", "relation": "b", "target": "c"}])
        with pytest.raises(
            Refused, match=r"read namespace 'team-b'; bot \(asker\) may read 'default', 'team-a'"
        ):
            client.answer("What?", namespace="Team-B")
        with pytest.raises(Refused, match="name one of them in the request"):
            client.list_edits()


def test_one_foreign_event_keeps_all_from_being_published(build: Build, token_file: Principals) -> None:
    token = token_file.add("etl", Role.PUBLISHER, write=["team-a", "default"])
    rig = build(token_file=token_file.path)
    event = {"subject": "A", "relation": "b", "target": "c"}
    with token_file.client(rig, token) as client:
        with pytest.raises(Refused, match="write namespace 'team-b'"):
            client.publish([event, {**event, "namespace": "team-b"}, {**event, "namespace": "team-a"}])
        assert rig.publisher.events == []
        assert len(client.publish([event, {**event, "namespace": "Team-A"}])) == 2


FACTS = [
    {"id": "a1", "namespace": "team-a", "subject": "Acme", "relation": "boss", "target": "Ann"},
    {"id": "b1", "namespace": "team-b", "subject": "Acme", "relation": "boss", "target": "Bo"},
    {"id": "same", "namespace": "team-a", "subject": "Acme", "relation": "seat", "target": "Oslo"},
    {"id": "same", "namespace": "team-b", "subject": "Acme", "relation": "seat", "target": "Rome"},
]


def test_an_edit_of_a_foreign_namespace_does_not_exist(build: Build, token_file: Principals) -> None:
    token = token_file.add("bot", Role.ASKER, read=["team-a"])
    rig = build(token_file=token_file.path)
    rig.lifecycle.set_caught_up()
    rig.tell(*FACTS)
    with token_file.client(rig, token) as client:
        assert client.get_edit("a1")["target"] == "Ann"
        # The later one of the same id is another team's.
        assert client.get_edit("same")["target"] == "Oslo"
        assert client.why_not("same")["reason"] == "current"
        for call in (client.get_edit, client.why_not):
            texts = []
            for edit_id in ("b1", "b2"):
                with pytest.raises(NotFound) as caught:
                    call(edit_id)
                texts.append(str(caught.value).replace(edit_id, "ID"))
            assert texts[0] == texts[1]
        assert [edit["id"] for edit in client.list_edits(namespace="team-a")["edits"]] == ["same", "a1"]
        for edit_id in ("b1", "b2"):  # an edit's id is a page token of version 0.1
            with pytest.raises(NotFound):
                client.list_edits(namespace="team-a", page_token=edit_id)


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
