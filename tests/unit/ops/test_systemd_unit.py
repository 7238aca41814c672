"""ops/systemd: systemd takes the unit, and its commands, settings and times are the product's."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from deployment import OPS, seconds

from daemon import build, config
from daemon.cli import exits

UNIT = OPS / "systemd/lte-daemon.service"
SYSUSERS = OPS / "systemd/lte-daemon.sysusers"


def values(name: str, section: str = "Service") -> list[str]:
    """All values of a key; it may stand there several times."""
    text, current = [], ""
    for line in UNIT.read_text("utf-8").splitlines():
        if line.startswith("["):
            current = line.strip("[]")
        elif current == section and line.startswith(f"{name}="):
            text.append(line.partition("=")[2])
    return text


def value(name: str) -> str:
    (only,) = values(name)
    return only


def variables() -> dict[str, str]:
    pairs = (entry.partition("=") for entry in values("Environment"))
    return {name: text for name, _, text in pairs}


def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd is not installed")
    program = tmp_path / "lte"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text("utf-8").replace("/opt/lte/bin/lte", str(program)), "utf-8")
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_user_is_made(tmp_path: Path) -> None:
    if shutil.which("systemd-sysusers") is None:
        pytest.skip("systemd is not installed")
    (tmp_path / "etc").mkdir()
    subprocess.run(["systemd-sysusers", f"--root={tmp_path}", str(SYSUSERS)], check=True, timeout=60)
    users = (tmp_path / "etc/passwd").read_text("utf-8")
    assert f"{value('User')}:x:" in users
    assert ":/var/lib/lte:" in users


def test_commands_are_those_of_the_command_line() -> None:
    commands = [shlex.split(line)[1:] for name in ("ExecStartPre", "ExecStart") for line in values(name)]
    assert commands == [["config", "check"], ["serve"]]


def test_settings_exist_and_lie_where_the_unit_may_write(tmp_path: Path) -> None:
    file = tmp_path / "lte.toml"
    file.touch()
    settings = config.load(environ=variables() | {"LTE_CONFIG": str(file)}).settings
    assert settings.state_dir == Path("/var/lib", value("StateDirectory"), "state")
    assert settings.model.cache == Path("/var/cache", value("CacheDirectory"), "models")


def test_the_watchdog_is_fed_often_enough() -> None:
    assert (value("Type"), value("NotifyAccess")) == ("notify", "main")
    assert seconds(value("WatchdogSec")) > 10 * build.TICK_S


def test_a_stop_has_its_time() -> None:
    assert seconds(value("TimeoutStopSec")) > 2 * config.load(environ={}).settings.rpc.drain_s


def test_what_an_operator_must_mend_is_not_tried_again() -> None:
    assert set(map(int, value("RestartPreventExitStatus").split())) == {exits.USAGE, exits.REFUSED}
    assert value("Restart") == "on-failure"


def test_the_models_compilers_may_write_code() -> None:
    """OpenVINO and oneDNN generate machine code: with this protection they end the process."""
    assert values("MemoryDenyWriteExecute") == []
