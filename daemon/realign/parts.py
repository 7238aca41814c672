"""What a re-alignment works with and by: its parts, its settings, and how it ends early."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Protocol

from daemon.realign.runner import Runner
from lte_runtime.align.material import AdmissionRules
from lte_runtime.align.promotion import PromotionSettings
from lte_runtime.align.runs import Run, RunState
from lte_runtime.store.records import EditRecord
from lte_runtime.store.sampling import Arrival
from lte_runtime.types import AdapterRef, Fact, FactKey


class RealignMemory(Protocol):
    """What a run needs of the edit memory."""

    def sample_facts(self, count: int, rng: Random) -> tuple[Fact, ...]: ...
    def facts_of_keys(self, key_ids: Sequence[int]) -> tuple[Fact, ...]: ...
    def arrivals(self, after: int, limit: int) -> list[Arrival]: ...
    def last_row(self) -> int: ...
    def history(self, key: FactKey) -> list[EditRecord]: ...
    def meta_get(self, name: str) -> str | None: ...
    def meta_set(self, name: str, value: str) -> None: ...
    def meta_names(self, prefix: str) -> list[str]: ...


class AdapterRegistry(Protocol):
    """Where adapters are kept."""

    def add(self, directory: Path, verdict: Mapping[str, Any]) -> AdapterRef: ...
    def next_id(self) -> str: ...


class AdapterActivator(Protocol):
    """What puts an adapter into service; raises with the reason why not."""

    def activate(self, adapter_id: str, reason: str, epoch: int = 0) -> None: ...


@dataclass(frozen=True, slots=True)
class AlignedModel:
    """The model that is aligned, as a job names it."""

    path: str
    fingerprint: str
    device: str = "auto"
    dtype: str = "auto"
    runtime: str = "transformers"


@dataclass(frozen=True, slots=True)
class RealignerSettings:
    """`changes` are numbers of the preset to replace; `probes` is the share of `material.COUNTS` that each
    arm is judged by; `neighbours` is the encoder that finds near facts; `anchor` older facts are replayed,
    with those of `anchor_file`; at most `rules.most` are learned from."""

    preset: str = "embedded"
    changes: Mapping[str, object] = field(default_factory=dict)
    probes: float = 1.0
    neighbours: str = "encoder"
    deadline_s: float = 3600.0
    backoff_s: float = 900.0
    max_memory_bytes: int | None = None
    anchor: int = 1000
    anchor_file: Path | None = None
    rules: AdmissionRules = field(default_factory=AdmissionRules)
    gate: PromotionSettings = field(default_factory=PromotionSettings)


@dataclass(frozen=True)
class RealignParts:
    """What a re-alignment works with. `incumbent` gives the directory of the adapter that serves, None
    without one; `tainted` how many facts it was trained on no longer hold; `epoch` the fencing number to
    carry, or raises `Refused` when this daemon must not (it may wait for a broker), `owned` the quick guess
    at that; `since_row` what the last alignment knew.
    """

    memory: RealignMemory
    registry: AdapterRegistry
    swapper: AdapterActivator
    runner: Runner
    base: AlignedModel
    incumbent: Callable[[], Path | None]
    tainted: Callable[[], int] = lambda: 0
    epoch: Callable[[], int] = lambda: 0
    since_row: Callable[[], int] = lambda: 0
    building: Callable[[], None] = lambda: None
    owned: Callable[[], bool] = lambda: True
    on_change: Callable[[Run], None] = lambda _: None
    audit: Callable[[str, Mapping[str, Any]], None] = lambda _kind, _what: None
    window_open: Callable[[], bool] = lambda: True
    now: Callable[[], int] = lambda: time.time_ns() // 1_000_000


class RunEnded(Exception):
    """The run ends in this state, for this reason."""

    def __init__(self, state: RunState, message: str) -> None:
        super().__init__(message)
        self.state = state
