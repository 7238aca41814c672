"""`make demo`: every step as promised, on the default model; with its re-alignment on two, minutes each."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from real_parts import missing_part

from lte_runtime.models.resolve import shipped_adapter

pytestmark = [pytest.mark.kafka, pytest.mark.slow]
HANGS_S = 1800


def played(*flags: str) -> None:
    command = [sys.executable, "-m", "daemon", "demo", *flags]
    done = subprocess.run(command, capture_output=True, text=True, timeout=HANGS_S)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert "every step was as promised" in done.stdout


@pytest.mark.timeout(HANGS_S)
@pytest.mark.usefixtures("smollm2_cache")
def test_every_step_of_the_fast_demo_is_as_promised() -> None:
    if shipped_adapter("smollm2") is None:
        missing_part("no adapter ships for smollm2, and the demo's promises are those of an aligned model")
    played("--fast")


@pytest.mark.skipif(os.environ.get("LTE_LONG") != "1", reason="trains for minutes: LTE_LONG=1 asks for it")
@pytest.mark.timeout(HANGS_S)
@pytest.mark.parametrize("arch", ["llama", "qwen2"])
def test_every_step_of_the_whole_demo_is_as_promised(arch: str) -> None:
    played("--arch", arch)
