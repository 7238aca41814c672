"""The directory of an alignment job: what is read from it, what appears in it, each file whole or not."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lte_runtime.disk import sync
from lte_runtime.errors import BadRequest, Cancelled, DeadlineExceeded

JOB, PROGRESS, RESULT = "job.json", "progress.json", "result.json"
ADAPTER, CHECKPOINTS, DATA = "adapter", "checkpoints", "data"
_QUIET_S = 0.5


@dataclass(frozen=True, slots=True)
class JobSpec:
    """What `job.json` asks for. Paths are absolute; `name` is the new adapter's id, such as `align-000002`.

    Optional beyond the contract: `neighbours` ("words", or which encoder), `fresh` (do not start from the
    incumbent: it may have learnt what was withdrawn since), `halvings` (start with half, a quarter, ... of
    the preset's tokens at a time), `changes` (numbers of the preset to replace, by name).
    """

    folder: Path
    id: str
    name: str
    preset: str
    base: str
    base_fingerprint: str
    incumbent: Path | None
    facts: Path
    probes: Path
    anchor: Path | None
    seed: int
    epoch: int
    deadline_s: float | None
    device: str
    dtype: str
    max_memory_bytes: int | None
    neighbours: str = "encoder"
    fresh: bool = False
    halvings: int = 0
    changes: Mapping[str, object] = field(default_factory=dict)


def read(folder: Path) -> JobSpec:
    """The job of a directory; raises `BadRequest` for what is missing or of the wrong kind."""
    try:
        said: Mapping[str, Any] = json.loads((folder / JOB).read_text("utf-8"))
        return _job(folder, said)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise BadRequest(f"{folder / JOB}: {error!r}") from None


def _job(folder: Path, said: Mapping[str, Any]) -> JobSpec:
    deadline, memory = said.get("deadline_s"), said.get("max_memory_bytes")
    return JobSpec(
        folder=folder,
        id=str(said["id"]),
        name=_name(said["name"]),
        preset=str(said["preset"]),
        base=str(said["base"]),
        base_fingerprint=str(said["base_fingerprint"]),
        incumbent=folder / said["incumbent"] if said.get("incumbent") else None,
        facts=folder / said["facts"],
        probes=folder / said["probes"],
        anchor=folder / said["anchor"] if said.get("anchor") else None,
        seed=int(said["seed"]),
        epoch=int(said["epoch"]),
        deadline_s=None if deadline is None else float(deadline),
        device=str(said.get("device") or "auto"),
        dtype=str(said.get("dtype") or "auto"),
        max_memory_bytes=None if memory is None else int(memory),
        neighbours=str(said.get("neighbours", "encoder")),
        fresh=bool(said.get("fresh", False)),
        halvings=int(said.get("halvings", 0)),
        changes=dict(said.get("changes") or {}),
    )


def _name(said: object) -> str:
    if not isinstance(said, str) or not said or Path(said).name != said:
        raise ValueError(f"{said!r} is no adapter id")
    return said


def write(path: Path, value: object) -> None:
    """The value as JSON under `path`, by rename after fsync."""
    new = path.with_name(f".{path.name}.new")
    with new.open("w", encoding="utf-8") as file:
        json.dump(value, file, indent=2, ensure_ascii=False)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
    sync(path.parent)


@dataclass
class Signals:
    """Why the work should end: told by a signal, or by the clock."""

    deadline: float | None = None
    cancelled: bool = False

    def stopping(self) -> bool:
        return self.cancelled or (self.deadline is not None and time.monotonic() >= self.deadline)

    def check(self) -> None:
        """Raises `Cancelled` or `DeadlineExceeded` when it is time to end."""
        if self.cancelled:
            raise Cancelled("told to stop")
        if self.stopping():
            raise DeadlineExceeded("the job's deadline has passed")


@dataclass
class ProgressWriter:
    """Writes `progress.json`, at most twice a second but at every change of phase. `shown` hears of the same.

    A silent one (in all processes but the first) writes nothing.
    """

    folder: Path
    silent: bool = False
    shown: Callable[[Mapping[str, Any]], None] = lambda _: None
    phase: str = ""
    _started: float = 0.0
    _first: int = 0
    _written: float = 0.0

    def __call__(
        self, phase: str, step: int, total: int, loss: float | None = None, *, rows_each: float = 1.0
    ) -> None:
        now = time.monotonic()
        changed = phase != self.phase
        if changed:
            self.phase, self._started, self._first = phase, now, step
        if self.silent or not (changed or step >= total or now - self._written >= _QUIET_S):
            return
        self._written = now
        done, spent = step - self._first, now - self._started
        rate = done / spent if done > 0 and spent > 0 else None
        value = {
            "phase": phase,
            "step": step,
            "total": total,
            "loss": loss,
            "rows_per_s": None if rate is None else round(rate * rows_each, 2),
            "remaining_s": None if rate is None else round((total - step) / rate, 1),
            "time": time.time(),
        }
        _replace(self.folder / PROGRESS, value)
        self.shown(value)


def _replace(path: Path, value: object) -> None:
    """By rename without fsync: progress that a crash loses is no loss."""
    new = path.with_name(f".{path.name}.new")
    new.write_text(json.dumps(value) + "\n", encoding="utf-8")
    new.replace(path)
