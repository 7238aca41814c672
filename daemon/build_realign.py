"""The parts of re-alignment, made from the settings: runner, control topic, audit, and the state machine."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass

from daemon.adapters.following import owned_epoch
from daemon.adapters.manager import AdapterManager
from daemon.adapters.swap import Swapper
from daemon.build_topics import audit_topic, control_topic
from daemon.drift_watch import DriftWatch
from daemon.kafka.audit import Audit
from daemon.kafka.control import ControlTopic
from daemon.metrics import Metrics
from daemon.realign.control import Command
from daemon.realign.parts import AlignedModel, RealignerSettings, RealignParts
from daemon.realign.realigner import JOBS, Realigner
from daemon.realign.runner import Runner, RunnerSettings
from daemon.schedule import Window
from daemon.settings import Settings
from lte_runtime import embedded
from lte_runtime.align import contract
from lte_runtime.align.material import AdmissionRules
from lte_runtime.align.runs import Run, Trigger
from lte_runtime.answer.engine.protocol import Engine
from lte_runtime.errors import Refused
from lte_runtime.memory.edit_memory import EditMemory

STUB_JOB, JOB = "lte_runtime.align.stub_job", "lte_runtime.align.job"


@dataclass(frozen=True)
class Serving:
    """What re-alignment works on: the memory, the model that serves, its adapters, and the watch on drift."""

    memory: EditMemory
    engine: Engine
    adapter_manager: AdapterManager
    swapper: Swapper
    drift: DriftWatch | None
    metrics: Metrics


@dataclass(frozen=True)
class Realignment:
    """`control` and `audit` are None where their topics are off. Their threads are not started yet."""

    realigner: Realigner
    control: ControlTopic | None
    audit: Audit | None


def realignment(settings: Settings, serving: Serving, *, stub: bool) -> Realignment:
    """`stub`: the model has no weights, and neither has its trainer."""
    control = control_topic(settings, serving.metrics.passed_over)
    audit = audit_topic(settings, control.instance if control else "")
    watch, manager, memory = serving.drift, serving.adapter_manager, serving.memory

    def changed(run: Run) -> None:
        if not run.state.active:
            serving.metrics.realigned(run.state, run.trigger)
        if audit is not None:
            audit.write("realign", {"run": run.id, "state": run.state, "message": run.message})

    parts = RealignParts(
        memory=memory,
        registry=manager,
        swapper=serving.swapper,
        runner=Runner(runner_settings(settings, stub=stub)),
        base=base_of(settings, serving.engine.fingerprint),
        incumbent=manager.serving_directory,
        tainted=lambda: len(manager.tainted()),
        epoch=owned_epoch(control.epoch, memory.adapters) if control else memory.adapters.epoch,
        since_row=(lambda: watch.since_row) if watch else (lambda: 0),
        building=watch.building if watch else (lambda: None),
        owned=(lambda: control.status().owns) if control else (lambda: True),
        on_change=changed,
        audit=audit.write if audit else (lambda _kind, _what: None),
        window_open=_window(settings.realign.window),
    )
    realigner = Realigner(settings.state_dir / JOBS, parts, realign_settings(settings, stub=stub))
    if watch is not None:
        watch.situation = realigner.situation
        watch.relations = realigner.relations
    if control is not None:
        control.ready = lambda: realigner.runs.active() is None
        control.on_command = _on_command(realigner)
    return Realignment(realigner, control, audit)


def _on_command(realigner: Realigner) -> Callable[[Command], None]:
    """The realigner's thread gets the epoch: the one that reads the topic must go on reading it."""

    def start(command: Command) -> None:
        realigner.enqueue(Trigger.CONTROL, [command.reason or "requested on the control topic"], command.id)

    return start


def _window(expression: str) -> Callable[[], bool]:
    window = Window(expression)
    return lambda: window.open(time.time_ns() // 1_000_000)


def runner_settings(settings: Settings, *, stub: bool) -> RunnerSettings:
    chosen = settings.realign
    return RunnerSettings(
        command=chosen.command,
        module=STUB_JOB if stub else JOB,
        nice=chosen.nice,
        threads=chosen.threads,
        max_file_bytes=chosen.max_file_bytes,
        kill_after_s=chosen.kill_after_s,
    )


def realign_settings(settings: Settings, *, stub: bool) -> RealignerSettings:
    chosen = settings.realign
    preset = chosen.preset
    if preset == "auto":
        preset = "stub" if stub else "embedded"
    if preset.partition(":")[0] == "stub" and not stub:
        raise Refused("realign.preset = 'stub' is for model.path = 'stub'")
    return RealignerSettings(
        preset=preset,
        changes=chosen.changes,
        neighbours=contract.located(settings.encoder.model),
        deadline_s=chosen.deadline_s,
        backoff_s=chosen.backoff_s,
        max_memory_bytes=chosen.max_memory_bytes or half_of_memory(),
        keep=chosen.keep_jobs,
        anchor=chosen.replay_facts,
        anchor_file=chosen.anchor,
        seed=chosen.seed,
        rules=AdmissionRules(
            min_age_ms=round(chosen.min_fact_age_s * 1000),
            per_publisher=chosen.max_facts_per_publisher,
            most=chosen.max_facts,
        ),
    )


def base_of(settings: Settings, fingerprint: str) -> AlignedModel:
    """The model as a job finds it."""
    chosen = settings.model
    path = contract.located(str(embedded.SHIPPED.get(chosen.path, chosen.path)))
    return AlignedModel(path, fingerprint, chosen.device, chosen.dtype)


def half_of_memory() -> int:
    """Bytes: the other half stays with serving."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
