"""The state of the watch on drift, durable: what it learned, and how far alignments know the edits."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from typing import Protocol

from lte_runtime.drift import watched
from lte_runtime.drift.watched import DriftState

STATE = "drift.state"


class DriftStateMemory(Protocol):
    """Where the state is kept, and the row of the newest edit."""

    def last_row(self) -> int: ...
    def meta_get(self, name: str) -> str | None: ...
    def meta_set(self, name: str, value: str) -> None: ...


class DriftStateStore:
    """Hold `lock` to change `state` in more than one step. What is not saved is lost at the end."""

    def __init__(self, memory: DriftStateMemory) -> None:
        self._memory = memory
        self.lock = threading.RLock()
        stored = memory.meta_get(STATE)
        self.state = watched.from_json(json.loads(stored)) if stored else DriftState()

    def save(self, state: DriftState) -> None:
        self.state = state
        self._memory.meta_set(STATE, json.dumps(watched.to_json(state), ensure_ascii=False))

    def note_building(self) -> None:
        """An alignment reads the facts now: what comes later is new to its adapter."""
        with self.lock:
            self.save(replace(self.state, building_row=self._memory.last_row()))

    @property
    def since_row(self) -> int:
        """The store's row up to which the last alignment knew the edits."""
        return self.state.since_row
