"""From the facts in the memory to a job directory: which may be learned, which are held out to judge."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

from daemon.realign.parts import RealignerSettings, RealignMemory, RealignParts, RunEnded
from lte_runtime.align import contract, material
from lte_runtime.align.contract import JobSpec, Probe
from lte_runtime.align.data.facts import FactRecord, load
from lte_runtime.align.material import LearnableFact
from lte_runtime.align.runs import Run, RunState
from lte_runtime.errors import NotFound
from lte_runtime.private_files import make_private
from lte_runtime.types import Fact, FactKey

LEAST_FACTS = 60


@dataclass(frozen=True, slots=True)
class BuiltJob:
    """A job in its directory; `edit_ids` are those of all facts that it may learn from."""

    job: JobSpec
    probes: tuple[Probe, ...]
    edit_ids: frozenset[str]
    facts: int
    anchor: int
    relations: tuple[str, ...]


def build_job(run: Run, job_dir: Path, parts: RealignParts, settings: RealignerSettings) -> BuiltJob:
    """The job of a run. Raises `RunEnded` where too few facts may be learned, `BadRequest` for an anchor file
    that holds none, OSError where files cannot be written."""
    new, older = learnable_facts(parts.memory, settings, parts.since_row(), run.seed)
    now_ms = parts.now()
    admitted = material.admitted(new, settings.rules, run.seed, now_ms)
    _refuse_too_few(admitted)
    parted = material.split(admitted.facts, run.seed)
    held_keys = {fact.key for fact in parted.held_out}
    replay_rules = replace(settings.rules, most=settings.anchor)
    replay = material.admitted(older, replay_rules, run.seed + 1, now_ms).facts
    anchor = tuple(fact for fact in replay if fact.key not in held_keys)
    counts = material.counts_of(settings.probes)
    probes = material.job_probes(parted.held_out, (*parted.learnt, *anchor), run.seed, counts)
    own_anchor = load(settings.anchor_file, "replay") if settings.anchor_file else ()
    learnt = [material.fact_record(fact) for fact in parted.learnt]
    replayed = [*map(material.fact_record, anchor), *own_anchor]
    job = _job_spec(run, job_dir, parts, settings, has_anchor=bool(replayed))
    shutil.rmtree(job_dir, ignore_errors=True)
    make_private(job_dir)
    contract.write_job(job, map(FactRecord.to_json, learnt), probes, map(FactRecord.to_json, replayed))
    return BuiltJob(
        job,
        probes,
        edit_ids=frozenset(record.edit_id for record in (*learnt, *replayed)),
        facts=len(parted.learnt),
        anchor=len(anchor),
        relations=tuple(sorted({fact.key.relation for fact in (*admitted.facts, *anchor) if fact.relation})),
    )


def _refuse_too_few(admitted: material.Admitted) -> None:
    if len(admitted.facts) >= LEAST_FACTS:
        return
    left_out = ", ".join(f"{count} {why}" for why, count in sorted(admitted.left_out.items()))
    message = f"only {len(admitted.facts)} facts may be learned from, at least {LEAST_FACTS} are needed"
    raise RunEnded(RunState.REJECTED, f"{message}; left out: {left_out or 'none'}")


def _job_spec(
    run: Run, job_dir: Path, parts: RealignParts, settings: RealignerSettings, *, has_anchor: bool
) -> JobSpec:
    incumbent = parts.incumbent()
    return JobSpec(
        job_dir=job_dir,
        id=run.id,
        name=parts.registry.next_id(),
        preset=settings.preset,
        base=parts.base.path,
        base_fingerprint=parts.base.fingerprint,
        incumbent=None if incumbent is None else incumbent.absolute(),
        facts=job_dir / contract.FACTS,
        probes=job_dir / contract.PROBES,
        anchor=job_dir / contract.ANCHOR if has_anchor else None,
        seed=run.seed,
        epoch=run.epoch,
        deadline_s=settings.deadline_s,
        device=parts.base.device,
        dtype=parts.base.dtype,
        runtime=parts.base.runtime,
        max_memory_bytes=settings.max_memory_bytes,
        neighbours=settings.neighbours,
        # A tainted incumbent is no place to start from.
        fresh=run.tainted,
        changes=settings.changes,
    )


def learnable_facts(
    memory: RealignMemory, settings: RealignerSettings, since_row: int, seed: int
) -> tuple[list[LearnableFact], list[LearnableFact]]:
    """What is new since the last alignment, filled up from the rest; and the older facts to replay."""
    most = settings.rules.most
    # Several edits may share a key: a few times as many rows hold as many keys as can be used.
    reach = 8 * most
    rows = memory.arrivals(max(since_row, memory.last_row() - reach), reach)
    new = list(dict.fromkeys(row.key_id for row in reversed(rows) if row.key_id is not None))[: 2 * most]
    facts = memory.facts_of_keys(new)
    keys = {fact.key for fact in facts}
    drawn = memory.sample_facts(most + settings.anchor, Random(f"{seed}:older"))
    older = [fact for fact in drawn if fact.key not in keys]
    missing = max(0, most // 4 - len(facts))
    return _with_times(memory, (*facts, *older[:missing])), _with_times(memory, older[missing:])


def _with_times(memory: RealignMemory, facts: Sequence[Fact]) -> list[LearnableFact]:
    """Each fact with its time and whether it is disputed. The members of a set share one history."""
    histories = {key: _history(memory, key) for key in dict.fromkeys(fact.key for fact in facts)}
    return [_learnable(fact, *histories[fact.key]) for fact in facts]


def _history(memory: RealignMemory, key: FactKey) -> tuple[dict[str, int], bool]:
    """Edit id -> timestamp, and whether an edit lost to another at the same revision or start."""
    try:
        history = memory.history(key)
    except NotFound:  # erased meanwhile
        return {}, True
    times = {record.edit.id: record.edit.timestamp_ms for record in reversed(history)}
    return times, any(record.state == "conflict_lost" for record in history)


def _learnable(fact: Fact, times: Mapping[str, int], disputed: bool) -> LearnableFact:
    return LearnableFact(fact, times.get(fact.edit_id, 0), disputed or fact.edit_id not in times)
