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

    job_dir: Path
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


def read(job_dir: Path) -> JobSpec:
    """The job of a directory; raises `BadRequest` for what is missing or of the wrong kind."""
    try:
        fields: Mapping[str, Any] = json.loads((job_dir / JOB).read_text("utf-8"))
        return _job(job_dir, fields)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise BadRequest(f"{job_dir / JOB}: {error!r}") from None


def _job(job_dir: Path, fields: Mapping[str, Any]) -> JobSpec:
    deadline, memory = fields.get("deadline_s"), fields.get("max_memory_bytes")
    return JobSpec(
        job_dir=job_dir,
        id=str(fields["id"]),
        name=_name(fields["name"]),
        preset=str(fields["preset"]),
        base=str(fields["base"]),
        base_fingerprint=str(fields["base_fingerprint"]),
        incumbent=job_dir / fields["incumbent"] if fields.get("incumbent") else None,
        facts=job_dir / fields["facts"],
        probes=job_dir / fields["probes"],
        anchor=job_dir / fields["anchor"] if fields.get("anchor") else None,
        seed=int(fields["seed"]),
        epoch=int(fields["epoch"]),
        deadline_s=None if deadline is None else float(deadline),
        device=str(fields.get("device") or "auto"),
        dtype=str(fields.get("dtype") or "auto"),
        max_memory_bytes=None if memory is None else int(memory),
        neighbours=str(fields.get("neighbours", "encoder")),
        fresh=bool(fields.get("fresh", False)),
        halvings=int(fields.get("halvings", 0)),
        changes=dict(fields.get("changes") or {}),
    )


def _name(name: object) -> str:
    if not isinstance(name, str) or not name or Path(name).name != name:
        raise ValueError(f"{name!r} is not an adapter id")
    return name


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
    """Why the work should end: cancelled by a signal, or past its deadline (monotonic seconds)."""

    deadline: float | None = None
    cancelled: bool = False

    def stopping(self) -> bool:
        return self.cancelled or (self.deadline is not None and time.monotonic() >= self.deadline)

    def check(self) -> None:
        """Raises `Cancelled` or `DeadlineExceeded` when it is time to end."""
        if self.cancelled:
            raise Cancelled("the job was cancelled")
        if self.stopping():
            raise DeadlineExceeded("the job's deadline has passed")


@dataclass
class ProgressWriter:
    """Writes `progress.json`, at most twice a second but at every change of phase. `shown` hears of the same.

    A silent one (in all processes but the first) writes nothing.
    """

    job_dir: Path
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
        _replace(self.job_dir / PROGRESS, value)
        self.shown(value)


def _replace(path: Path, value: object) -> None:
    """By rename without fsync: progress that a crash loses is no loss."""
    new = path.with_name(f".{path.name}.new")
    new.write_text(json.dumps(value) + "\n", encoding="utf-8")
    new.replace(path)
