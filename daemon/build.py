"""From settings to a running daemon. Below this, parts take values.

Start: lock and edit memory, then ingest (it catches up while the model loads), then the engine, then the
sockets. Stop in reverse, each step so that the next finds nothing half done: calls drained, re-alignment,
engine, timetable, ingest, snapshot, dead letters, memory.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version

import structlog

from daemon import readings
from daemon.adapters.following import AdapterReplica
from daemon.adapters.manager import AdapterManager
from daemon.adapters.ownership import Ownership, ownership
from daemon.adapters.promotion_watch import PromotionWatch
from daemon.adapters.swap import DONE, Swap, Swapper
from daemon.drift_store import DriftStateStore
from daemon.drift_watch import RIGHT, SKIPPED, DriftWatch
from daemon.dry_run import DryRunner
from daemon.ingest.ingest import Ingest
from daemon.kafka.audit import Audit
from daemon.kafka.control import ControlTopic
from daemon.lifecycle import Lifecycle, LifecycleStatus
from daemon.metrics import Metrics, MetricsServer
from daemon.parts import adapters, answers, models, topics
from daemon.parts.memory import ingest_settings, memory_settings
from daemon.parts.realign import Serving, realigner_over
from daemon.realign.control import Command
from daemon.realign.realigner import Realigner
from daemon.rpc.access import is_operator_act
from daemon.rpc.interceptors import Call
from daemon.rpc.server import RpcServer
from daemon.rpc.services import About, Services
from daemon.rpc.token_store import TokenStore
from daemon.schedule import ACCESS, WATCH, Schedule
from daemon.settings import OFF, Settings
from daemon.threads import Threads
from lte_runtime.align.runs import Trigger
from lte_runtime.answer.answerer import Answerer, AnswerMemory
from lte_runtime.answer.engine.protocol import AdapterEngine
from lte_runtime.answer.scope.gate import GateCalibration
from lte_runtime.errors import Fatal, LteError, NotFound, on_fatal
from lte_runtime.memory.edit_memory import EditMemory
from lte_runtime.types import Encoder

log = structlog.get_logger(__name__)
VERSION = version("lte-daemon")
TICK_S = 1.0
# How often the indexes are asked for dead vectors: a comparison of two counts for each namespace.
MAINTAIN_INTERVAL_S = 5.0
# Time between two checks of the indexes' recall, each some dozens of searches against a scan: what lowers it
# grows over thousands of edits.
RECALL_INTERVAL_S = 600.0
# Time between two hashes of all facts, each a read of the keys: minutes of replicas that differ cost little.
STATE_INTERVAL_S = 600.0
RECALL, STATE = "recall", "state"
# How soon a changed token file holds: a stat of it costs nothing.
TOKENS_INTERVAL_S = 1.0
# How soon the state says that a server of the model is away: a look at what the engine knows costs nothing.
ENGINE_INTERVAL_S = 0.5
# Reasons to be DEGRADED: the token file cannot be used; another adapter serves than the pointer says, or than
# was announced; a server of the model is away.
TOKENS, ADAPTER, ANNOUNCED, ENGINE = "tokens", "adapter", "announced", "engine"


class Daemon:
    """All parts of one process, running. Leaving it stops them, in reverse of their start."""

    def __init__(self, lifecycle: Lifecycle, threads: Threads, undo: ExitStack) -> None:
        self._lifecycle, self._threads, self._undo = lifecycle, threads, undo

    def __enter__(self) -> Daemon:
        return self

    def __exit__(self, *_: object) -> None:
        self._lifecycle.set_stopping()
        log.info("stopping")
        self._undo.close()
        log.info("stopped")

    def run(self, stop: threading.Event, on_tick: Callable[[LifecycleStatus], None] = lambda _: None) -> None:
        """Wait for `stop` or for a thread that failed, whose error is raised. `on_tick` is called each second
        while none has."""
        while not stop.wait(TICK_S):
            self._lifecycle.tick()
            self._threads.check()
            on_tick(self._lifecycle.status())


@dataclass(frozen=True)
class _Base:
    """What the other parts are built on. The threads of `control` and `audit`, None where their topics are
    off, and the timetable are not started yet."""

    settings: Settings
    undo: ExitStack
    threads: Threads
    started_ms: int
    lifecycle: Lifecycle
    metrics: Metrics
    schedule: Schedule
    encoder: Encoder
    calibration: GateCalibration
    memory: EditMemory
    control: ControlTopic | None
    audit: Audit | None
    owner: Ownership


def build(settings: Settings, end_process: Callable[[Fatal], None] = lambda _: None) -> Daemon:
    """Start all parts, each after those that it needs. When one cannot start, its error is raised and those
    before it are stopped.

    `end_process` is called when any part meets a `Fatal` once the memory is open; it need not return.
    """
    with ExitStack() as undo:
        base = _base(settings, end_process, undo)
        _serve_metrics(base)
        ingest = _start_ingest(base)
        _start_upkeep(base)
        engine = _load_engine(base)
        swapper, manager = _serve_adapter(base, engine)
        _start_announcements(base, engine, swapper)
        publisher = undo.enter_context(closing(topics.publisher(settings)))
        answerer_over = partial(_answerer_over, base, engine)
        answerer = answerer_over(base.memory)
        drift_store = DriftStateStore(base.memory) if settings.drift.enabled else None
        serving = Serving(base.memory, engine, manager, swapper, drift_store, base.metrics)
        realigner = realigner_over(serving, settings, base.owner, base.audit)
        drift = _start_drift(base, engine, answerer, swapper, realigner, drift_store)
        _start_realigner(base, realigner, drift)
        services = Services(
            answerer=answerer,
            memory=base.memory,
            lifecycle=base.lifecycle,
            engine=engine,
            about=About(VERSION, base.started_ms, base.calibration.encoder, base.calibration.threshold),
            ingest=ingest,
            publisher=publisher,
            drift=drift,
            adapters=manager,
            realigner=realigner,
            dry_runner=DryRunner(base.memory, base.encoder, answerer_over),
            max_new_tokens=settings.answer.max_new_tokens,
            max_new_tokens_limit=settings.answer.max_new_tokens_limit,
            deadline_s=settings.answer.deadline_s,
            deadline_max_s=settings.answer.deadline_max_s,
            max_waiting=answers.waiting_limit(settings),
            on_answer=partial(readings.count_answer, base.metrics),
            on_feedback=base.metrics.judged,
        )
        _listen(base, services)
        base.lifecycle.on_change(_log_state)
        _log_state(base.lifecycle.status())
        # Once something is served, not ten minutes later.
        for job in (RECALL, STATE):
            base.schedule.soon(job)
        return Daemon(base.lifecycle, base.threads, undo.pop_all())


# -- in the order of their start -------------------------------------------------------------------------


def _base(settings: Settings, end_process: Callable[[Fatal], None], undo: ExitStack) -> _Base:
    started_ms = time.time_ns() // 1_000_000
    lifecycle = Lifecycle(stale_after_s=settings.kafka.stale_after_s)
    metrics = Metrics()
    encoder = models.encoder(settings)
    calibration = models.calibration(settings, encoder)
    memory = _open_memory(settings, encoder, undo)
    undo.enter_context(on_fatal(end_process))
    control = topics.control(settings, metrics.passed_over)
    return _Base(
        settings=settings,
        undo=undo,
        threads=Threads(undo),
        started_ms=started_ms,
        lifecycle=lifecycle,
        metrics=metrics,
        schedule=Schedule(lambda job, ok, seconds: metrics.ran(job, ok=ok, seconds=seconds)),
        encoder=encoder,
        calibration=calibration,
        memory=memory,
        control=control,
        audit=topics.audit(settings, control.instance if control else ""),
        owner=ownership(control, memory.adapters, away=lambda: lifecycle.stale),
    )


def _open_memory(settings: Settings, encoder: Encoder, undo: ExitStack) -> EditMemory:
    memory = EditMemory.open(
        settings.state_dir, encoder, memory_settings(settings), on_progress=_log_encoding
    )
    undo.callback(memory.close)
    if memory.attempts.fault:
        log.error("last_run_died", trace=memory.attempts.fault[:2000])
    undo.enter_context(memory.attempts.watch())
    return memory


def _serve_metrics(base: _Base) -> None:
    """From now on: the other parts are added to the metrics as they come."""
    base.metrics.watch(partial(readings.of_lifecycle, base.lifecycle))
    base.metrics.watch(partial(readings.of_memory, base.memory))
    if base.settings.metrics.listen != OFF:
        server = MetricsServer(base.metrics, base.settings.metrics.listen)
        base.undo.callback(server.stop)
        log.info("metrics", address=server.address)


def _start_ingest(base: _Base) -> Ingest:
    dead_letters = topics.dead_letters(base.settings, base.memory, base.control, base.metrics.passed_over)
    base.threads.start("dead-letters", dead_letters)
    ingest = Ingest(
        base.memory,
        topics.source(base.settings),
        base.lifecycle,
        ingest_settings(base.settings),
        on_batch=partial(readings.count_batch, base.metrics),
        on_rejected=dead_letters.wake,
    )
    base.metrics.watch(partial(readings.of_ingest, ingest))
    # A last snapshot once nothing is applied any more: the next start reads it instead of rebuilding.
    base.undo.callback(_last_snapshot, base.memory)
    base.threads.start("ingest", ingest, stuck=ingest.stuck)
    return ingest


def _last_snapshot(memory: EditMemory) -> None:
    try:
        memory.snapshot()
    except (LteError, OSError) as error:
        log.warning("no_last_snapshot", error=str(error))


def _start_upkeep(base: _Base) -> None:
    """The timetable, with what the memory needs; other parts add their jobs as they come."""
    chosen, memory = base.settings.memory, base.memory
    recall, state = readings.RecallCheck(memory), readings.StateCheck(memory)
    base.metrics.watch(recall.readings)
    base.metrics.watch(state.readings)
    base.schedule.every(chosen.snapshot_interval_s, "snapshot", memory.snapshot)
    base.schedule.every(MAINTAIN_INTERVAL_S, "maintain", lambda: base.metrics.rebuilt(memory.maintain()))
    base.schedule.every(RECALL_INTERVAL_S, RECALL, recall.run)
    base.schedule.every(STATE_INTERVAL_S, STATE, state.run)
    base.schedule.start()
    base.undo.callback(base.schedule.stop)


def _load_engine(base: _Base) -> AdapterEngine:
    loaded = models.engine(base.settings, with_adapter=False, progress=_log_converting)
    engine = base.undo.enter_context(closing(loaded))
    base.metrics.watch(partial(readings.of_engine, engine, VERSION))
    base.schedule.every(ENGINE_INTERVAL_S, ENGINE, partial(_look_at_engine, base.lifecycle, engine), ACCESS)
    _note_base_model(base.memory, engine.fingerprint)
    return engine


def _note_base_model(memory: EditMemory, fingerprint: str) -> None:
    """No stored thing depends on the base model but adapters, which are checked when they are loaded."""
    before = memory.meta_get("base_model")
    if before != fingerprint:
        memory.meta_set("base_model", fingerprint)
        log.info("base_model", fingerprint=fingerprint[:12], before=before and before[:12])


def _serve_adapter(base: _Base, engine: AdapterEngine) -> tuple[Swapper, AdapterManager]:
    """Serve the adapter that was served last, or the configured one."""
    chosen, ledger = base.settings.registry, base.memory.adapters
    configured = adapters.configured_adapter(base.settings, engine, ledger)
    registry = adapters.registry(base.settings, engine, configured)
    registry.sweep()
    swapper = Swapper(engine, registry, ledger, configured, on_swap=partial(_note_swap, base))
    if problems := swapper.start():
        base.lifecycle.set_degraded(ADAPTER, "; ".join(problems))
    manager = AdapterManager(
        engine,
        registry,
        ledger,
        swapper,
        configured,
        state_of=partial(_state_of_edit, base.memory),
        keep=chosen.keep,
        epoch=base.owner.manual_epoch,
    )
    base.metrics.watch(partial(readings.of_adapters, manager))
    base.schedule.every(chosen.taint_interval_s, "taint", manager.look_for_taint)
    return swapper, manager


def _note_swap(base: _Base, swap: Swap) -> None:
    base.metrics.swapped(swap.outcome, swap.load_s)
    if swap.outcome == DONE:
        base.lifecycle.clear_degraded(ADAPTER)


def _state_of_edit(memory: EditMemory, edit_id: str) -> str:
    try:
        return memory.get_edit(edit_id).state
    except NotFound:
        return ""


def _start_announcements(base: _Base, engine: AdapterEngine, swapper: Swapper) -> None:
    """Tell the other replicas which adapter serves, and follow them."""
    on_fault = partial(_note_announced, base.lifecycle)
    replica = AdapterReplica(base.memory, base.memory.adapters, swapper, engine.fingerprint, on_fault)
    announcements = topics.announcements(base.settings, replica, base.owner.owns, base.metrics.passed_over)
    if announcements is not None:
        swapper.on_move(announcements.wake)
        base.threads.start("adapters", announcements)


def _note_announced(lifecycle: Lifecycle, fault: str) -> None:
    if fault:
        lifecycle.set_degraded(ANNOUNCED, fault)
    else:
        lifecycle.clear_degraded(ANNOUNCED)


def _answerer_over(base: _Base, engine: AdapterEngine, memory: AnswerMemory) -> Answerer:
    return Answerer(memory, base.encoder, base.calibration, engine, answers.answerer_settings(base.settings))


def _start_drift(
    base: _Base,
    engine: AdapterEngine,
    answerer: Answerer,
    swapper: Swapper,
    realigner: Realigner,
    store: DriftStateStore | None,
) -> DriftWatch | None:
    """None when it is switched off."""
    if store is None:
        return None
    chosen = base.settings.registry
    promotion = PromotionWatch(
        swapper,
        base.memory.adapters,
        base.memory,
        adapters.watch_policy(base.settings),
        window_s=chosen.watch_s,
    )
    watch = DriftWatch(
        base.memory,
        answerer,
        base.encoder,
        engine,
        store,
        answers.watch_settings(base.settings),
        situation=realigner.situation,
        relations=realigner.relations,
        running=lambda: engine.stats().running,
        on_probe=partial(_note_probe, base, promotion),
    )
    base.undo.callback(watch.stop)
    base.metrics.watch(partial(readings.of_drift, watch))
    _every_while_serving(base, base.settings.drift.look_s, "drift_look", watch.look)
    _every_while_serving(base, base.settings.drift.cycle_s, "drift_probes", watch.ask)
    return watch


def _note_probe(base: _Base, promotion: PromotionWatch, kind: str, outcome: str) -> None:
    base.metrics.probed(kind, outcome)
    # The owner judges for all: its rollback is announced.
    if outcome != SKIPPED and base.owner.owns():
        promotion.probed(kind, right=outcome == RIGHT)


def _every_while_serving(base: _Base, seconds: float, name: str, job: Callable[[], object]) -> None:
    """Nothing is measured before there is a state to answer from."""
    base.schedule.every(seconds, name, lambda: job() if base.lifecycle.serving() else None, WATCH)


def _start_realigner(base: _Base, realigner: Realigner, drift: DriftWatch | None) -> None:
    base.metrics.watch(partial(readings.of_realigner, realigner))
    if base.audit is not None:
        base.threads.start("audit", base.audit)
    if base.control is not None:
        base.control.take_commands(lambda: realigner.runs.active() is None, partial(_enqueue, realigner))
        base.threads.start("control", base.control)
    # The child dies with the thread that starts it: this one lives as long as the daemon.
    base.threads.start("realign", realigner)
    if drift is not None and base.settings.realign.automatic:
        look_s = base.settings.drift.look_s
        _every_while_serving(base, look_s, "realign", lambda: realigner.consider(drift.report()))


def _enqueue(realigner: Realigner, command: Command) -> None:
    """The realigner's thread gets the epoch: the one that reads the topic must go on reading it."""
    realigner.enqueue(Trigger.CONTROL, [command.reason or "requested on the control topic"], command.id)


def _listen(base: _Base, services: Services) -> None:
    """The sockets come last, so that whoever finds one can be answered."""
    server = RpcServer(services, answers.listener_settings(base.settings), partial(_note_call, base))
    server.start()
    base.metrics.watch(partial(readings.of_tokens, server.tokens))
    if server.tokens is not None:
        look = partial(_look_at_tokens, base.lifecycle, server.tokens)
        base.schedule.every(TOKENS_INTERVAL_S, "tokens", look, ACCESS)
    base.undo.callback(server.stop, base.settings.rpc.drain_s)
    log.info("listening", socket=str(base.settings.socket), tcp=server.tcp_address)


def _note_call(base: _Base, call: Call) -> None:
    """In the metrics, and what an operator did in the log and on the audit topic."""
    readings.count_call(base.metrics, call)
    if not call.principal or not is_operator_act(call.method):
        return
    act = {"method": call.method, "principal": call.principal, "code": call.code}
    log.info("operator_act", **act)
    if base.audit is not None:
        base.audit.write("operator", act)


def _look_at_tokens(lifecycle: Lifecycle, tokens: TokenStore) -> None:
    tokens.look()
    if tokens.fault:
        lifecycle.set_degraded(TOKENS, tokens.fault)
    else:
        lifecycle.clear_degraded(TOKENS)


def _look_at_engine(lifecycle: Lifecycle, engine: AdapterEngine) -> None:
    if faults := engine.faults:
        lifecycle.set_degraded(ENGINE, "; ".join(faults))
    else:
        lifecycle.clear_degraded(ENGINE)


def _log_state(status: LifecycleStatus) -> None:
    log.info("state", state=status.state, stale=status.stale, reasons=list(status.reasons))


def _log_converting(step: str, done: int, total: int) -> None:
    log.info("model_converting", step=step, done=done, total=total)


def _log_encoding(done: int, total: int) -> None:
    log.info("encoding_again", done=done, total=total)
