"""The wheel in a clean environment, without `ops/` and the development dependencies: its modules can be
imported, a daemon from it answers a published fact, and its alignment job runs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from daemon_house import fact
from real_parts import QWEN2_SETTINGS

if TYPE_CHECKING:
    from kafka_topic import KafkaTopic

pytestmark = [pytest.mark.kafka, pytest.mark.model, pytest.mark.slow, pytest.mark.timeout(1800)]

ROOT = Path(__file__).resolve().parents[2]
START_GUARD_S = 600
PACKAGES = ("lte_runtime", "daemon")
# One module at the least of each development dependency that the product could import by mistake.
DEVELOPMENT = ("ops", "tests", "chromadb", "grpc_tools", "hypothesis", "lm_eval", "pytest")
IMPORT_ALL = """
import importlib, importlib.util, json, pkgutil, sys

packages, absent = json.loads(sys.argv[1])
for name in packages:
    path = importlib.import_module(name).__path__
    for module in pkgutil.walk_packages(path, f"{name}."):
        # It calls the command; `python -m daemon` is tried by itself.
        if module.name != "daemon.__main__":
            importlib.import_module(module.name)
            print(module.name)
present = [name for name in absent if importlib.util.find_spec(name)]
assert not present, f"this environment has {present}"
"""
# The wheel's daemon with models that need no weights; facts may be trained on at once.
STUB_DAEMON = {
    "LTE_ENCODER__MODEL": "stub",
    "LTE_MODEL__PATH": "stub",
    "LTE_KAFKA__CONTROL_TOPIC": "off",
    "LTE_KAFKA__AUDIT_TOPIC": "off",
    "LTE_KAFKA__ADAPTERS_TOPIC": "off",
    "LTE_REALIGN__MIN_FACT_AGE_S": "0",
}


def _uv() -> str:
    own = ROOT / ".cache" / "tools" / "bin" / "uv"
    return shutil.which("uv") or str(own)


def _clean_environment(**settings: str) -> dict[str, str]:
    """The environment of the tests without what points at the checkout or configures a daemon, and with
    compiled modules written: several processes import the same ones."""
    left_out = ("LTE_", "PYTHONPATH", "PYTHONDONTWRITEBYTECODE")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(left_out)}
    return inherited | settings


def _run(*command: str | Path, cwd: Path = ROOT) -> str:
    done = subprocess.run(
        list(map(str, command)),
        cwd=cwd,
        env=_clean_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if os.environ.get("LTE_REQUIRE_ALL") != "1":
        pytest.skip("builds and installs the wheel with all it needs, minutes: LTE_REQUIRE_ALL=1 asks for it")
    directory = tmp_path_factory.mktemp("wheel")
    _run(_uv(), "build", "--wheel", "-q", "-o", directory)
    (built,) = directory.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def lte(wheel: Path) -> Path:
    """`lte` of an environment with the wheel and what the wheel says it needs, at the locked versions.

    Installed from the lock and then checked against the wheel's metadata: a resolution would compile hnswlib
    again, only to read what it depends on.
    """
    locked, venv = wheel.parent / "locked.txt", wheel.parent / "venv"
    # Without the group `model` too: its package lacks what it requires.
    alone = ("--no-default-groups", "--no-emit-project")
    _run(_uv(), "export", "--locked", *alone, "--no-hashes", "-q", "-o", locked)
    _run(_uv(), "venv", "-q", "--python", sys.executable, venv)
    _run(_uv(), "pip", "install", "-q", "--python", venv, "--no-deps", "-r", locked, wheel)
    _run(_uv(), "pip", "check", "-q", "--python", venv)
    return venv / "bin" / "lte"


@pytest.fixture(scope="module")
def python(lte: Path) -> Path:
    return lte.with_name("python")


class Installed:
    """Runs the installed command in a directory of its own."""

    def __init__(self, lte: Path, directory: Path, topic: KafkaTopic, settings: Mapping[str, str]) -> None:
        self.lte = lte
        self.directory = directory
        self.environment = _clean_environment(
            LTE_KAFKA__BOOTSTRAP=topic.bootstrap,
            LTE_KAFKA__TOPIC=topic.topic,
            LTE_METRICS__LISTEN="off",
            **{**QWEN2_SETTINGS, **settings},
        )
        self.log = directory / "daemon.log"
        self.daemon: subprocess.Popen[bytes] | None = None

    def start(self) -> Installed:
        with self.log.open("wb") as log:
            self.daemon = subprocess.Popen(
                [self.lte, "serve"], cwd=self.directory, env=self.environment, stdout=log, stderr=log
            )
        deadline = time.monotonic() + START_GUARD_S
        while self.run("status", "--check").returncode != 0:
            assert self.daemon.poll() is None, self.log.read_text("utf-8")
            assert time.monotonic() < deadline, self.log.read_text("utf-8")
            time.sleep(0.5)
        return self

    def stop(self) -> None:
        if self.daemon is not None:
            self.daemon.terminate()
            assert self.daemon.wait(timeout=60) == 0

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
def installed(
    lte: Path, make_topic: Callable[..., KafkaTopic], tmp_path: Path
) -> Iterator[Callable[..., Installed]]:
    """A running daemon of the wheel: `installed(LTE_...="...")`, once a test."""
    daemons: list[Installed] = []

    def start(**settings: str) -> Installed:
        daemons.append(Installed(lte, tmp_path, make_topic(), settings))
        return daemons[-1].start()

    yield start
    for daemon in daemons:
        daemon.stop()


def test_the_wheel_holds_the_two_packages_and_all_their_files(wheel: Path) -> None:
    files = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    checkout = {
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and path.parent.name != "__pycache__"
    }
    assert files == checkout
    # What is read at run time and is not Python; the comparison above holds the names of all.
    assert "lte_runtime/align/stock/facts/relations.json" in files
    assert "lte_runtime/answer/scope/gate_default.json" in files
    assert "lte_runtime/answer/scope/cross_encoder.safetensors" in files
    assert "lte_runtime/templates/en.toml" in files


def test_every_module_of_the_wheel_can_be_imported(python: Path, wheel: Path, tmp_path: Path) -> None:
    names = json.dumps([PACKAGES, DEVELOPMENT])
    imported = set(_run(python, "-I", "-c", IMPORT_ALL, names, cwd=tmp_path).split())
    sources = (name for name in zipfile.ZipFile(wheel).namelist() if name.endswith(".py"))
    modules = {name.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for name in sources}
    assert imported == modules - {*PACKAGES, "daemon.__main__"}
    assert _run(python, "-I", "-m", "daemon", "--version", cwd=tmp_path).startswith("lte-daemon ")


def test_the_wheel_alone_answers_a_published_fact(installed: Callable[..., Installed]) -> None:
    daemon = installed()
    values = ("-s", "Velmora Systems", "-r", "chief executive", "-t", "Ina Torvald")
    assert daemon.json("publish", *values, "--wait")["refused"] == []
    answer = daemon.json("ask", "Who is the chief executive of Velmora Systems?")
    assert answer["scope"] == "edited"
    assert answer["citations"][0]["target"] == "Ina Torvald"
    assert "Ina Torvald" in answer["text"]
    assert answer["adapter"]["id"].startswith("align-")


def test_the_wheel_alone_trains_with_the_stub_job(
    installed: Callable[..., Installed], python: Path, tmp_path: Path
) -> None:
    """The daemon runs the job; then its command runs alone on the directory that the daemon wrote."""
    daemon = installed(**STUB_DAEMON)
    facts = tmp_path / "facts.jsonl"
    rows = (json.dumps(fact(f"Quay {number}", f"Owner {number}")) for number in range(80))
    facts.write_text("\n".join(rows), encoding="utf-8")
    assert daemon.json("publish", str(facts), "--wait")["refused"] == []
    run = daemon.json("realign", "--wait", "--reason", "a trial")
    assert (run["state"], run["verdict"]["outcome"]) == ("done", "promote")
    (job_dir,) = tmp_path.rglob(run["id"])
    result = job_dir / "result.json"
    before = json.loads(result.read_text("utf-8"))
    result.unlink()
    _run(python, "-I", "-m", "lte_runtime.align.stub_job", job_dir, cwd=tmp_path)
    assert json.loads(result.read_text("utf-8")) == before
    assert (job_dir / before["adapter"] / "adapter_model.safetensors").is_file()


@pytest.mark.parametrize(
    "command", ["up", "demo", "bench", "eval --help", "eval knowedit --limit 1", "gate --help"]
)
def test_commands_of_the_checkout_say_that_they_are_absent(lte: Path, tmp_path: Path, command: str) -> None:
    done = subprocess.run(
        [lte, *command.split()],
        cwd=tmp_path,
        env=_clean_environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "lives in the project's checkout" in done.stderr
    assert f".venv/bin/lte {command.split()[0]}" in done.stderr
