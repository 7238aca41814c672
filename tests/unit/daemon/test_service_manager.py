"""What systemd hears, over a real socket of its kind."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from daemon.lifecycle import LifecycleStatus, State
from daemon.service_manager import ServiceManager


@pytest.fixture(params=["path", "abstract"])
def listener(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, socket.socket]]:
    """The address as systemd writes it, and the socket behind it."""
    address = str(tmp_path / "notify")
    if request.param == "abstract":
        address = f"@lte{address}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as bound:
        bound.bind("\0" + address[1:] if address.startswith("@") else address)
        bound.settimeout(10)
        yield address, bound


def test_each_message_is_a_datagram(listener: tuple[str, socket.socket]) -> None:
    address, bound = listener
    manager = ServiceManager.of({"NOTIFY_SOCKET": address})
    manager.ready()
    manager.alive(LifecycleStatus(State.DEGRADED, True, ("no broker\nREADY=0", "older state")))
    manager.stopping()
    assert [bound.recv(4096).decode() for _ in range(3)] == [
        "READY=1",
        "WATCHDOG=1\nSTATUS=DEGRADED (stale): no broker READY=0: older state",
        "STOPPING=1",
    ]


def test_without_a_manager_nothing_is_sent() -> None:
    with capture_logs() as logs:
        ServiceManager.of({}).ready()
    assert logs == []


def test_a_manager_that_is_gone_is_logged_once(tmp_path: Path) -> None:
    manager = ServiceManager(str(tmp_path / "gone"))
    with capture_logs() as logs:
        manager.ready()
        manager.stopping()
    assert [entry["event"] for entry in logs] == ["service_manager_unreachable"]
