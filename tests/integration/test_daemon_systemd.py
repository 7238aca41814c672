"""The daemon as systemd runs it: what it tells, when, through a real notify socket."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from daemon_house import House, until

pytestmark = [pytest.mark.kafka, pytest.mark.slow]


def test_systemd_hears_of_start_life_and_stop(make_house: Callable[..., House], tmp_path: Path) -> None:
    address = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as bound:
        bound.bind(address)
        bound.settimeout(120)
        house = make_house(NOTIFY_SOCKET=address).start()
        assert bound.recv(4096) == b"READY=1"
        until(lambda: bound.recv(4096) == b"WATCHDOG=1\nSTATUS=READY", "the watchdog to be fed")
        house.stack.stop_daemon()
        until(lambda: bound.recv(4096) == b"STOPPING=1", "word of the stop")
