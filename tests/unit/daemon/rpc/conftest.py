"""A gRPC server over a unix socket: real memory, answerer and lifecycle, stub encoder and engine."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from daemon.client import Client
from daemon.lifecycle import Lifecycle
from daemon.rpc.access import Principal, Role
from daemon.rpc.interceptors import Call
from daemon.rpc.server import ListenerSettings, RpcServer
from daemon.rpc.services import About, Services
from daemon.rpc.token_file import SECTION, entry_line, new_token, token_hash
from lte_runtime.answer.answerer import Answerer, AnswererSettings
from lte_runtime.answer.encoder import StubEncoder
from lte_runtime.answer.engine.stub import StubEngine
from lte_runtime.answer.scope import gate
from lte_runtime.errors import BadRecord
from lte_runtime.facts import events
from lte_runtime.facts.events import EventLimits
from lte_runtime.memory.edit_memory import EditMemory
from lte_runtime.types import Batch, Position, RawRecord, Rejected, TopicPartition

TOPIC_ID = "topic-1"
TP = TopicPartition(TOPIC_ID, 0)
NOW_MS = 1_750_000_000_000


class FakePublisher:
    """Keeps what it was given; stands for a Kafka producer, which the Kafka tests run for real."""

    def __init__(self) -> None:
        self.events: list[Mapping[str, Any]] = []
        self.headers: list[tuple[str, bytes]] = []

    def publish(
        self, events: Sequence[Mapping[str, Any]], headers: Sequence[tuple[str, bytes]]
    ) -> list[Position]:
        start = len(self.events)
        self.events += events
        self.headers += headers
        return [Position(TOPIC_ID, 0, start + number) for number in range(len(events))]


@dataclass
class Rig:
    """One daemon's parts behind one server, and the means to feed it events."""

    memory: EditMemory
    lifecycle: Lifecycle
    engine: StubEngine
    services: Services
    server: RpcServer
    settings: ListenerSettings
    publisher: FakePublisher
    calls: list[Call] = field(default_factory=list)
    offset: int = 0

    def client(self, **options: Any) -> Client:
        return Client(self.settings.socket, admin_address=self.settings.admin_socket, **options)

    def tell(self, *told: dict[str, Any] | bytes) -> None:
        """Applies events as ingest would: decoded, or rejected with their reason."""
        edits, rejected = [], []
        for event in told:
            value = event if isinstance(event, bytes) else json.dumps(event).encode()
            position = Position(TOPIC_ID, 0, self.offset)
            record = RawRecord("lte.edits", position, None, value, timestamp_ms=NOW_MS + self.offset)
            self.offset += 1
            try:
                edits.append(events.decode(record, EventLimits()))
            except BadRecord as error:
                rejected.append(Rejected(record, error.code, str(error)))
        self.memory.apply(Batch(tuple(edits), tuple(rejected), {TP: self.offset}))


@dataclass
class Principals:
    """A token file that grows by `add`."""

    path: Path
    lines: list[str] = field(default_factory=lambda: [SECTION])

    def add(
        self,
        name: str,
        *roles: Role,
        read: Sequence[str] = (),
        write: Sequence[str] = (),
        subject: str | None = None,
        **rest: Any,
    ) -> str:
        """Another principal; returns its token."""
        token = new_token()
        identity = {"subject": subject} if subject else {"sha256": token_hash(token).hex()}
        principal = Principal(name, frozenset(roles), tuple(read), tuple(write), **rest)
        self.lines.append(entry_line(principal, identity))
        self.path.write_text("\n".join((*self.lines, "")))
        return token

    def client(self, rig: Rig, token: str, address: str | None = None, **options: Any) -> Client:
        """A client with this token, on the client socket or at another address, for admin calls too."""
        own = self.path.with_name(f"token-{token_hash(token).hex()[:8]}")
        own.write_text(token)
        place = address or rig.settings.socket
        return Client(place, admin_address=place, token_file=own, **options)


Build = Callable[..., Rig]


@pytest.fixture
def token_file(tmp_path: Path) -> Principals:
    return Principals(tmp_path / "tokens.toml")


@pytest.fixture
def short_dir() -> Iterator[Path]:
    """A directory whose sockets stay under 108 bytes, however deep pytest's own is."""
    directory = Path(tempfile.mkdtemp(prefix="lte-"))
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def build(short_dir: Path) -> Iterator[Build]:
    """Makes a started rig; keyword arguments go to the engine (`engine=`), RpcSettings or Services.

    Rigs beside each other have names of their own, for state and sockets.
    """
    made: list[Rig] = []

    def make(
        engine: dict[str, Any] | None = None,
        services: dict[str, Any] | None = None,
        name: str = "",
        **rpc: Any,
    ) -> Rig:
        stub, encoder, lifecycle = StubEngine(**(engine or {})), StubEncoder(), Lifecycle()
        memory = EditMemory.open(short_dir / f"state{name}", encoder)
        calibration = gate.lexical_calibration(encoder.fingerprint)
        publisher, calls = FakePublisher(), list[Call]()
        places = {"socket": short_dir / f"s{name}.sock", "admin_socket": short_dir / f"a{name}.sock", **rpc}
        settings = ListenerSettings(**places)
        waiting = max(1, settings.max_concurrent // 4)
        given = Services(
            answerer=Answerer(memory, encoder, calibration, stub, AnswererSettings(max_waiting=waiting)),
            memory=memory,
            lifecycle=lifecycle,
            engine=stub,
            about=About("0.1.0", NOW_MS, calibration.encoder, calibration.threshold),
            max_waiting=waiting,
            **{"publisher": publisher, **(services or {})},
        )
        server = RpcServer(given, settings, on_call=calls.append)
        rig = Rig(memory, lifecycle, stub, given, server, settings, publisher, calls)
        made.append(rig)
        server.start()
        return rig

    yield make
    for rig in made:
        rig.server.stop(grace=0)
        rig.engine.close()
        rig.memory.close()


@pytest.fixture
def rig(build: Build) -> Rig:
    """A rig that is caught up and serves."""
    made = build()
    made.lifecycle.set_caught_up()
    return made
