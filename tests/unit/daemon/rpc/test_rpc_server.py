"""Sockets, health, draining, errors: what surrounds the services."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
import threading
from pathlib import Path

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from daemon.client import Client
from daemon.rpc import faults
from daemon.rpc.gen.lte.v1 import answer_service_pb2 as pb
from daemon.rpc.gen.lte.v1 import answer_service_pb2_grpc
from daemon.rpc.server import ListenerSettings, RpcServer, make_way
from lte_runtime import errors
from lte_runtime.private_files import make_state_directory
from tests.unit.daemon.rpc.conftest import Build, Rig

SERVICES = ("", "lte.v1.AnswerService", "lte.v1.EditService")


def states(rig: Rig) -> set[str]:
    with rig.client() as client:
        return {client.health(name) for name in SERVICES}


def test_health_follows_the_lifecycle(build: Build) -> None:
    rig = build()
    assert states(rig) == {"NOT_SERVING"}
    rig.lifecycle.set_catching_up()
    assert states(rig) == {"NOT_SERVING"}
    rig.lifecycle.set_caught_up()
    assert states(rig) == {"SERVING"}
    rig.lifecycle.set_gap("history was trimmed", servable=True)
    assert states(rig) == {"SERVING"}
    rig.lifecycle.set_stopping()
    assert states(rig) == {"NOT_SERVING"}


def test_admin_calls_are_served_while_questions_are_not(build: Build) -> None:
    rig = build()
    with rig.client() as client:
        assert client.health("lte.v1.AdminService") == "SERVING"
        assert client.status()["state"] == "STARTING"
        assert not client.is_serving()


def test_socket_modes(rig: Rig) -> None:
    modes = [stat.S_IMODE(path.stat().st_mode) for path in sockets(rig)]
    assert modes == [0o660, 0o600]


def sockets(rig: Rig) -> list[Path]:
    return [path for path in (rig.settings.socket, rig.settings.admin_socket) if path]


def test_stop_removes_the_sockets_and_may_be_repeated(rig: Rig) -> None:
    rig.server.stop(grace=0)
    assert not any(path.exists() for path in sockets(rig))
    rig.server.stop(grace=0)


def test_a_socket_in_use_is_refused_and_left_alone(rig: Rig) -> None:
    with pytest.raises(errors.Refused, match="another process listens"):
        RpcServer(rig.services, ListenerSettings(socket=rig.settings.socket)).start()
    with rig.client() as client:
        assert client.health() == "SERVING"


def test_a_port_in_use_is_refused_and_binds_nothing(build: Build, short_dir: Path) -> None:
    rig = build(listen="127.0.0.1:0")
    second = ListenerSettings(socket=short_dir / "other.sock", listen=rig.server.tcp_address)
    with pytest.raises(errors.Refused, match="cannot listen"):
        RpcServer(rig.services, second).start()
    assert not (short_dir / "other.sock").exists()


def test_a_stale_socket_is_replaced(short_dir: Path) -> None:
    path = short_dir / "stale.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    assert path.exists()
    make_way(path)
    assert not path.exists()


def test_a_file_in_the_way_is_not_removed(short_dir: Path) -> None:
    path = short_dir / "precious"
    path.write_text("text")
    with pytest.raises(errors.Refused, match="not a socket"):
        make_way(path)
    link = short_dir / "link"
    link.symlink_to(path)
    with pytest.raises(errors.Refused, match="not a socket"):
        make_way(link)
    assert path.read_text() == "text"


def test_a_path_that_is_too_long_is_refused(short_dir: Path) -> None:
    with pytest.raises(errors.Refused, match="longer than"):
        make_way(short_dir / ("x" * 120))


def test_the_umask_is_put_back(rig: Rig) -> None:
    before = os.umask(0o022)
    try:
        server = RpcServer(rig.services, ListenerSettings(socket=sockets(rig)[0].with_name("third.sock")))
        server.start()
        server.stop(grace=0)
        assert os.umask(0o022) == 0o022
    finally:
        os.umask(before)


def test_open_calls_end_before_a_stop(build: Build) -> None:
    rig = build(engine={"token_s": 0.1})
    rig.lifecycle.set_caught_up()
    texts: list[str] = []

    def ask() -> None:
        with rig.client() as client:
            texts.append(client.answer("What?")["text"])

    asking = threading.Thread(target=ask)
    asking.start()
    while rig.engine.stats().running == 0:
        pass
    rig.server.stop(grace=20)
    asking.join(20)
    assert len(texts) == 1


def test_calls_are_told_with_their_codes(rig: Rig) -> None:
    with rig.client() as client:
        client.answer("What?")
        with pytest.raises(errors.NotFound):
            client.get_edit("absent")
    rig.server.stop(grace=5)
    told = [(call.method.rpartition("/")[2], call.code) for call in rig.calls]
    assert told == [("Answer", "OK"), ("GetEdit", "NOT_FOUND")]
    assert all(call.seconds >= 0 for call in rig.calls)


def test_an_oversized_message_is_refused(build: Build) -> None:
    rig = build(max_message_bytes=2048)
    rig.lifecycle.set_caught_up()
    with grpc.insecure_channel(f"unix:{rig.settings.socket}") as channel:
        stub = answer_service_pb2_grpc.AnswerServiceStub(channel)
        with pytest.raises(grpc.RpcError) as caught:
            stub.Answer(pb.AnswerRequest(question="x" * 4096), timeout=20)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


KINDS = [
    (errors.Retry("m"), "UNAVAILABLE"),
    (errors.BadRecord("too_large", "m"), "INVALID_ARGUMENT"),
    (errors.BadRequest("m"), "INVALID_ARGUMENT"),
    (errors.NotFound("m"), "NOT_FOUND"),
    (errors.Refused("m"), "FAILED_PRECONDITION"),
    (errors.Overloaded("m"), "RESOURCE_EXHAUSTED"),
    (errors.DeadlineExceeded("m"), "DEADLINE_EXCEEDED"),
    (errors.Cancelled("m"), "CANCELLED"),
    (errors.Damaged("m"), "DATA_LOSS"),
    (errors.Fatal("secret"), "INTERNAL"),
    (RuntimeError("secret"), "INTERNAL"),
]


@pytest.mark.parametrize(("error", "code"), KINDS)
def test_every_error_has_a_code_and_details(error: Exception, code: str) -> None:
    status = faults.status_of(error)
    assert rpc_status.to_status(status).code.name == code
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert info.domain == "lte-daemon"
    assert status.message
    assert "secret" not in status.message
    retry = [detail for detail in status.details if detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR)]
    assert bool(retry) == (code in ("UNAVAILABLE", "RESOURCE_EXHAUSTED"))


def test_bad_records_keep_their_code() -> None:
    info = error_details_pb2.ErrorInfo()
    faults.status_of(errors.BadRecord("too_large", "m")).details[0].Unpack(info)
    assert info.metadata["code"] == "too_large"


def test_no_admin_address_is_a_bad_request(rig: Rig) -> None:
    with Client(rig.settings.socket) as client, pytest.raises(errors.BadRequest, match="address"):
        client.status()


# What another user could do, a line for each. The interpreter is loaded before the user changes.
OTHER_USER = """
import os, socket, sys
user, group, *paths = sys.argv[1:]
os.setgroups([]), os.setgid(int(group)), os.setuid(int(user))
for path in paths:
    try:
        if path.endswith(".sock"):
            socket.socket(socket.AF_UNIX).connect(path)
        else:
            os.listdir(path) if os.path.isdir(path) else open(path).close()
        print("yes")
    except OSError as error:
        print(type(error).__name__)
"""
GROUP, STRANGER = 54321, 54322


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can run a process as another user")
def test_the_group_of_the_state_directory_may_call_and_read_nothing(build: Build, short_dir: Path) -> None:
    state = short_dir / "state"
    places = (state / "lte.sock", state / "admin.sock", state / "edits.db", state)
    make_state_directory(state)
    os.chown(state, -1, GROUP)
    short_dir.chmod(0o711)
    build(socket=places[0], admin_socket=places[1], group_of=state)
    for group, first in ((GROUP, "yes"), (STRANGER, "PermissionError")):
        command = [sys.executable, "-c", OTHER_USER, "12345", str(group), *map(str, places)]
        ran = subprocess.run(command, capture_output=True, text=True, check=True)
        assert ran.stdout.split() == [first, *["PermissionError"] * 3]
