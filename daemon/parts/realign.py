"""Re-alignment, as the settings want it: its jobs, their limits, the state machine."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass

from daemon.adapters.manager import AdapterManager
from daemon.adapters.ownership import Ownership
from daemon.adapters.swap import Swapper
from daemon.drift_store import DriftStateStore
from daemon.kafka.audit import Audit
from daemon.metrics import Metrics
from daemon.parts.models import is_stub, training_dtype
from daemon.realign.parts import AlignedModel, RealignerSettings, RealignParts
from daemon.realign.realigner import JOBS, Realigner
from daemon.realign.runner import Runner, RunnerSettings
from daemon.schedule import Window
from daemon.settings import Settings
from lte_runtime.align import contract, presets
from lte_runtime.align.material import AdmissionRules
from lte_runtime.align.runs import Run
from lte_runtime.answer.engine.protocol import Engine
from lte_runtime.errors import Refused
from lte_runtime.memory.edit_memory import EditMemory
from lte_runtime.models.resolve import base_model

STUB_JOB, JOB = "lte_runtime.align.stub_job", "lte_runtime.align.job"


@dataclass(frozen=True)
class Serving:
    """What re-alignment works on: the memory, the model that serves and its adapters. `drift_store` is None
    where drift is not watched."""

    memory: EditMemory
    engine: Engine
    adapter_manager: AdapterManager
    swapper: Swapper
    drift_store: DriftStateStore | None
    metrics: Metrics


def realigner_over(serving: Serving, settings: Settings, owner: Ownership, audit: Audit | None) -> Realigner:
    """Its thread is not started."""
    store, manager = serving.drift_store, serving.adapter_manager

    def changed(run: Run) -> None:
        if not run.state.active:
            serving.metrics.realigned(run.state, run.trigger)
        if audit is not None:
            audit.write("realign", {"run": run.id, "state": run.state, "message": run.message})

    parts = RealignParts(
        memory=serving.memory,
        registry=manager,
        swapper=serving.swapper,
        runner=Runner(runner_settings(settings)),
        base=base_of(settings, serving.engine.fingerprint, serving.engine.runtime),
        incumbent=manager.serving_directory,
        tainted=lambda: len(manager.tainted()),
        epoch=owner.epoch,
        since_row=(lambda: store.since_row) if store else (lambda: 0),
        building=store.note_building if store else (lambda: None),
        owned=owner.owns,
        on_change=changed,
        audit=audit.write if audit else (lambda _kind, _what: None),
        window_open=_window(settings.realign.window),
    )
    return Realigner(settings.state_dir / JOBS, parts, realigner_settings(settings))


def _window(expression: str) -> Callable[[], bool]:
    window = Window(expression)
    return lambda: window.open(time.time_ns() // 1_000_000)


def runner_settings(settings: Settings) -> RunnerSettings:
    chosen = settings.realign
    return RunnerSettings(
        command=chosen.command,
        module=STUB_JOB if is_stub(settings.model.path) else JOB,
        nice=chosen.nice,
        threads=chosen.threads,
        kill_after_s=chosen.kill_after_s,
    )


def realigner_settings(settings: Settings) -> RealignerSettings:
    chosen, stub = settings.realign, is_stub(settings.model.path)
    preset = chosen.preset
    if preset == "auto":
        preset = "stub" if stub else "demo-small"
    if preset.partition(":")[0] == "stub" and not stub:
        raise Refused("realign.preset = 'stub' is for model.path = 'stub'")
    return RealignerSettings(
        preset=preset,
        changes=chosen.changes,
        probes=1.0 if stub else presets.adjusted(presets.preset(preset), chosen.changes).probes,
        neighbours=contract.located(settings.encoder.model),
        deadline_s=chosen.deadline_s,
        backoff_s=chosen.backoff_s,
        max_memory_bytes=chosen.max_memory_bytes or half_of_memory(),
        anchor=chosen.replay_facts,
        anchor_file=chosen.anchor,
        rules=AdmissionRules(
            min_age_ms=round(chosen.min_fact_age_s * 1000),
            per_publisher=chosen.max_facts_per_publisher,
            most=chosen.max_facts,
        ),
    )


def base_of(settings: Settings, fingerprint: str, runtime: str = "transformers") -> AlignedModel:
    """The model as a job finds it."""
    chosen = settings.model
    path = contract.located(base_model(chosen.path, chosen.cache))
    return AlignedModel(path, fingerprint, chosen.device, training_dtype(settings), runtime)


def half_of_memory() -> int:
    """Bytes: the other half stays with serving."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
