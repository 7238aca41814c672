"""A Prometheus beside a daemon: Debian's binary as a child, and what it answers."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from daemon.settings import OFF
from lte_runtime.private_files import create, make_private

CONFIGURATION = Path(__file__).resolve().parents[1] / "prometheus"
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 20.0
_REQUEST_TIMEOUT_S = 30.0


class MonitoringError(RuntimeError):
    """Prometheus is missing, did not start, or refused a query; the message says why."""


@dataclass(frozen=True)
class Series:
    """Samples (seconds since the epoch, value) of one set of labels, without values that are no numbers."""

    labels: Mapping[str, str]
    samples: Sequence[tuple[float, float]]


def installed() -> str | None:
    """Where Prometheus is installed; None where it is not."""
    return shutil.which("prometheus")


class Prometheus:
    """Scrapes one daemon and its gateway (host:port, or off) with the rules of `ops/prometheus`.

    Data and log lie in `directory`.

    The child dies with the thread that starts it.
    """

    def __init__(
        self, directory: Path, *, target: str, gateway: str, port: int, scrape_s: float = 15.0
    ) -> None:
        self.directory, self.port, self._scrape_s = directory, port, scrape_s
        self._targets = {"lte": target, "lte-gateway": gateway}
        self.log_file = directory / "prometheus.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def rate_interval(self) -> str:
        """What Grafana puts in for `$__rate_interval`: four scrapes."""
        return f"{max(4, math.ceil(4 * self._scrape_s))}s"

    @property
    def pid(self) -> int:
        if self._process is None:
            raise MonitoringError("Prometheus is not running")
        return self._process.pid

    def start(self) -> None:
        """Start and wait until it answers. Raises `MonitoringError`."""
        binary = installed()
        if binary is None:
            raise MonitoringError("prometheus is not installed (Debian: apt-get install prometheus)")
        make_private(self.directory)
        self._write_configuration()
        create(self.log_file)
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", binary, *self._options()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._await_answer()

    def stop(self) -> None:
        """SIGTERM, then SIGKILL after the grace; harmless when it is not running."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def __enter__(self) -> Prometheus:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def series(self, expr: str, start: float, end: float, step_s: float) -> list[Series]:
        """A range query with Grafana's variables filled in. Raises `MonitoringError` with the reason."""
        query = expr.replace("$__rate_interval", self.rate_interval).replace("$instance", ".*")
        values = {"query": query, "start": start, "end": end, "step": step_s}
        rows = self._get("/api/v1/query_range", values)["result"]
        return [Series(row["metric"], _numbers(row["values"])) for row in rows]

    def alerts(self) -> list[str]:
        """Names of the alerts that are pending or fire now."""
        return sorted({alert["labels"]["alertname"] for alert in self._get("/api/v1/alerts", {})["alerts"]})

    def _get(self, path: str, values: Mapping[str, object]) -> Any:
        url = f"{self.url}{path}?{urllib.parse.urlencode(values)}"
        try:
            with urllib.request.urlopen(url, timeout=_REQUEST_TIMEOUT_S) as reply:
                return json.load(reply)["data"]
        except urllib.error.HTTPError as error:
            raise MonitoringError(f"{values.get('query', path)}: {error.read().decode()}") from error
        except OSError as error:
            raise MonitoringError(f"{self.url} does not answer: {error}") from error

    def _write_configuration(self) -> None:
        """JSON is YAML."""
        every = f"{self._scrape_s:g}s"
        configuration = {
            "global": {"scrape_interval": every, "scrape_timeout": every, "evaluation_interval": every},
            "rule_files": [str(CONFIGURATION / "lte.rules.yaml")],
            "scrape_configs": [
                {"job_name": job, "static_configs": [{"targets": [target]}]}
                for job, target in self._targets.items()
                if target != OFF
            ],
        }
        text = json.dumps(configuration, indent=2)
        (self.directory / "prometheus.yaml").write_text(text, encoding="utf-8")

    def _options(self) -> list[str]:
        return [
            f"--config.file={self.directory / 'prometheus.yaml'}",
            f"--storage.tsdb.path={self.directory / 'data'}",
            f"--web.listen-address=127.0.0.1:{self.port}",
            f"--web.external-url={self.url}",
            f"--web.user-assets={CONFIGURATION / 'user'}",
        ]

    def _await_answer(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            if self._process is None or self._process.poll() is not None:
                raise MonitoringError(f"Prometheus ended at its start; its log is {self.log_file}")
            try:
                with urllib.request.urlopen(f"{self.url}/-/ready", timeout=1.0):
                    return
            except OSError:
                time.sleep(0.1)
        self.stop()
        raise MonitoringError(f"Prometheus did not answer in {START_TIMEOUT_S:.0f} s; see {self.log_file}")


def _numbers(values: Sequence[tuple[float, str]]) -> list[tuple[float, float]]:
    return [(float(time_s), float(value)) for time_s, value in values if math.isfinite(float(value))]
