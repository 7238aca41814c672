"""Runs of re-alignment: one record each, its states, and what past runs mean for the next. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from enum import StrEnum
from typing import Any

from lte_runtime.align.contract import Progress
from lte_runtime.drift.decide import DAY_MS, Situation

CIRCUIT_AFTER = 3
"""Failures in a row after which nothing starts by itself."""


class RunState(StrEnum):
    QUEUED = "queued"
    BUILDING = "building"
    TRAINING = "training"
    JUDGING = "judging"
    PROMOTING = "promoting"
    DONE = "done"
    REJECTED = "rejected"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def active(self) -> bool:
        return self not in ENDED


ENDED = frozenset({RunState.DONE, RunState.REJECTED, RunState.FAILED, RunState.CANCELLED})
_STOPS = {RunState.FAILED, RunState.CANCELLED}
_NEXT: Mapping[RunState, frozenset[RunState]] = {
    RunState.QUEUED: frozenset({RunState.BUILDING, *_STOPS}),
    RunState.BUILDING: frozenset({RunState.TRAINING, RunState.REJECTED, *_STOPS}),
    # A second attempt trains again after judging ran out of memory.
    RunState.TRAINING: frozenset({RunState.JUDGING, RunState.PROMOTING, *_STOPS}),
    RunState.JUDGING: frozenset({RunState.TRAINING, RunState.PROMOTING, *_STOPS}),
    RunState.PROMOTING: frozenset({RunState.DONE, RunState.REJECTED, *_STOPS}),
}


class Trigger(StrEnum):
    """Who asked for a run. What drift starts keeps to the limits of the decision; the others do not."""

    DRIFT = "drift"
    OPERATOR = "operator"
    CONTROL = "control"


@dataclass(frozen=True, slots=True)
class Run:
    """One re-alignment. Times in milliseconds since the epoch; `adapter` is the name that a new one gets,
    `facts` and `anchor` how many it is made from, `relations` those of the facts."""

    id: str
    state: RunState
    trigger: Trigger
    reasons: tuple[str, ...]
    created_ms: int
    tainted: bool = False
    started_ms: int | None = None
    ended_ms: int | None = None
    attempt: int = 1
    adapter: str = ""
    adapter_sha256: str = ""
    epoch: int = 0
    seed: int = 0
    facts: int = 0
    anchor: int = 0
    probes: int = 0
    rows: int = 0
    data_hash: str = ""
    message: str = ""
    control_id: str = ""
    relations: tuple[str, ...] = ()
    verdict: Mapping[str, Any] = field(default_factory=dict)
    progress: Progress = field(default_factory=Progress)


def moved(run: Run, state: RunState, now_ms: int, message: str = "") -> Run:
    """The run in another state; raises `ValueError` for a move that there is not."""
    if state not in _NEXT.get(run.state, frozenset()):
        raise ValueError(f"{run.id} cannot go from {run.state} to {state}")
    started = now_ms if state is RunState.BUILDING else run.started_ms
    ended = now_ms if not state.active else None
    return replace(run, state=state, started_ms=started, ended_ms=ended, message=message or run.message)


def failures(runs: Iterable[Run]) -> int:
    """Failed runs since one last ended otherwise, newest last; a cancelled one says nothing."""
    count = 0
    for run in runs:
        if run.state is RunState.FAILED:
            count += 1
        elif run.state in (RunState.DONE, RunState.REJECTED):
            count = 0
    return count


def situation(runs: Sequence[Run], now_ms: int, *, backoff_ms: int, window_open: bool = True) -> Situation:
    """What past runs (oldest first) mean for a start now. The rest after n failures is `backoff_ms` 2^(n-1).

    A clock that was set back makes no run younger than it is.
    """
    failed = failures(runs)
    ends = [run.ended_ms for run in runs if run.ended_ms is not None]
    ended = max(ends, default=None)
    backoff_until_ms = None if not failed or ended is None else ended + backoff_ms * 2 ** min(failed - 1, 16)
    return Situation(
        running=any(run.state.active for run in runs),
        starts_ms=tuple(
            run.created_ms
            for run in runs
            if run.trigger is Trigger.DRIFT and run.created_ms > now_ms - DAY_MS
        ),
        ended_ms=ended,
        backoff_until_ms=backoff_until_ms,
        circuit_open=failed >= CIRCUIT_AFTER,
        window_open=window_open,
    )


def to_json(run: Run) -> str:
    return json.dumps(asdict(run), ensure_ascii=False)


def from_json(text: str) -> Run:
    """The run as `to_json` gave it; fields of a later version are left out."""
    names = {run_field.name for run_field in fields(Run)}
    values = {name: value for name, value in json.loads(text).items() if name in names}
    values |= {name: tuple(values[name]) for name in ("reasons", "relations")}
    values |= {"state": RunState(values["state"]), "trigger": Trigger(values["trigger"])}
    return Run(**values | {"progress": Progress(**values["progress"])})
