"""The audit topic: what was decided and done about adapters, one record each. Never in anybody's way."""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from kafka.errors import KafkaError

from daemon.kafka.connection import Fault, Security, close_clients
from daemon.kafka.producing import open_producer
from lte_runtime.errors import LteError


@dataclass(frozen=True)
class AuditSettings:
    """Times in seconds. `limit` records wait while no broker takes them; further ones push out the oldest,
    which are counted."""

    bootstrap: str
    topic: str = "lte.audit"
    security: Security = field(default_factory=dict)
    instance: str = ""
    limit: int = 1000
    retry_s: float = 5.0


class Audit:
    """Own thread (`run`), own producer. `write` returns at once, from any thread."""

    def __init__(
        self, settings: AuditSettings, open_sender: Callable[[AuditSettings], Any] | None = None
    ) -> None:
        self._settings = settings
        self._open = open_sender or _sender
        self._waiting: deque[bytes] = deque()
        self._wake, self._stop = threading.Event(), threading.Event()
        self._sender: Any = None
        self._fault = Fault(f"audit on {settings.topic}")
        self.dropped = 0

    def write(self, kind: str, what: Mapping[str, Any]) -> None:
        """Queue a record: its kind, the time, who writes, and `what` (JSON values)."""
        row = {"kind": kind, "time_ms": time.time_ns() // 1_000_000, "instance": self._settings.instance}
        if len(self._waiting) >= self._settings.limit:
            self._waiting.popleft()
            self.dropped += 1
        self._waiting.append(json.dumps({**row, **what}, ensure_ascii=False, default=str).encode())
        self._wake.set()

    def stop(self) -> None:
        self._stop.set()
        self._wake.set()

    def run(self) -> None:
        """Send until `stop`, and then once what still waits."""
        while not self._stop.is_set():
            self._wake.wait()
            self._wake.clear()
            if not self._sent():
                self._stop.wait(self._settings.retry_s)
                self._wake.set()
        self._sent()
        self._drop()

    def _sent(self) -> bool:
        """Whether nothing waits any more; a fault is logged once."""
        try:
            while self._waiting:
                self._sender = self._sender or self._open(self._settings)
                self._sender.send(self._settings.topic, value=self._waiting[0], partition=0).get(timeout=10)
                self._waiting.popleft()
        except (KafkaError, LteError, OSError) as error:
            self._fault.note(error, f" ({self.dropped} dropped)")
            self._drop()
            return False
        self._fault.clear()
        return True

    def _drop(self) -> None:
        sender, self._sender = self._sender, None
        close_clients(None, sender)


def _sender(settings: AuditSettings) -> Any:
    return open_producer(settings.bootstrap, settings.security, timeout_s=10.0)
