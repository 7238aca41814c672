"""A development stack: one real Kafka broker and one daemon as child processes of this one."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType

from daemon.kafka.connection import Security
from daemon.kafka.topics import BROKERS_CHOICE, TopicPlan, create_missing, plans
from daemon.settings import OFF
from lte_runtime.private_files import create, make_state_directory
from ops import leftovers
from ops.kafka.broker import Broker
from ops.ports import Ports

START_TIMEOUT_S = 300.0
STOP_TIMEOUT_S = 30.0
CHILDREN = "children.json"
PRINCIPALS = "principals.toml"
KAFKA_TIMEOUT_S = 15.0
_NO_FILE_LIMIT = 1 << 62


class StackError(RuntimeError):
    """The broker or the daemon did not come up; the message holds the end of its log."""


@dataclass(frozen=True)
class Addresses:
    """Where the parts listen; what `up.json` holds.

    `http` is the gateway's URL, or off. `token_file` holds the token that writes over HTTP and calls over TCP
    need; empty where the settings bring tokens of their own.
    """

    kafka: str
    topic: str
    grpc: str
    socket: str
    admin_socket: str
    metrics: str
    http: str
    gateway_metrics: str
    token_file: str

    def write(self, path: Path) -> None:
        """Appear by rename, so that a reader never sees half a file."""
        temporary = path.with_suffix(".tmp")
        temporary.write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")
        temporary.replace(path)


@dataclass(frozen=True)
class RunningKafka:
    """A Kafka that is there already, and goes on running."""

    bootstrap: str
    security: Security


class Stack:
    """Starts, kills and stops the parts. Everything that it started is gone after `close`.

    `settings` are environment variables of the daemon, which win over the stack's own. A `broker` or `kafka`
    that is given runs already, and goes on running. `token_file` holds a token for the stack's own user,
    beside the file of principals that names it.
    """

    def __init__(
        self,
        directory: Path,
        *,
        settings: Mapping[str, str] | None = None,
        broker: Broker | None = None,
        kafka: RunningKafka | None = None,
        topics: tuple[TopicPlan, ...] | None = None,
        topic: str = "lte.edits",
        ports: Ports | None = None,
        token_file: Path | None = None,
    ) -> None:
        self.directory = directory
        make_state_directory(directory)
        ports = ports or Ports.choose()
        self._own_broker = broker is None and kafka is None
        if self._own_broker:
            broker = Broker(directory / "kafka", port=ports.kafka, controller_port=ports.controller)
        self._broker, self._kafka = broker, kafka
        self._topics = topics or plans(edits=topic, dlq=f"{topic}.dlq")
        self.created_topics: tuple[str, ...] = ()
        self._daemon: subprocess.Popen[bytes] | None = None
        self._gateway: subprocess.Popen[bytes] | None = None
        self._bootstrap = kafka.bootstrap if kafka else ""
        self._token_file = token_file
        self._settings = self._own_settings(topic, ports) | dict(settings or {})

    @property
    def broker(self) -> Broker:
        """The development broker; raises `StackError` where Kafka is somebody else's."""
        if self._broker is None:
            raise StackError("Kafka is not the stack's: it was there already")
        return self._broker

    @property
    def addresses(self) -> Addresses:
        place = self._settings
        return Addresses(
            kafka=self._bootstrap,
            topic=place["LTE_KAFKA__TOPIC"],
            grpc=place["LTE_RPC__LISTEN"],
            socket=place["LTE_RPC__SOCKET"],
            admin_socket=place["LTE_RPC__ADMIN_SOCKET"],
            metrics=place["LTE_METRICS__LISTEN"],
            http=self._http() if self._gateway else OFF,
            gateway_metrics=place["LTE_GATEWAY__METRICS_LISTEN"] if self._gateway else OFF,
            token_file=str(self._token_file or ""),
        )

    def _http(self) -> str:
        scheme = "https" if self._settings.get("LTE_GATEWAY__TLS_CERT") else "http"
        return f"{scheme}://{self._settings['LTE_GATEWAY__LISTEN']}"

    @property
    def daemon_pid(self) -> int:
        if self._daemon is None:
            raise StackError("the daemon is not running")
        return self._daemon.pid

    @property
    def gateway_pid(self) -> int:
        if self._gateway is None:
            raise StackError("the gateway is not running")
        return self._gateway.pid

    @property
    def daemon_log(self) -> Path:
        return self.directory / "daemon.log"

    @property
    def gateway_log(self) -> Path:
        return self.directory / "gateway.log"

    def start_broker(self) -> str:
        """Start Kafka unless it is there already, make the topics that are missing; returns the bootstrap
        address. Raises `Retry` where no broker answers."""
        if self._own_broker:
            self._bootstrap = self.broker.start()
        elif self._kafka is None:
            self._bootstrap = self.broker.bootstrap
        self._note_children()
        security, replication = ({}, 1) if self._kafka is None else (self._kafka.security, BROKERS_CHOICE)
        self.created_topics = create_missing(
            self._bootstrap, security, self._topics, replication=replication, timeout_s=KAFKA_TIMEOUT_S
        )
        return self._bootstrap

    def start_daemon(self, tick: Callable[[], None] = lambda: None) -> float:
        """Start the daemon and wait until this very process serves; returns the seconds that it took."""
        begin = time.monotonic()
        process = self.launch_daemon()
        while not self._ready():
            tick()
            if process.poll() is not None:
                raise StackError(f"the daemon ended with {process.returncode}:\n{_tail(self.daemon_log)}")
            if time.monotonic() - begin > START_TIMEOUT_S:
                limit = f"{START_TIMEOUT_S:.0f} s"
                raise StackError(f"the daemon was not READY in {limit}:\n{_tail(self.daemon_log)}")
            time.sleep(0.05)
        return time.monotonic() - begin

    def launch_daemon(self) -> subprocess.Popen[bytes]:
        """Start the daemon without waiting. It dies with the thread that calls this."""
        self._daemon = self._launch("serve", self.daemon_log)
        self._note_children()
        return self._daemon

    def start_gateway(self, tick: Callable[[], None] = lambda: None) -> None:
        """Start the gateway in front of the daemon and wait until it listens; nothing where it is off."""
        listen = self._settings["LTE_GATEWAY__LISTEN"]
        if listen == OFF:
            return
        process = self._gateway = self._launch(
            "gateway", self.gateway_log, LTE_CLIENT__ADDRESS=f"unix:{self.addresses.socket}"
        )
        self._note_children()
        begin = time.monotonic()
        while not _listens(listen):
            tick()
            if process.poll() is not None:
                raise StackError(f"the gateway ended with {process.returncode}:\n{_tail(self.gateway_log)}")
            if time.monotonic() - begin > START_TIMEOUT_S:
                raise StackError(f"the gateway did not listen in {START_TIMEOUT_S:.0f} s")
            time.sleep(0.05)

    def _launch(self, command: str, log_file: Path, **environment: str) -> subprocess.Popen[bytes]:
        python = (sys.executable, "-m")
        bound = (*python, "daemon.realign.launch", str(os.getpid()), "0", str(_NO_FILE_LIMIT))
        create(log_file)
        with log_file.open("ab") as log:
            return subprocess.Popen(
                [*bound, *python, "daemon", command],
                env=self._environment() | environment,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for the parent, which stops the daemon before the broker
            )

    def _note_children(self) -> None:
        children = {"daemon": self._daemon, "gateway": self._gateway}
        pids = {name: child.pid for name, child in children.items() if child}
        if self._own_broker:
            pids["broker"] = self.broker.pid
        leftovers.note(self.directory / CHILDREN, pids)

    def gateway_exit(self) -> int | None:
        """The gateway's exit status, None while it runs, or where there is none."""
        return self._gateway.poll() if self._gateway else None

    def daemon_exit(self) -> int | None:
        """The daemon's exit status, None while it runs."""
        return self._daemon.poll() if self._daemon else None

    def broker_exit(self) -> int | None:
        """The exit status of the stack's own broker; None while it runs, and where the stack has none."""
        return self.broker.code if self._own_broker else None

    def kill_daemon(self) -> None:
        """SIGKILL, as a power cut would."""
        if self._daemon is not None:
            self._daemon.kill()
            self._daemon.wait()
            self._daemon = None

    def stop_daemon(self) -> None:
        """SIGTERM, then SIGKILL after the grace."""
        if self._daemon is not None:
            _stop(self._daemon)
            self._daemon = None

    def close(self) -> None:
        """Gateway, daemon, broker: each while what it needs still runs."""
        try:
            if self._gateway is not None:
                _stop(self._gateway)
            self.stop_daemon()
        finally:
            if self._own_broker:
                self.broker.stop()
            (self.directory / CHILDREN).unlink(missing_ok=True)

    def __enter__(self) -> Stack:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _own_settings(self, topic: str, ports: Ports) -> dict[str, str]:
        tokens = self._token_file and {
            "LTE_RPC__TOKEN_FILE": str(self._token_file.with_name(PRINCIPALS)),
            # The token is for writes over HTTP: gRPC on loopback stays as it is without one.
            "LTE_RPC__LISTEN_ROLES": '["asker", "publisher"]',
        }
        return (tokens or {}) | {
            "LTE_STATE_DIR": str(self.directory / "state"),
            "LTE_KAFKA__TOPIC": topic,
            "LTE_KAFKA__DLQ_TOPIC": f"{topic}.dlq",
            "LTE_RPC__SOCKET": str(self.directory / "lte.sock"),
            "LTE_RPC__LISTEN": f"127.0.0.1:{ports.grpc}",
            "LTE_RPC__ADMIN_SOCKET": str(self.directory / "admin.sock"),
            "LTE_METRICS__LISTEN": f"127.0.0.1:{ports.metrics}",
            "LTE_GATEWAY__LISTEN": f"127.0.0.1:{ports.http}",
            "LTE_GATEWAY__METRICS_LISTEN": f"127.0.0.1:{ports.gateway_metrics}",
        }

    def _environment(self) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("LTE_")}
        return {**inherited, "LTE_KAFKA__BOOTSTRAP": self._bootstrap, **self._settings}

    def _ready(self) -> bool:
        from daemon.client import Client

        # Another daemon may answer there, on the same state: ours would have to fail.
        if self._daemon is None or listener(Path(self.addresses.socket)) != self._daemon.pid:
            return False
        with contextlib.closing(Client(self.addresses.socket)) as client:
            return client.is_serving(timeout_s=2.0)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM, then SIGKILL after the grace."""
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _tail(log_file: Path) -> str:
    return "\n".join(log_file.read_text(errors="replace").splitlines()[-15:])


def _listens(address: str) -> bool:
    host, _, port = address.rpartition(":")
    with contextlib.suppress(OSError), socket.create_connection((host.strip("[]"), int(port)), 1.0):
        return True
    return False


def listener(path: Path) -> int | None:
    """The process that listens on a unix socket; None when none does."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except OSError:
            return None
        pid, _, _ = struct.unpack("3i", probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        return int(pid)
