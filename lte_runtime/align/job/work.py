"""The work of one alignment job: data, training, judging, and the result that says how it went."""

from __future__ import annotations

import gc
import json
import os
import platform
import resource
import shutil
import time
import traceback
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from lte_runtime.align import contract, presets
from lte_runtime.align.contract import JobResult, JobSpec, Probe, Progress
from lte_runtime.align.data import dataset, facts
from lte_runtime.align.data.dataset import EncodedRow, Own, TrainingRow
from lte_runtime.align.job import building, judge, train
from lte_runtime.align.job.arms import TorchArms, serving_arms
from lte_runtime.align.job.judge import BaseModel
from lte_runtime.align.job.reporting import ProgressWriter, Signals
from lte_runtime.align.presets import Preset
from lte_runtime.answer.engine.files import (
    CONFIG,
    MANIFEST,
    WEIGHTS,
    base_fingerprint,
    resolve,
    verify_adapter,
)
from lte_runtime.answer.engine.hf import choose_device, choose_dtype
from lte_runtime.answer.engine.tokenizer import load_tokenizer
from lte_runtime.answer.engine.vllm.greedy_answers import KEY as GREEDY_ANSWERS
from lte_runtime.disk import sha256_file, sync
from lte_runtime.errors import BadRequest, Cancelled, Damaged, DeadlineExceeded, Refused

Result = TypeVar("Result")


@dataclass
class JobRun:
    """One run of a job in this process; `rank` 0 builds, judges and writes."""

    job: JobSpec
    preset: Preset
    progress: ProgressWriter
    signals: Signals
    rank: int = 0
    judged_by: str = ""
    greedy_answers: Mapping[str, Any] = field(default_factory=dict)
    directory: Path = field(init=False)
    device: torch.device = field(init=False)
    dtype: torch.dtype = field(init=False)

    def __post_init__(self) -> None:
        self.directory = resolve(self.job.base)
        self.device = choose_device(self.job.device)
        if self.device.type == "cuda" and dist.is_initialized():
            self.device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        self.dtype = choose_dtype(self.job.dtype, self.device)

    def tick(self, phase: str) -> judge.Tick:
        def moved(done: int, total: int) -> None:
            self.progress(phase, done, total)
            self.signals.check()

        return moved

    def load_base_model(self, halvings: int) -> BaseModel:
        return building.load_base_model(self.directory, self.dtype, self.device, self.preset, halvings)


def run(job_dir: Path, signals: Signals, shown: Callable[[Progress], None] = lambda _: None) -> JobResult:
    """Runs the job of `job_dir` and returns its result, written last. Never raises for a failed job."""
    rank = _rank()
    started = time.monotonic()
    try:
        job = contract.read_job(job_dir)
        if job.deadline_s is not None:
            signals.deadline = started + job.deadline_s
        progress = ProgressWriter(job_dir, silent=rank > 0, shown=shown)
        chosen = presets.adjusted(presets.preset(job.preset), job.changes)
        result = _work(JobRun(job, chosen, progress, signals, rank))
    except Exception as error:
        if rank > 0:
            raise
        result = ended(error)
    result = replace(result, seconds=round(time.monotonic() - started, 1))
    if rank == 0:
        contract.write_result(job_dir, result)
    return result


def ended(error: Exception) -> JobResult:
    """The result of a run that ended by `error`."""
    if isinstance(error, Cancelled):
        return JobResult(contract.CANCELLED)
    kind = "other"
    if train.out_of_memory(error):
        kind = "out_of_memory"
    elif isinstance(error, DeadlineExceeded):
        kind = "deadline"
    elif isinstance(error, BadRequest | Damaged):
        kind = "data"
    if kind == "other" and not isinstance(error, Refused):
        traceback.print_exception(error)
    return JobResult.failed(kind, str(error) or type(error).__name__)


def _work(run: JobRun) -> JobResult:
    job = run.job
    if base_fingerprint(run.directory) != job.base_fingerprint:
        raise BadRequest(
            "the base model does not have the fingerprint in job.json: it is another model or it was changed"
        )
    if job.max_memory_bytes:
        _limit_memory(job.max_memory_bytes, run.device)
    probes = contract.read_probes(job.probes) if job.probes.exists() else ()
    rows, data = _data(run, probes)
    _free(run)
    outcome = _trained(run, rows, data)
    _free(run)
    if run.rank > 0:
        return JobResult(contract.DONE)
    judged = _judged(run, probes)
    scores = _scores(judged, probes)
    folder = job.job_dir / contract.ADAPTER
    manifest = _manifest(run, data, outcome, scores)
    contract.write_json(folder / MANIFEST, manifest)
    return JobResult(
        contract.DONE,
        adapter=contract.ADAPTER,
        adapter_hash=verify_adapter(folder, job.base_fingerprint).ref.sha256,
        judged=judged,
        rows=data["rows"],
        data_hash=data["data_hash"],
        updates=outcome["updates"],
        loss=outcome["loss"],
    )


def _limit_memory(most: int, device: torch.device) -> None:
    """Beyond it allocation fails here, as out of memory, before the machine has to choose whom to kill. On a
    GPU it is the device's memory: what serves there keeps the rest."""
    if device.type == "cuda":
        device_bytes = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, most / device_bytes), device)
        return
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (most if hard < 0 else min(most, hard), hard))


def _halving(run: JobRun, action: Callable[[int], Result]) -> Result:
    """The action with the tokens at a time that the preset says; out of memory once: with half of them."""
    halvings = run.job.halvings
    try:
        return action(halvings)
    except (RuntimeError, MemoryError) as error:
        if not train.out_of_memory(error):
            raise
    _free(run)
    return action(halvings + 1)


def _free(run: JobRun) -> None:
    """Gives back what the last phase held: a trainer's references go in circles."""
    gc.collect()
    if run.device.type == "cuda":
        torch.cuda.empty_cache()


# Data.


def _data(run: JobRun, probes: Sequence[Probe]) -> tuple[list[TrainingRow], dict[str, Any]]:
    """The frozen rows, made by rank 0 while the others wait."""
    folder = run.job.job_dir / contract.DATA
    if run.rank == 0 and dataset.read_rows(folder) is None:
        _halving(run, lambda halvings: _write_data(run, folder, probes, halvings))
    if dist.is_initialized():
        dist.barrier()
    data_set = dataset.read_rows(folder)
    if data_set is None:
        raise Damaged("the data set was not written")
    return data_set


def _write_data(run: JobRun, folder: Path, probes: Sequence[Probe], halvings: int) -> dict[str, Any]:
    run.progress("building", 0, run.preset.cases)
    base_model = run.load_base_model(halvings)
    near, described = building.neighbours(run.job.neighbours)
    edits = facts.load(run.job.facts)
    anchor = facts.load(run.job.anchor, "replay") if run.job.anchor else ()
    material = building.material(edits, anchor, run.preset, base_model, near, run.job.seed)
    tally = dataset.RowTally()
    drawn = islice(dataset.cases(material, run.preset.mixture, run.job.seed), run.preset.cases)

    def ask(questions: Sequence[str], measured: Collection[str]) -> Sequence[Own]:
        return base_model.own(questions, measured, tick=lambda _done, _total: run.signals.check())

    rows = dataset.rows(drawn, ask, run.preset.mixture, tally)
    return dataset.write_rows(
        _unseen(run, rows, probes, tally),
        folder,
        {
            "seed": run.job.seed,
            "preset": run.preset.name,
            "base_fingerprint": run.job.base_fingerprint,
            "facts_hash": sha256_file(run.job.facts),
            "anchor_hash": sha256_file(run.job.anchor) if run.job.anchor else None,
            "neighbours": described,
            "known": len(material.known_facts),
        },
        tally,
    )


def _unseen(run: JobRun, rows: Any, probes: Sequence[Probe], tally: dataset.RowTally) -> Any:
    """Rows that ask no probe's question: judging on them would measure memory."""
    probe_questions = {probe.question for probe in probes}
    for row in rows:
        run.tick("building")(row.case, run.preset.cases)
        if row.question in probe_questions:
            tally.withdraw(row, "probe")
        else:
            yield row


# Training.


def _trained(run: JobRun, rows: Sequence[TrainingRow], data: Mapping[str, Any]) -> dict[str, Any]:
    """The adapter under `adapter/`; how it was trained, from the manifest when that was done before."""
    folder = run.job.job_dir / contract.ADAPTER
    if folder.exists():
        training: dict[str, Any] = json.loads((folder / MANIFEST).read_text("utf-8"))["training"]
        return training
    return _halving(run, lambda halvings: _fit(run, rows, data, halvings))


def _fit(run: JobRun, rows: Sequence[TrainingRow], data: Mapping[str, Any], halvings: int) -> dict[str, Any]:
    job, preset = run.job, run.preset
    checkpoints = job.job_dir / contract.CHECKPOINTS
    bf16 = train.trains_in_bf16(run.dtype, run.device, checkpoints)
    settings = replace(preset.settings, seed=job.seed, halvings=halvings, bf16=bf16)
    learnt, held = _encoded(run, rows)
    # Small weights are kept in float32 where they are trained under; large ones stay as they are served.
    dtype = torch.float32 if run.device.type == "cpu" else run.dtype
    model = building.load_model(run.directory, dtype, run.device)
    warm = _start(run)
    adapted = train.with_start(model, warm) if warm else train.with_adapter(model, settings)
    started = time.monotonic()

    def watch(done: train.Update) -> None:
        run.progress("training", done.number, done.total, done.loss, rows_each=settings.batch)

    outcome = train.train(
        adapted,
        learnt,
        settings,
        folder=checkpoints,
        held=held,
        watch=watch,
        stopping=run.signals.stopping,
    )
    if outcome.stopped:
        run.signals.check()
        raise Cancelled("another process of this job was cancelled")
    if not warm and preset.keep < 1:
        train.soften(adapted, preset.keep)
    described = {
        "updates": outcome.updates,
        "loss": outcome.loss,
        "best_held_out_loss": outcome.best,
        "rows": len(learnt),
        "held_out": len(held),
        "halvings": halvings,
        "bf16": bf16,
        "warm_start": warm.name if warm else None,
        "seconds": round(time.monotonic() - started, 1),
    }
    if run.rank == 0:
        _store(run, adapted, data, described)
    return described


def _encoded(run: JobRun, rows: Sequence[TrainingRow]) -> tuple[list[EncodedRow], list[EncodedRow]]:
    """Rows to learn and held-out ones, whole cases each; what does not fit in the prompt is left out."""
    tokenizer = load_tokenizer(run.directory)
    last = max(row.case for row in rows) if rows else 0
    border = last * (1 - run.preset.held_out)
    learnt: list[EncodedRow] = []
    held: list[EncodedRow] = []
    for row in rows:
        try:
            encoded = dataset.encode(tokenizer, row.example, run.preset.max_tokens)
        except BadRequest:
            continue
        (held if row.case > border else learnt).append(encoded)
    if len(learnt) < run.preset.settings.batch:
        raise BadRequest(
            f"only {len(learnt)} training rows, but one update needs {run.preset.settings.batch}"
        )
    return learnt, held


def _start(run: JobRun) -> Path | None:
    """The incumbent as a start, where the preset and the job want it and its bytes are sound."""
    incumbent = run.job.incumbent
    if incumbent is None or run.job.fresh or not run.preset.warm_start:
        return None
    verify_adapter(incumbent, run.job.base_fingerprint)
    return incumbent


def _store(run: JobRun, adapted: Any, data: Mapping[str, Any], described: Mapping[str, Any]) -> None:
    """Adapter files, then the manifest without scores, then the name: judging needs a whole adapter."""
    folder = run.job.job_dir / contract.ADAPTER
    new = folder.with_name(".adapter.new")
    shutil.rmtree(new, ignore_errors=True)
    train.save(adapted, new)
    contract.write_json(new / MANIFEST, _manifest_of(run, new, data, described, {}))
    new.rename(folder)
    sync(run.job.job_dir)


def _manifest(
    run: JobRun, data: Mapping[str, Any], described: Mapping[str, Any], scores: Mapping[str, Any]
) -> dict[str, Any]:
    return _manifest_of(run, run.job.job_dir / contract.ADAPTER, data, described, scores)


def _manifest_of(
    run: JobRun,
    folder: Path,
    data: Mapping[str, Any],
    described: Mapping[str, Any],
    scores: Mapping[str, Any],
) -> dict[str, Any]:
    packages = ("torch", "transformers", "peft", "tokenizers")
    job = run.job
    return {
        "id": job.name,
        "base_fingerprint": job.base_fingerprint,
        "files": {name: sha256_file(folder / name) for name in (CONFIG, WEIGHTS)},
        "data_hash": data["data_hash"],
        "edit_ids": sorted({*data["edit_ids"], *_inherited(run, described)}),
        "recipe": f"align-{job.preset}",
        "seed": job.seed,
        "epoch": job.epoch,
        "training": dict(described),
        "data": {name: data[name] for name in ("rows", "kinds", "sources", "dropped", "neighbours")},
        "scores": dict(scores),
        "judged_by": run.judged_by,
        GREEDY_ANSWERS: run.greedy_answers,
        "versions": {"python": platform.python_version(), **{name: version(name) for name in packages}},
        "created": time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime()),
    }


def _inherited(run: JobRun, described: Mapping[str, Any]) -> list[str]:
    """Edits that the adapter's start was trained on: it carries them on."""
    if not described["warm_start"] or run.job.incumbent is None:
        return []
    manifest = json.loads((run.job.incumbent / MANIFEST).read_text("utf-8"))
    return [str(edit) for edit in manifest.get("edit_ids", ())]


# Judging.


def _judged(run: JobRun, probes: Sequence[Probe]) -> dict[str, Mapping[str, int]]:
    arms = {"candidate": run.job.job_dir / contract.ADAPTER}
    if run.job.incumbent:
        arms["incumbent"] = run.job.incumbent
    run.progress("judging", 0, len(probes) * (len(arms) + 1))

    def judge_probes(halvings: int) -> dict[str, dict[str, int]]:
        tick = run.tick("judging")
        base_model, job = run.load_base_model(halvings), run.job
        serving = serving_arms(
            job.runtime,
            run.directory,
            base_model.model,
            run.device,
            job.base_fingerprint,
            run.preset.settings.threads,
        )
        run.judged_by = serving.runtime
        own = TorchArms(base_model.model, run.device, job.base_fingerprint)
        run.greedy_answers = judge.greedy_answers(base_model, own, arms["candidate"])
        return judge.judge(base_model, serving, arms, probes, tick)

    return {**contract.NO_JUDGEMENTS, **_halving(run, judge_probes)}


def _scores(judged: Mapping[str, Mapping[str, int]], probes: Sequence[Probe]) -> dict[str, dict[str, float]]:
    """Share right of each arm by kind of probe."""
    kinds: dict[str, list[str]] = {}
    for probe in probes:
        kinds.setdefault(probe.kind, []).append(probe.id)
    return {
        arm: {kind: round(sum(right[i] for i in ids) / len(ids), 4) for kind, ids in kinds.items()}
        for arm, right in judged.items()
        if right
    }


def _rank() -> int:
    return dist.get_rank() if dist.is_initialized() else int(os.environ.get("RANK", "0"))
