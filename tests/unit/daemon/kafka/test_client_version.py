"""The daemon uses private parts of kafka-python, so it refuses versions that these were not read in."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import kafka
import pytest

from daemon.kafka.client_internals import END_VERSION, FIRST_VERSION, check_version
from lte_runtime.errors import Refused

ROOT = Path(__file__).resolve().parents[4]


@pytest.mark.parametrize("version", ["3.0.12", "3.0.13", "3.0.99", kafka.__version__])
def test_versions_of_the_range_are_accepted(version: str) -> None:
    check_version(version)


@pytest.mark.parametrize("version", ["2.2.15", "3.0.11", "3.1.0", "3.1.0.dev1", "4.0", "unknown"])
def test_another_version_is_refused_with_what_to_do(version: str) -> None:
    with pytest.raises(Refused, match=rf"kafka-python {version} is installed.*pip install"):
        check_version(version)


def test_the_range_is_the_one_that_is_installed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    first, end = (".".join(map(str, version)) for version in (FIRST_VERSION, END_VERSION))
    assert f"kafka-python>={first},<{end}" in project["dependencies"]


def test_a_command_ends_with_the_reason_and_the_code_of_a_refusal(tmp_path: Path) -> None:
    script = (
        "import sys, kafka\n"
        "kafka.__version__ = '3.1.0'\n"
        "sys.argv = ['lte', 'publish', '-s', 'Acme', '-r', 'CEO', '-t', 'Ada']\n"
        "from daemon.cli import main\n"
        "main()\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 5, ended.stderr
    assert ended.stderr.startswith("error: kafka-python 3.1.0 is installed")
