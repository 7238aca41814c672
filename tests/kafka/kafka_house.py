"""Ingest on a real broker, as the daemon runs it, over an edit memory of dictionaries or the real one."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from typing import Any

from fake_memory import FakeMemory

from daemon.ingest.ingest import Ingest, IngestSettings
from daemon.kafka.source import KafkaSource, KafkaSourceSettings
from daemon.lifecycle import Lifecycle, State

GUARD_S = 200.0


def event(target: str, subject: str = "Ada", **more: Any) -> bytes:
    return json.dumps({"subject": subject, "relation": "post", "target": target, **more}).encode()


def until(condition: Callable[[], Any], guard_s: float = GUARD_S) -> None:
    """Wait for a condition; the limit is a guard against hanging, not a promise."""
    deadline = time.monotonic() + guard_s
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.01)


class Running:
    """An `Ingest` in its own thread."""

    def __init__(
        self,
        source: KafkaSourceSettings,
        memory: Any = None,
        settings: IngestSettings | None = None,
        stale_after_s: float = 10.0,
    ) -> None:
        self.memory = memory if memory is not None else FakeMemory()
        self.lifecycle = Lifecycle(stale_after_s=stale_after_s)
        self.source = KafkaSource(source)
        self.ingest = Ingest(
            self.memory, self.source, self.lifecycle, settings or IngestSettings(refresh_s=1.0)
        )
        self.states: list[State] = []
        self.lifecycle.on_change(lambda status: self.states.append(status.state))
        self._thread = threading.Thread(target=self.ingest.run, name="ingest", daemon=True)
        self._thread.start()

    @property
    def state(self) -> State:
        return self.lifecycle.state

    def ready(self) -> Running:
        until(lambda: self.state is State.READY)
        return self

    def stop(self) -> None:
        self.ingest.stop()
        self._thread.join(GUARD_S)
        assert not self._thread.is_alive()
