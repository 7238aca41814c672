"""The wheel in a clean environment: a daemon from it answers a published fact, and `ops/` is not needed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from kafka_topic import KafkaTopic

pytestmark = [pytest.mark.kafka, pytest.mark.model, pytest.mark.slow, pytest.mark.timeout(1800)]

ROOT = Path(__file__).resolve().parents[2]
START_GUARD_S = 600


def _uv() -> str:
    own = ROOT / ".cache" / "tools" / "bin" / "uv"
    return shutil.which("uv") or str(own)


def _run(*command: str | Path, cwd: Path = ROOT) -> str:
    done = subprocess.run(list(map(str, command)), cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def lte(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`lte` of an environment with the wheel and what the wheel says it needs, at the locked versions."""
    if os.environ.get("LTE_REQUIRE_ALL") != "1":
        pytest.skip("builds and installs the wheel with all it needs, minutes: LTE_REQUIRE_ALL=1 asks for it")
    place = tmp_path_factory.mktemp("wheel")
    _run(_uv(), "build", "--wheel", "-q", "-o", place)
    (wheel,) = place.glob("*.whl")
    locked = place / "locked.txt"
    _run(_uv(), "export", "--frozen", "--no-dev", "--no-emit-project", "--no-hashes", "-q", "-o", locked)
    _run(_uv(), "venv", "-q", "--python", sys.executable, place / "venv")
    python = place / "venv" / "bin" / "python"
    _run(_uv(), "pip", "install", "-q", "--python", python, "-c", locked, wheel)
    return place / "venv" / "bin" / "lte"


class Installed:
    """Runs the installed command in a directory of its own."""

    def __init__(self, lte: Path, directory: Path, topic: KafkaTopic) -> None:
        self.lte = lte
        self.directory = directory
        kept = {name: value for name, value in os.environ.items() if not name.startswith("LTE_")}
        self.environment = kept | {
            "LTE_KAFKA__BOOTSTRAP": topic.bootstrap,
            "LTE_KAFKA__TOPIC": topic.topic,
            "LTE_METRICS__LISTEN": "off",
        }
        self.log = directory / "daemon.log"

    def start(self) -> subprocess.Popen[bytes]:
        with self.log.open("wb") as log:
            return subprocess.Popen(
                [self.lte, "serve"], cwd=self.directory, env=self.environment, stdout=log, stderr=log
            )

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.lte, *arguments],
            cwd=self.directory,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def json(self, *arguments: str) -> Any:
        done = self.run(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


@pytest.fixture
def installed(lte: Path, make_topic: Callable[..., KafkaTopic], tmp_path: Path) -> Iterator[Installed]:
    house = Installed(lte, tmp_path, make_topic())
    daemon = house.start()
    try:
        deadline = time.monotonic() + START_GUARD_S
        while house.run("status", "--check").returncode != 0:
            assert daemon.poll() is None, house.log.read_text("utf-8")
            assert time.monotonic() < deadline, house.log.read_text("utf-8")
            time.sleep(0.5)
        yield house
    finally:
        daemon.terminate()
        assert daemon.wait(timeout=60) == 0


def test_the_wheel_alone_answers_a_published_fact(installed: Installed) -> None:
    fact = ("-s", "Velmora Systems", "-r", "chief executive", "-t", "Ina Torvald")
    assert installed.json("publish", *fact, "--wait")["refused"] == []
    answer = installed.json("ask", "Who is the chief executive of Velmora Systems?")
    assert answer["scope"] == "edited"
    assert answer["citations"][0]["target"] == "Ina Torvald"
    assert "Ina Torvald" in answer["text"]
    assert answer["adapter"]["id"].startswith("align-")


@pytest.mark.parametrize("name", ["up", "demo", "bench"])
def test_commands_of_the_checkout_say_that_they_are_absent(lte: Path, tmp_path: Path, name: str) -> None:
    done = subprocess.run([lte, name], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "checkout" in done.stderr
