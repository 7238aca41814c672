"""Prometheus and Grafana beside `lte up`, where they are installed."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from lte_runtime.private_files import create, make_private
from ops import leftovers
from ops.kafka.broker import free_ports
from ops.monitoring.server import MonitoringError, Prometheus, installed
from ops.ports import is_free

# The usual ports first, so that bookmarks last; another one where they are taken.
_PROMETHEUS_PORTS, _GRAFANA_PORTS = range(9090, 9110), range(3000, 3020)
_GRAFANA = Path(__file__).resolve().parents[1] / "grafana"
_GRAFANA_HOMES = ("/usr/share/grafana", "/usr/local/share/grafana")
_STOP_TIMEOUT_S = 10.0
CHILDREN = "children.json"


@dataclass(frozen=True)
class Monitoring:
    """What runs: addresses by name, and one line for what is missing."""

    addresses: dict[str, str]
    notes: tuple[str, ...]

    def lines(self) -> str:
        """For people, one part a line."""
        parts = [f"{name:<11}{address}" for name, address in self.addresses.items()]
        return "\n".join([*parts, *self.notes])


@contextmanager
def monitoring(directory: Path, metrics: str, gateway: str, *, wanted: bool = True) -> Iterator[Monitoring]:
    """Start what is installed on the metrics at `metrics` and `gateway` (host:port), and stop it at the end.

    `directory` keeps data and logs; what a killed process left running in it is ended first. What does not
    start is noted and stops nobody.
    """
    with ExitStack() as undo:
        yield _start(directory, metrics, gateway, undo) if wanted else Monitoring({}, ())


def _start(directory: Path, metrics: str, gateway: str, undo: ExitStack) -> Monitoring:
    if installed() is None:
        return Monitoring({}, ("no Prometheus on this machine (Debian: apt-get install prometheus)",))
    make_private(directory)
    leftovers.end(directory / CHILDREN)
    prometheus = Prometheus(
        directory / "prometheus", target=metrics, gateway=gateway, port=_free(_PROMETHEUS_PORTS)
    )
    try:
        undo.enter_context(prometheus)
    except MonitoringError as error:
        return Monitoring({}, (str(error),))
    addresses, pids = {"Prometheus": prometheus.url}, {"prometheus": prometheus.pid}
    grafana = _start_grafana(directory / "grafana", prometheus.url, undo)
    if grafana:
        addresses["Grafana"], pids["grafana"] = grafana
    leftovers.note(directory / CHILDREN, pids)
    undo.callback((directory / CHILDREN).unlink, missing_ok=True)
    return Monitoring(addresses, () if grafana else ("no Grafana on this machine",))


def _start_grafana(directory: Path, prometheus: str, undo: ExitStack) -> tuple[str, int] | None:
    """(address, pid); None where Grafana is not installed. It needs some seconds until it answers."""
    binary = shutil.which("grafana") or shutil.which("grafana-server")
    home = next((place for place in _GRAFANA_HOMES if Path(place).is_dir()), None)
    if binary is None or home is None:
        return None
    port = _free(_GRAFANA_PORTS)
    make_private(directory)
    log_file = directory / "grafana.log"
    create(log_file)
    command = [binary, "server"] if Path(binary).name == "grafana" else [binary]
    with log_file.open("ab") as log:
        process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", *command, "--homepath", home],
            env={**os.environ, **_grafana_settings(directory, prometheus, port)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    undo.callback(_end, process)
    return f"http://127.0.0.1:{port}", process.pid


def _grafana_settings(directory: Path, prometheus: str, port: int) -> dict[str, str]:
    """Loopback alone, so everybody on this machine may look without a password. No calls home."""
    return {
        "GF_SERVER_HTTP_ADDR": "127.0.0.1",
        "GF_SERVER_HTTP_PORT": str(port),
        "GF_PATHS_DATA": str(directory / "data"),
        "GF_PATHS_LOGS": str(directory / "logs"),
        "GF_PATHS_PROVISIONING": str(_GRAFANA / "provisioning"),
        "GF_AUTH_ANONYMOUS_ENABLED": "true",
        "GF_ANALYTICS_REPORTING_ENABLED": "false",
        "GF_ANALYTICS_CHECK_FOR_UPDATES": "false",
        "PROMETHEUS_URL": prometheus,
        "DASHBOARDS_PATH": str(_GRAFANA / "dashboards"),
    }


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _free(ports: range) -> int:
    """The first one that is free, or any other."""
    return next((port for port in ports if is_free(port)), None) or free_ports(1)[0]
