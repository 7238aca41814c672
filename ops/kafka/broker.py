"""Development broker: a real Apache Kafka (KRaft, one process) as a child of this one.

Jars come through Maven by the coordinates in pom.xml into target/jars. Nothing here is for production.
"""

from __future__ import annotations

import base64
import contextlib
import shutil
import signal
import socket
import string
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from lte_runtime.private_files import DIRECTORY_MODE, make_private

HERE = Path(__file__).resolve().parent
TARGET = HERE / "target"
JARS = TARGET / "jars"
START_SECONDS = 180.0
# C1 alone and a serial collector: a development broker lives for minutes, so start-up is what counts.
JVM = ("-Xms256m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto")
QUIET = ("-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-Dorg.slf4j.simpleLogger.showDateTime=true")


class BrokerUnavailable(RuntimeError):
    """The broker cannot run here; the message says what is missing or why it did not start."""


def missing_tools() -> list[str]:
    """Programs that the broker needs and this machine lacks."""
    tools = ["java", "setpriv"] if any(JARS.glob("kafka_2*.jar")) else ["java", "mvn", "setpriv"]
    return [tool for tool in tools if shutil.which(tool) is None]


def fetch_jars() -> Path:
    """Copy the jars by Maven unless they are there; returns their directory."""
    if missing := missing_tools():
        raise BrokerUnavailable(
            f"missing: {', '.join(missing)} (apt install openjdk-17-jre-headless maven util-linux)"
        )
    stamp = TARGET / "jars.complete"
    pom = (HERE / "pom.xml").read_text()
    if stamp.exists() and stamp.read_text() == pom:
        return JARS
    shutil.rmtree(TARGET, ignore_errors=True)
    command = ["mvn", "-q", "-B", "-f", str(HERE / "pom.xml"), "dependency:copy-dependencies"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BrokerUnavailable(f"Maven could not fetch the broker: {(done.stdout + done.stderr)[-600:]}")
    stamp.write_text(pom)
    return JARS


def free_ports(count: int) -> list[int]:
    """Loopback TCP ports that nobody listens on just now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for listener in sockets:
            listener.bind(("127.0.0.1", 0))
        return [listener.getsockname()[1] for listener in sockets]


def java(main: str, *arguments: str, options: Sequence[str] = ()) -> list[str]:
    """Command line of a Java main class (or single-file program) with the broker's jars."""
    return ["java", *JVM, *QUIET, *options, "-cp", f"{JARS}/*", main, *arguments]


class Broker:
    """One Kafka on loopback whose log lives under `directory`.

    `start` blocks until the broker answers (about 3 s). The child dies with the *thread* that started it
    (parent-death signal), so start it from the main thread. `properties` are added to the template's
    and win over them; they may use its placeholders.
    """

    def __init__(
        self,
        directory: Path,
        *,
        port: int | None = None,
        controller_port: int | None = None,
        properties: Mapping[str, str] | None = None,
    ) -> None:
        self.directory = directory
        self.data = directory / "log"
        self.log_file = directory / "broker.log"
        ports = free_ports(2)
        self.port = port or ports[0]
        self._controller_port = controller_port or ports[1]
        self._more = properties or {}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def bootstrap(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        return self._running().pid

    @property
    def code(self) -> int | None:
        """Exit status of a broker that ended by itself; None while it runs, or was stopped."""
        return self._process.poll() if self._process else None

    def start(self) -> str:
        """Start (again, on the same log and port); returns the bootstrap address."""
        fetch_jars()
        make_private(self.directory)  # its log holds every event
        self.directory.chmod(DIRECTORY_MODE)
        self._write_properties()
        self._format()
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *java("kafka.Kafka", str(self._properties))],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.directory,
                start_new_session=True,
            )  # fmt: skip
        self._await_answer()
        return self.bootstrap

    def stop(self, grace_s: float = 10.0) -> None:
        """Orderly stop, killed after `grace_s`; harmless when it is not running."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGCONT)
        self._process.terminate()
        try:
            self._process.wait(grace_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._process.wait()
        self._process = None

    def kill(self) -> None:
        """SIGKILL; `start` brings it back on the same log."""
        process = self._running()
        process.kill()
        process.wait()
        self._process = None

    def pause(self) -> None:
        """SIGSTOP: connections stay open and nothing answers."""
        self._running().send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._running().send_signal(signal.SIGCONT)

    def __enter__(self) -> Broker:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def _properties(self) -> Path:
        return self.directory / "server.properties"

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise BrokerUnavailable("the broker is not running")
        return self._process

    def _write_properties(self) -> None:
        lines = (HERE / "server.properties.template").read_text().splitlines()
        own = (line for line in lines if line.split("=", 1)[0] not in self._more)
        more = (f"{name}={value}" for name, value in self._more.items())
        template = string.Template("\n".join((*own, *more, "")))
        text = template.substitute(port=self.port, controller_port=self._controller_port, data=self.data)
        self._properties.write_text(text)

    def _format(self) -> None:
        """Format the log directory, once: a copy of a formatted one, under a cluster id of its own."""
        meta = self.data / "meta.properties"
        if meta.exists():
            return
        shutil.copytree(self._formatted(), self.data, dirs_exist_ok=True)
        lines = [line for line in meta.read_text().splitlines() if not line.startswith("cluster.id=")]
        meta.write_text("\n".join((*lines, f"cluster.id={cluster_id()}", "")))

    def _formatted(self) -> Path:
        """A formatted, empty log directory, kept beside the jars: formatting costs a second JVM."""
        ready = TARGET / "formatted"
        if ready.exists():
            return ready
        with tempfile.TemporaryDirectory(dir=TARGET) as work:
            data, properties = Path(work, "log"), Path(work, "server.properties")
            properties.write_text(self._properties.read_text().replace(str(self.data), str(data)))
            chosen = f"--cluster-id={cluster_id()}"  # an id may begin with a dash
            command = java("kafka.tools.StorageTool", "format", chosen, "-c", str(properties))
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                raise BrokerUnavailable(f"cannot format a log: {(done.stdout + done.stderr)[-600:]}")
            with contextlib.suppress(OSError):  # another process was first
                data.rename(ready)
        return ready

    def _await_answer(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not _listens(self.port):
            if self._running().poll() is not None or time.monotonic() > deadline:
                tail = self.log_file.read_text(errors="replace")[-800:]
                self.stop(0)
                raise BrokerUnavailable(f"the broker did not start: {tail}")
            time.sleep(0.05)


def cluster_id() -> str:
    """A random id as Kafka writes them: 16 bytes, URL-safe base64 without padding."""
    return base64.urlsafe_b64encode(uuid.uuid4().bytes).rstrip(b"=").decode()


def _listens(port: int) -> bool:
    with socket.socket() as client:
        client.settimeout(1.0)
        return client.connect_ex(("127.0.0.1", port)) == 0


@contextlib.contextmanager
def running(directory: Path) -> Iterator[Broker]:
    """A started broker, stopped at the end."""
    with Broker(directory) as broker:
        yield broker
