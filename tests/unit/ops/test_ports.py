"""The ports of a development stack stay what they are."""

from __future__ import annotations

import socket
from dataclasses import astuple
from pathlib import Path

import pytest

from ops import ports
from ops.ports import Ports, PortTaken


def test_the_ports_are_the_same_at_each_start(tmp_path: Path) -> None:
    path = tmp_path / "ports.json"
    first = Ports.of(path)
    assert len({*astuple(first), 0}) == 7
    assert Ports.of(path) == first
    first.check(path)


def test_a_file_of_before_gets_the_ports_it_lacks_and_keeps_its_own(tmp_path: Path) -> None:
    path = tmp_path / "ports.json"
    path.write_text('{"kafka": 20001, "controller": 20002, "grpc": 20003, "metrics": 20004}')
    ports = Ports.of(path)
    assert astuple(ports)[:4] == (20_001, 20_002, 20_003, 20_004)
    assert ports.http > 0
    assert Ports.of(path) == ports


def test_a_port_in_use_is_named_with_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "FREE_WITHIN_S", 0.0)
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = Ports(20_001, 20_002, other.getsockname()[1], 20_003)
        with pytest.raises(PortTaken, match=rf"port {taken.grpc}, which is grpc's here.*ports\.json"):
            taken.check(tmp_path / "ports.json")
    taken.check(tmp_path / "ports.json")


def test_a_port_that_becomes_free_is_waited_for(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = Ports(20_001, 20_002, other.getsockname()[1], 20_003)
        taken.check(tmp_path / "ports.json", sleep=lambda _: other.close())


@pytest.mark.parametrize("text", ["", "[]", '{"kafka": 1}', '{"kafka": 1, "other": 2}'])
def test_a_damaged_file_is_told(tmp_path: Path, text: str) -> None:
    (tmp_path / "ports.json").write_text(text)
    with pytest.raises(PortTaken, match="remove it"):
        Ports.of(tmp_path / "ports.json")
