"""What the deployment files in ops/ and the Dockerfile say, read for the tests."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import typer
import yaml

from daemon import config
from daemon.cli import exits
from daemon.cli.app import app
from daemon.settings import Settings

ROOT = Path(__file__).resolve().parents[1]
OPS = ROOT / "ops"
DOCKERFILE = (ROOT / "Dockerfile").read_text("utf-8")
IMAGE = "lte-daemon"
Object = dict[str, Any]


def load_yaml(path: Path) -> list[Object]:
    return [document for document in yaml.safe_load_all(path.read_text("utf-8")) if document]


def image_variables() -> dict[str, str]:
    """Settings that the image brings."""
    return dict(re.findall(r"(LTE_\w+)=(\S+)", DOCKERFILE))


def image_user() -> int:
    match = re.search(r"useradd --uid (\d+)", DOCKERFILE)
    assert match
    return int(match[1])


def image_volume() -> str:
    match = re.search(r"^VOLUME (\S+)$", DOCKERFILE, re.M)
    assert match
    return match[1]


def settings_of(variables: Mapping[str, str]) -> Settings:
    """The settings that a container of the image gets from these variables; unknown names raise."""
    return config.load(environ={**image_variables(), **variables}).settings


def port_of(listen: str) -> int:
    return int(listen.rpartition(":")[2])


def below(path: str | Path, mounts: Mapping[str, str]) -> str:
    """The mount, by path, that holds a path; empty when none does."""
    holders = [mount for mount in mounts if Path(path).is_relative_to(mount)]
    return max(holders, key=len, default="")


def refusal(monkeypatch: Any, arguments: list[str]) -> str:
    """What the command line says against the arguments of `lte`; empty when it would run them."""
    context = typer.Context.__mro__[1]
    monkeypatch.setattr(context, "invoke", lambda *_arguments, **_options: None)
    try:
        code = exits.guarded(lambda: app(args=arguments, prog_name="lte"))
    except SystemExit as end:
        code = int(end.code or 0)
    return f"exit {code}: {' '.join(arguments)}" if code else ""


def seconds(text: str) -> float:
    """`2m`, `15min`, `60`, `10min 5s` as seconds."""
    units = {"": 1, "s": 1, "m": 60, "min": 60, "h": 3600}
    return sum(float(n) * units[unit] for n, unit in re.findall(r"(\d+)\s*([a-z]*)", text))


def walk(value: Any) -> Iterator[Object]:
    """All mappings in a document."""
    if isinstance(value, dict):
        yield value
        for item in value.values():
            yield from walk(item)
    elif isinstance(value, list):
        for item in value:
            yield from walk(item)
