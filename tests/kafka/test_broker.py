"""The development broker itself: it never outlives its owner, and keeps its log over restarts."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from kafka_house import until
from real_parts import missing_part

from ops.kafka.broker import BrokerUnavailable, fetch_jars

pytestmark = pytest.mark.kafka
OWNER = """
import sys, time
from pathlib import Path
from ops.kafka.broker import Broker
broker = Broker(Path(sys.argv[1]))
broker.start()
print(broker.pid, flush=True)
time.sleep(600)
"""


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and was not waited for does not."""
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False


def test_it_dies_with_its_owner(tmp_path: Path) -> None:
    try:
        fetch_jars()
    except BrokerUnavailable as error:
        missing_part(str(error))
    command = [sys.executable, "-c", OWNER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=os.getcwd()) as owner:
        assert owner.stdout is not None
        pid = int(owner.stdout.readline())
        assert alive(pid)
        owner.kill()
    until(lambda: not alive(pid))
