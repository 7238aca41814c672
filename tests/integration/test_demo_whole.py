"""`make demo` with its re-alignment, on both embedded models: every step as promised. Five minutes each."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytestmark = [pytest.mark.kafka, pytest.mark.slow]
HANGS_S = 1800


@pytest.mark.skipif(os.environ.get("LTE_LONG") != "1", reason="trains for minutes: LTE_LONG=1 asks for it")
@pytest.mark.timeout(HANGS_S)
@pytest.mark.parametrize("arch", ["llama", "qwen2"])
def test_every_step_of_the_whole_demo_is_as_promised(arch: str) -> None:
    command = [sys.executable, "-m", "daemon", "demo", "--arch", arch]
    done = subprocess.run(command, capture_output=True, text=True, timeout=HANGS_S)
    assert done.returncode == 0, done.stdout[-4000:]
    assert "every step was as promised" in done.stdout
