"""The contract of alignment jobs: what stands in a job's directory, as values and as files. Without torch.

Who orders a job (the daemon, `lte align train`) writes `job.json` with its facts, probes and anchor set; the
job writes `progress.json` while it works and `result.json` last. Files appear whole, by rename.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from lte_runtime.disk import sync
from lte_runtime.errors import BadRequest

# `cancel` appears when a job is to end: for a command that runs it where no signal reaches.
JOB, PROGRESS, RESULT, CANCEL = "job.json", "progress.json", "result.json", "cancel"
FACTS, PROBES, ANCHOR = "facts.jsonl", "probes.jsonl", "anchor.jsonl"
ADAPTER, CHECKPOINTS, DATA = "adapter", "checkpoints", "data"
DONE, FAILED, CANCELLED = "done", "failed", "cancelled"
NO_JUDGEMENTS: Mapping[str, Mapping[str, int]] = {"candidate": {}, "incumbent": {}, "none": {}}
# A result holds a few thousand judgements; more than this is no result.
MAX_JSON_BYTES = 16 << 20
# Characters of an error that are kept: it goes into run records and logs.
MAX_MESSAGE = 2000


@dataclass(frozen=True, slots=True)
class JobSpec:
    """What `job.json` asks for. Paths are absolute here, and in the file relative where they are in the
    directory; `name` is the new adapter's id, such as `align-000002`.

    `neighbours`: "words", "encoder" for the default sentence encoder, or another encoder's name or path;
    `fresh`: do not start from the incumbent, which may have learnt what was withdrawn since; `halvings`:
    start with half, a quarter, ... of the preset's tokens at a time; `changes`: numbers of the preset to
    replace, by name; `runtime`: the engine that serves (`Engine.runtime`), which judges the probes.
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
    runtime: str = "transformers"

    def to_json(self) -> dict[str, Any]:
        return {item.name: self._plain(getattr(self, item.name)) for item in fields(self)[1:]}

    def _plain(self, value: object) -> object:
        if isinstance(value, Path):
            return str(value.relative_to(self.job_dir) if value.is_relative_to(self.job_dir) else value)
        return dict(value) if isinstance(value, Mapping) else value

    @classmethod
    def from_json(cls, job_dir: Path, values: Mapping[str, Any]) -> JobSpec:
        """Raises ValueError, TypeError or KeyError for what is missing or of the wrong kind."""
        deadline, memory = values.get("deadline_s"), values.get("max_memory_bytes")
        return cls(
            job_dir=job_dir,
            id=str(values["id"]),
            name=_adapter_id(values["name"]),
            preset=str(values["preset"]),
            base=str(values["base"]),
            base_fingerprint=str(values["base_fingerprint"]),
            incumbent=job_dir / values["incumbent"] if values.get("incumbent") else None,
            facts=job_dir / values["facts"],
            probes=job_dir / values["probes"],
            anchor=job_dir / values["anchor"] if values.get("anchor") else None,
            seed=int(values["seed"]),
            epoch=int(values["epoch"]),
            deadline_s=None if deadline is None else float(deadline),
            device=str(values.get("device") or "auto"),
            dtype=str(values.get("dtype") or "auto"),
            max_memory_bytes=None if memory is None else int(memory),
            neighbours=str(values.get("neighbours", "encoder")),
            fresh=bool(values.get("fresh", False)),
            halvings=int(values.get("halvings", 0)),
            changes=dict(values.get("changes") or {}),
            runtime=str(values.get("runtime") or "transformers"),
        )


def _adapter_id(name: object) -> str:
    if not isinstance(name, str) or not name or Path(name).name != name:
        raise ValueError(f"{name!r} is not an adapter id")
    return name


@dataclass(frozen=True, slots=True)
class Probe:
    """A question with the facts that serving would give it; `answers` None where the base's own is right."""

    id: str
    kind: str
    question: str
    facts: tuple[str, ...]
    answers: tuple[str, ...] | None

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Probe:
        """Raises ValueError, TypeError or KeyError for what is none."""
        answers = None if row["answers"] is None else tuple(map(str, row["answers"]))
        prompt_facts = tuple(map(str, row.get("facts") or ()))
        return cls(str(row["id"]), str(row["kind"]), str(row["question"]), prompt_facts, answers)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a job is. `step` of `total` of its `phase`; None where it does not say."""

    phase: str = ""
    step: int = 0
    total: int = 0
    loss: float | None = None
    rows_per_s: float | None = None
    remaining_s: float | None = None

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Progress:
        """Raises ValueError, TypeError or OverflowError for what is none."""
        return cls(
            phase=str(values.get("phase", ""))[:32],
            step=int(values.get("step") or 0),
            total=int(values.get("total") or 0),
            loss=_number(values.get("loss")),
            rows_per_s=_number(values.get("rows_per_s")),
            remaining_s=_number(values.get("remaining_s")),
        )


@dataclass(frozen=True, slots=True)
class JobError:
    """Why a job failed; `kind` is data, deadline, out_of_memory or other."""

    kind: str = "other"
    message: str = "no reason given"


@dataclass(frozen=True, slots=True)
class JobResult:
    """How a job ended. `judged` is 1 or 0 by arm and probe id; `error` stands where it failed."""

    status: str
    adapter: str | None = None
    adapter_hash: str | None = None
    judged: Mapping[str, Mapping[str, int]] = field(default_factory=lambda: NO_JUDGEMENTS)
    rows: int = 0
    data_hash: str | None = None
    updates: int | None = None
    loss: float | None = None
    seconds: float = 0.0
    error: JobError | None = None

    @classmethod
    def failed(cls, kind: str, message: str) -> JobResult:
        return cls(FAILED, error=JobError(kind, message[:MAX_MESSAGE]))

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> JobResult:
        """What a job wrote, which may be anything: a part of the wrong kind counts as missing, and a status
        that there is not as a failure."""
        status = values.get("status")
        failed = status not in (DONE, CANCELLED)
        return cls(
            status=FAILED if failed else str(status),
            adapter=_text(values.get("adapter")),
            adapter_hash=_text(values.get("adapter_hash")),
            judged={**NO_JUDGEMENTS, **_judgements(values.get("judged"))},
            rows=_count(values.get("rows")) or 0,
            data_hash=_text(values.get("data_hash")),
            updates=_count(values.get("updates")),
            loss=_number(values.get("loss")),
            seconds=_number(values.get("seconds")) or 0.0,
            error=_error(values.get("error")) if failed else None,
        )


def _error(value: object) -> JobError:
    parts = value if isinstance(value, dict) else {}
    texts = {name: str(parts[name])[:MAX_MESSAGE] for name in ("kind", "message") if name in parts}
    return JobError(**texts)


def _judgements(value: object) -> dict[str, Mapping[str, int]]:
    arms = value if isinstance(value, dict) else {}
    return {arm: judgements for arm, judgements in arms.items() if isinstance(judgements, dict)}


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and value >= 0 else None


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and value == value else None


# Files.


def located(model: str) -> str:
    """A model as a job names it: a directory by its absolute path, because the job works elsewhere."""
    return str(Path(model).absolute()) if Path(model).is_dir() else model


def write_job(
    job: JobSpec,
    facts: Iterable[Mapping[str, Any]],
    probes: Iterable[Probe],
    anchor: Iterable[Mapping[str, Any]],
) -> None:
    """Facts, probes and anchor set where the job says, and `job.json` last; raises OSError."""
    _write_lines(job.facts, facts)
    _write_lines(job.probes, map(asdict, probes))
    if job.anchor is not None:
        _write_lines(job.anchor, anchor)
    write_json(job.job_dir / JOB, job.to_json())


def halve(job: JobSpec) -> JobSpec:
    """The job as it is started once more, with half of the tokens at a time and without its result."""
    halved = replace(job, halvings=job.halvings + 1)
    for name in (RESULT, PROGRESS, CANCEL):
        (job.job_dir / name).unlink(missing_ok=True)
    write_json(job.job_dir / JOB, halved.to_json())
    return halved


def read_job(job_dir: Path) -> JobSpec:
    """The job of a directory; raises `BadRequest` for what is missing or of the wrong kind."""
    try:
        return JobSpec.from_json(job_dir, json.loads((job_dir / JOB).read_text("utf-8")))
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise BadRequest(f"{job_dir / JOB}: {error!r}") from None


def read_probes(path: Path) -> tuple[Probe, ...]:
    """Probes of a JSON Lines file; raises `BadRequest` with the line for what is none."""
    probes = []
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        if line.strip():
            try:
                probes.append(Probe.from_json(json.loads(line)))
            except (ValueError, TypeError, KeyError) as error:
                raise BadRequest(f"{path.name}, line {number}: {error!r}") from None
    return tuple(probes)


def write_progress(job_dir: Path, progress: Progress) -> None:
    """By rename without fsync: progress that a crash loses is no loss."""
    new = job_dir / f".{PROGRESS}.new"
    new.write_text(json.dumps({**asdict(progress), "time": time.time()}) + "\n", encoding="utf-8")
    new.replace(job_dir / PROGRESS)


def read_progress(job_dir: Path) -> Progress | None:
    """The progress that the job reports; None without a valid report."""
    values = read_json(job_dir / PROGRESS)
    try:
        return None if values is None else Progress.from_json(values)
    except (TypeError, ValueError, OverflowError):
        return None


def write_result(job_dir: Path, result: JobResult) -> None:
    write_json(job_dir / RESULT, asdict(result))


def read_result(job_dir: Path) -> JobResult | None:
    """What the job wrote last, a failure where that is no result; None without a file."""
    if not (job_dir / RESULT).exists():
        return None
    values = read_json(job_dir / RESULT)
    if values is None:
        return JobResult.failed("other", f"{RESULT} is no JSON object")
    return JobResult.from_json(values)


def read_json(path: Path) -> Mapping[str, Any] | None:
    """The JSON object in a file that a job wrote; None without a file, or for anything else in it."""
    try:
        if path.is_symlink() or path.stat().st_size > MAX_JSON_BYTES:
            return None
        value = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def write_json(path: Path, value: object) -> None:
    """The value as JSON under `path`, by rename after fsync; raises OSError."""
    _write(path, (json.dumps(value, indent=2, ensure_ascii=False) + "\n",))


def _write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    _write(path, (json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def _write(path: Path, texts: Iterable[str]) -> None:
    new = path.with_name(f".{path.name}.new")
    with new.open("w", encoding="utf-8") as file:
        file.writelines(texts)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
    sync(path.parent)
