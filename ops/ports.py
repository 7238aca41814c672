"""The TCP ports of a development stack: chosen once, then the same at each start."""

from __future__ import annotations

import json
import random
import socket
import time
from collections.abc import Callable, Container, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

# Below the ports that Linux gives to outgoing connections (32768 and up), which would take them now and then.
_CHOICE = range(20_000, 32_000)
# A process that was killed a moment ago may hold its port still.
FREE_WITHIN_S = 10.0


class PortTaken(RuntimeError):
    """A port that belongs to the stack is in use; the message says by which setting and what to do."""


@dataclass(frozen=True)
class Ports:
    """One loopback port for each listener of a stack; 0 where none is chosen yet."""

    kafka: int
    controller: int
    grpc: int
    metrics: int
    http: int = 0
    gateway_metrics: int = 0

    @classmethod
    def choose(cls) -> Ports:
        """Ports that nothing listens on now."""
        return cls(0, 0, 0, 0).completed()

    def completed(self) -> Ports:
        """With a port that nothing listens on for each that is 0."""
        ports = asdict(self)
        for name in [name for name, port in ports.items() if not port]:
            ports[name] = next(port for port in _shuffled() if port not in ports.values() and is_free(port))
        return Ports(**ports)

    @classmethod
    def of(cls, path: Path) -> Ports:
        """The ports that an earlier start wrote to `path`; what it lacks is chosen and written."""
        try:
            written = cls(**json.loads(path.read_text("utf-8")))
        except FileNotFoundError:
            written = cls(0, 0, 0, 0)
        except (ValueError, TypeError) as error:
            raise PortTaken(f"{path} holds no ports ({error}): remove it, new ones are chosen then") from None
        ports = written.completed()
        if ports != written:
            path.write_text(json.dumps(asdict(ports), indent=2) + "\n", encoding="utf-8")
        return ports

    def check(
        self, path: Path, sleep: Callable[[float], None] = time.sleep, *, unused: Container[str] = ()
    ) -> None:
        """Raises `PortTaken` for one that stays in use: clients know these ports, others would lose them.

        `unused` are names of listeners that this start does not have.
        """
        deadline = time.monotonic() + FREE_WITHIN_S
        for name, port in asdict(self).items():
            if name in unused or not port:
                continue
            while not is_free(port):
                if time.monotonic() > deadline:
                    raise PortTaken(
                        f"another process uses port {port}, which is {name}'s here: "
                        f"end it, or change {path} (clients must know the new port)"
                    )
                sleep(0.05)


def _shuffled() -> Sequence[int]:
    return random.sample(_CHOICE, len(_CHOICE))


def is_free(port: int) -> bool:
    """Whether a listener can be bound on loopback, as servers bind it."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
