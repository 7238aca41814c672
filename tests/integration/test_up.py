"""`lte up` as a process: killed and started again, and started where something is in the way."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from daemon_house import fact, question, targets, until
from openai import OpenAI
from real_parts import missing_part

from daemon.client import Client
from daemon.kafka.publisher import Publisher, PublisherSettings
from daemon.realign.runner import started_at
from ops.demo.session import marks
from ops.kafka.broker import Broker, missing_tools
from ops.monitoring.server import installed

Start = Callable[..., subprocess.Popen[str]]
Child = dict[str, Any]
STUB_MODELS = '[encoder]\nmodel = "stub"\n[model]\npath = "stub"\n'

STAYS = {"daemon.log", "gateway.log", "kafka", "lock", "ports.json", "principals.toml", "state", "token"}


@pytest.fixture
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("up")
    (place / "lte.toml").write_text(STUB_MODELS, "utf-8")
    return place / ".lte"


@pytest.fixture
def start(directory: Path) -> Iterator[Start]:
    """Starts a command of `lte` in the directory above; whatever still runs at the end is stopped."""
    if missing := missing_tools():
        missing_part(f"missing: {', '.join(missing)}")
    processes: list[subprocess.Popen[str]] = []

    def run(*command: str, **environment: str) -> subprocess.Popen[str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("LTE_")}
        process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "daemon",
                *(command or ("up", "--dir", str(directory), "--no-monitoring")),
            ],
            env={**inherited, **environment},
            cwd=directory.parent,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        processes.append(process)
        return process

    yield run
    for process in reversed(processes):
        process.terminate()
        process.communicate(timeout=120)


def places(process: subprocess.Popen[str], directory: Path) -> dict[str, str]:
    """The addresses, once `lte up` says READY."""
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if "READY" in line:
            addresses: dict[str, str] = json.loads((directory / "up.json").read_text("utf-8"))
            return addresses
    raise AssertionError("".join(lines))


def children(directory: Path) -> dict[str, Child]:
    content: dict[str, Child] = json.loads((directory / "children.json").read_text("utf-8"))["children"]
    return content


def alive(child: Child) -> bool:
    """Whether exactly this process runs; one that is dead and not yet collected does not."""
    path = Path(f"/proc/{child['pid']}/stat")
    if not path.exists() or started_at(child["pid"]) != child["started"]:
        return False
    return path.read_text("ascii").rpartition(")")[2].split()[0] != "Z"


def test_after_a_kill_the_next_start_serves_the_same_producers(directory: Path, start: Start) -> None:
    first = start()
    addresses = places(first, directory)
    with Publisher(PublisherSettings(addresses["kafka"], addresses["topic"])) as publisher:
        publisher.publish([fact("Quorvane", "Ann")])
        old = children(directory)
        first.kill()
        first.wait()
        until(lambda: not any(map(alive, old.values())), "the children to die with their parent")
        second = start()
        assert places(second, directory) == addresses
        sent = publisher.publish([fact("Quorvane", "Bea", revision=2)])
    with Client(addresses["socket"]) as client:
        answer = client.answer(question("Quorvane"), at_least=marks(sent))
    assert targets(answer) == ["Bea"]
    new = children(directory)
    second.send_signal(signal.SIGINT)
    assert second.wait(timeout=120) == 0
    assert not any(map(alive, new.values()))
    assert {path.name for path in directory.iterdir()} == STAYS


def test_ctrl_c_during_the_start_leaves_nothing(directory: Path, start: Start) -> None:
    process = start()
    until(lambda: (directory / "children.json").exists() and "daemon" in children(directory), "the daemon")
    started = children(directory)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=120) == 0
    assert not any(map(alive, started.values()))
    assert {path.name for path in directory.iterdir()} == {
        *(STAYS - {"gateway.log"}),
    }


def test_files_of_a_stack_are_private(directory: Path, start: Start) -> None:
    places(start(), directory)
    state = directory / "state"
    modes = {path: stat.S_IMODE(path.lstat().st_mode) for path in state.rglob("*")}
    wrong = {p: oct(m) for p, m in modes.items() if m != (0o700 if p.is_dir() else 0o600)}
    assert modes
    assert not wrong
    assert stat.S_IMODE(state.stat().st_mode) == 0o710
    assert stat.S_IMODE((directory / "kafka").stat().st_mode) == 0o700


def test_a_daemon_of_somebody_else_on_the_state_is_named_and_left_alone(
    directory: Path, start: Start
) -> None:
    state = directory / "state"
    other = start("serve", "--state-dir", str(state), "--metrics", "off", "--bootstrap", "127.0.0.1:1")
    until(lambda: (state / "lock").exists() and (state / "lock").stat().st_size, "the daemon's lock")
    until(lambda: str(other.pid) in (state / "lock").read_text(), "the owner's name")
    until((state / "edits.db").exists, "the daemon to hold its state")
    up = start()
    output, _ = up.communicate(timeout=120)
    assert up.returncode == 5
    assert f"in use by pid {other.pid}" in output
    assert "READY" not in output
    assert other.poll() is None


def test_a_second_start_in_the_directory_is_refused_and_harms_nothing(directory: Path, start: Start) -> None:
    first = start()
    addresses = places(first, directory)
    output, _ = start().communicate(timeout=120)
    assert f"in use by pid {first.pid}" in output
    assert json.loads((directory / "up.json").read_text()) == addresses
    with Client(addresses["socket"]) as client:
        assert client.is_serving()


def test_a_port_in_use_is_named_and_not_exchanged(directory: Path, start: Start) -> None:
    directory.mkdir()
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        ports = {"kafka": port, "controller": 20001, "grpc": 20002, "metrics": 20003}
        (directory / "ports.json").write_text(json.dumps(ports))
        up = start()
        output, _ = up.communicate(timeout=120)
    assert up.returncode == 1
    assert f"port {port}, which is kafka's here" in " ".join(output.split())
    assert "READY" not in output


def test_settings_and_a_broker_that_is_there_are_used(directory: Path, start: Start, broker: Broker) -> None:
    """Settings of the file and of the environment hold; nothing is started but daemon and gateway."""
    (directory.parent / "lte.toml").write_text(STUB_MODELS + '[kafka]\ntopic = "up.facts"\n', "utf-8")
    up = start(
        *("up", "--dir", str(directory), "--kafka", broker.bootstrap, "--no-monitoring"),
        LTE_KAFKA__DLQ_TOPIC="up.dead",
        LTE_KAFKA__AUDIT_TOPIC="off",
        LTE_KAFKA__GROUP_ID="up-settings",
        LTE_METRICS__LISTEN="off",
        LTE_STATE_DIR=str(directory.parent / "state"),
    )
    addresses = places(up, directory)
    assert (addresses["kafka"], addresses["topic"]) == (broker.bootstrap, "up.facts")
    assert addresses["metrics"] == "off"
    assert set(children(directory)) == {"daemon", "gateway"}
    with Publisher(PublisherSettings(broker.bootstrap, "up.facts")) as publisher:
        sent = publisher.publish([fact("Quorvane", "Ann")])
    with Client(addresses["socket"]) as client:
        assert targets(client.answer(question("Quorvane"), at_least=marks(sent))) == ["Ann"]
    assert (directory.parent / "state" / "edits.db").exists()
    assert not (directory / "kafka").exists()
    up.send_signal(signal.SIGINT)
    assert up.wait(timeout=120) == 0
    assert broker.code is None


def test_the_gateway_serves_and_its_token_is_private(directory: Path, start: Start) -> None:
    up = start()
    addresses = places(up, directory)
    token_file = Path(addresses["token_file"])
    assert stat.S_IMODE(token_file.stat().st_mode) == 0o600
    assert up.stdout is not None
    token = token_file.read_text("ascii").strip()
    assert any(token in line for line in up.stdout)
    with urllib.request.urlopen(f"{addresses['http']}/readyz", timeout=30) as reply:
        assert reply.status == 200
    with OpenAI(base_url=f"{addresses['http']}/v1", api_key="none of ours") as client:
        messages: Any = [{"role": "user", "content": "What is the capital of Kenya?"}]
        assert client.chat.completions.create(model="lte", messages=messages).choices[0].message.content
    up.send_signal(signal.SIGINT)
    assert up.wait(timeout=120) == 0
    places(start(), directory)
    assert token_file.read_text("ascii").strip() == token


def test_without_a_gateway_there_is_no_token(directory: Path, start: Start) -> None:
    addresses = places(start(LTE_GATEWAY__LISTEN="off"), directory)
    assert (addresses["http"], addresses["token_file"]) == ("off", "")
    assert set(children(directory)) == {"daemon", "broker"}


def test_the_model_of_the_flag_serves(directory: Path, start: Start) -> None:
    (directory.parent / "lte.toml").write_text('[encoder]\nmodel = "stub"\n', "utf-8")
    addresses = places(start("up", "--dir", str(directory), "--model", "stub", "--no-monitoring"), directory)
    with Client(addresses["socket"], admin_address=addresses["admin_socket"]) as client:
        assert client.status()["engine"]["model"] == "stub"


def test_a_broker_that_does_not_answer_is_named(directory: Path, start: Start) -> None:
    up = start("up", "--dir", str(directory), "--kafka", "127.0.0.1:1")
    output, _ = up.communicate(timeout=120)
    assert up.returncode == 3
    assert "no broker answers at 127.0.0.1:1" in output


def test_contradicting_settings_start_nothing(directory: Path, start: Start) -> None:
    up = start("up", "--dir", str(directory), "--kafka", "a:1", LTE_KAFKA__BOOTSTRAP="b:1")
    output, _ = up.communicate(timeout=120)
    assert up.returncode == 2
    assert "contradicts kafka.bootstrap" in output
    assert not directory.exists()


def test_prometheus_is_started_beside_it_and_ends_with_it(directory: Path, start: Start) -> None:
    if installed() is None:
        missing_part("Prometheus is not installed: apt-get install prometheus")
    up = start("up", "--dir", str(directory))
    places(up, directory)
    assert up.stdout is not None
    address = next(line.split()[1] for line in up.stdout if line.startswith("Prometheus "))

    def scraped() -> bool:
        with urllib.request.urlopen(f"{address}/api/v1/query?query=lte_state", timeout=10) as reply:
            return bool(json.load(reply)["data"]["result"])

    until(scraped, "the daemon's metrics in Prometheus")
    with urllib.request.urlopen(f"{address}/user/runbook.html", timeout=10) as reply:
        assert b'id="ltegap"' in reply.read()
    started = json.loads((directory / "monitoring" / "children.json").read_text("utf-8"))["children"]
    up.send_signal(signal.SIGINT)
    assert up.wait(timeout=120) == 0
    assert "prometheus" in started
    assert not any(map(alive, started.values()))
