"""What the tests of the vLLM engine run on: a real server where LTE_TEST_VLLM names its environment (made by
ops/vllm/install.sh), else the stand-in."""

from __future__ import annotations

import os
import signal
import subprocess
import time
import urllib.request
from pathlib import Path
from typing import Protocol

from real_parts import QWEN2, QWEN2_ADAPTER
from vllm_stand_in import StandIn, free_port

from lte_runtime import embedded
from lte_runtime.models.resolve import converted

ROOT = Path(__file__).resolve().parents[1]
ENVIRONMENT = os.environ.get("LTE_TEST_VLLM", "")
START_S = 300.0
"""A server of a small model starts in 35 s where the machine is quiet."""


class Server(Protocol):
    """A vLLM server that can be started again after `kill`, at the same address."""

    @property
    def url(self) -> str: ...

    def start(self) -> None: ...

    def kill(self) -> None: ...


class RealServer:
    """vLLM on the CPU, as ops/vllm/serve.sh starts it. `start` waits until it answers."""

    def __init__(self, environment: Path, model: Path, log: Path) -> None:
        self._environment, self._model, self._log = environment, model, log
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        # In float32 its answers can be held against those of transformers.
        options = ["--port", str(self._port), "--dtype", "float32", "--served-model-name", "base"]
        command = [str(ROOT / "ops/vllm/serve.sh"), str(self._environment), str(self._model), *options]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        end = time.monotonic() + START_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > end:
                self.kill()
                raise AssertionError(
                    f"vLLM did not start:\n{self._log.read_text('utf-8', 'replace')[-4000:]}"
                )
            time.sleep(0.5)

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/health", timeout=5) as reply:
                return bool(reply.status == 200)
        except OSError:
            return False

    def kill(self) -> None:
        """SIGKILL for the server and the processes of its engine."""
        process, self._process = self._process, None
        if process is not None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


class Subject:
    """A server with its model and an adapter that was aligned for it; not started."""

    def __init__(self, directory: Path) -> None:
        self.server: Server
        if ENVIRONMENT:
            self.model = converted("smollm2")
            self.adapter = Path(embedded.__file__).parent / "smollm2" / "adapters" / "align-000001"
            self.server = RealServer(Path(ENVIRONMENT), self.model, directory / "vllm.log")
        else:
            self.model, self.adapter = QWEN2, QWEN2_ADAPTER
            self.server = StandIn(QWEN2, base="qwen2", max_rank=64, token_s=0.005)
