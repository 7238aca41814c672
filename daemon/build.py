"""Where the concrete parts meet: settings in, a running daemon out. Below this, parts take values.

Start: lock and edit memory, then ingest (it catches up while the model loads), then the engine, then the
sockets. Stop, each step so that the next finds nothing half done: health down and calls drained, timetable,
ingest, dead letters, snapshot, engine, memory.
"""

from __future__ import annotations

import atexit
import gc
import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import structlog

from daemon.adapters.following import AdapterReplica, owned_epoch
from daemon.adapters.manager import AdapterManager
from daemon.adapters.promotion_watch import PromotionWatch
from daemon.adapters.swap import DONE, Configured, Swap, Swapper
from daemon.build_realign import Serving, realignment
from daemon.drift_watch import RIGHT, SKIPPED, DriftWatch, WatchSettings
from daemon.dry_run import DryRunner
from daemon.ingest.ingest import BatchReport, Ingest, IngestSettings
from daemon.ingest.publisher_guard import GuardSettings
from daemon.kafka.announcements import Announcements, AnnouncementSettings
from daemon.kafka.dead_letters import DeadLetters, DeadLetterSettings, Shared
from daemon.kafka.dlq_contents import DlqReader
from daemon.kafka.publisher import Publisher, PublisherSettings
from daemon.kafka.source import KafkaSource, KafkaSourceSettings
from daemon.lifecycle import Lifecycle, LifecycleStatus
from daemon.metrics import Metrics, MetricsServer
from daemon.readings import MetricSources, readings
from daemon.realign.realigner import JOBS, Realigner
from daemon.rpc.interceptors import Call
from daemon.rpc.server import ListenerSettings, RpcServer
from daemon.rpc.services import About, Services
from daemon.schedule import WATCH, Schedule
from daemon.settings import OFF, RealignSettings, Settings
from lte_runtime import embedded
from lte_runtime.align.registry import Registry
from lte_runtime.align.shared_store import AdapterStore
from lte_runtime.align.watch import WatchPolicy
from lte_runtime.answer.answerer import Answerer, AnswererSettings
from lte_runtime.answer.encoder import load_encoder
from lte_runtime.answer.engine.files import MANIFEST, read_json, verify_adapter
from lte_runtime.answer.engine.protocol import AdapterEngine, Engine
from lte_runtime.answer.retriever import RetrieverSettings
from lte_runtime.answer.scope import gate
from lte_runtime.drift.decide import DecisionSettings
from lte_runtime.errors import Fatal, LteError, NotFound, Refused, Retry, on_fatal
from lte_runtime.facts.events import EventLimits
from lte_runtime.locks import DirectoryLock
from lte_runtime.memory.edit_memory import EditMemory
from lte_runtime.private_files import UMASK, tighten
from lte_runtime.store.adapter_history import CONFIGURED
from lte_runtime.store.records import EditMemorySettings
from lte_runtime.types import Answer, Encoder, Scope

log = structlog.get_logger(__name__)
TICK_S = 1.0
# Time that the control topic gets to be given to a daemon that has just started.
OWNER_S = 8.0
# Reasons to be DEGRADED: another adapter serves than the pointer says, or than was announced.
ADAPTER, ANNOUNCED = "adapter", "announced"
# Time that a thread gets to end: a step of ingest may wait for a broker, but one that is stuck will not end.
JOIN_S, STUCK_JOIN_S = 20.0, 1.0
INGEST = "ingest"
FAILED = 1


def serve(settings: Settings) -> None:
    """Run the daemon until SIGTERM or SIGINT. Raises the error of a part that cannot go on."""
    stop, started = threading.Event(), threading.Event()

    def end(*_: object) -> None:
        stop.set()
        if not started.is_set():
            raise SystemExit(0)  # loading a model can take minutes: what has started is undone at once

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    os.umask(UMASK)
    check_state_directory(settings.state_dir)
    with Daemon(settings, end_process) as daemon:
        started.set()
        daemon.run(stop)


def end_process(error: Fatal) -> None:
    """End at once, as a kill does, which the state survives: nothing may be written after a fatal fault."""
    thread = threading.current_thread().name
    log.critical(
        "fatal",
        error=str(error),
        thread=thread,
        advice="the process ends now: fix the cause and start it again",
    )
    logging.shutdown()
    os._exit(FAILED)


def check_state_directory(directory: Path) -> None:
    """Fail before the models are loaded: another daemon owns the directory, or others can change its files.

    Files that others may read are made private, and how many is logged.
    """
    lock = DirectoryLock(directory)
    try:
        # A training command may run as another user; what it leaves is checked before it is used.
        tightened = tighten(directory, scratch=JOBS)
    finally:
        lock.release()
    if tightened:
        log.info("permissions_tightened", directory=str(directory), files=tightened)


class Daemon:
    """All parts of one process. Entering starts them; leaving stops what was started, in reverse.

    `end_process` is called once the memory is open and any part meets a `Fatal`; it need not return.
    """

    def __init__(self, settings: Settings, end_process: Callable[[Fatal], None] = lambda _: None) -> None:
        self._settings = settings
        self._end_process = end_process
        self._undo = ExitStack()
        self._failures: list[BaseException] = []
        self._failed = threading.Event()
        self._started_ms = time.time_ns() // 1_000_000
        self._owns_topics: Callable[[], bool] = lambda: False
        self._topics_epoch: Callable[[], int] = _not_owned_yet
        self.lifecycle = Lifecycle(stale_after_s=settings.kafka.stale_after_s)

    def __enter__(self) -> Daemon:
        with ExitStack() as undo:
            self._undo = undo
            self._start()
            self._undo = undo.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self.lifecycle.set_stopping()
        log.info("stopping")
        self._undo.close()
        log.info("stopped")

    def run(self, stop: threading.Event) -> None:
        """Wait for `stop` or for a part that failed, whose error is raised."""
        while not stop.wait(TICK_S):
            self.lifecycle.tick()
            if self._failed.is_set():
                raise self._failures[0]

    def _start(self) -> None:
        settings = self._settings
        self._encoder = load_encoder(
            settings.encoder.model, engine=settings.encoder.engine, download=settings.encoder.download
        )
        calibration = self._calibration(self._encoder)
        self._memory = self._open_memory(self._encoder)
        self._undo.enter_context(on_fatal(self._end_process))
        self._start_metrics()
        self._start_dead_letters()
        self._start_ingest()
        self._start_schedule()
        self._start_answers(calibration)
        self.lifecycle.on_change(_log_state)
        _log_state(self.lifecycle.status())

    def _calibration(self, encoder: Encoder) -> gate.GateCalibration:
        chosen = self._settings.gate
        if chosen.calibration:
            calibration = gate.load(chosen.calibration)
        elif is_stub(self._settings.encoder.model):
            calibration = gate.lexical_calibration(encoder.fingerprint)
        else:
            calibration = gate.default_calibration()
        return calibration if chosen.threshold is None else replace(calibration, threshold=chosen.threshold)

    def _open_memory(self, encoder: Encoder) -> EditMemory:
        chosen = self._settings.memory
        settings = EditMemorySettings(
            index_mode=chosen.index_mode,
            hnsw_from=chosen.hnsw_from,
            rebuild_dead_share=chosen.rebuild_dead_share,
            quarantine_max_bytes=chosen.quarantine_max_bytes,
            snapshot_keep=chosen.snapshot_keep,
            encode_batch=chosen.encode_batch,
        )
        memory = EditMemory.open(self._settings.state_dir, encoder, settings, on_progress=_log_encoding)
        self._undo.callback(memory.close)
        if memory.attempts.fault:
            log.error("last_run_died", trace=memory.attempts.fault[:2000])
        self._undo.enter_context(memory.attempts.watch())
        return memory

    def _start_metrics(self) -> None:
        self._parts = MetricSources(self.lifecycle, self._memory, version("lte-daemon"))
        self.metrics = Metrics(lambda: readings(self._parts))
        if self._settings.metrics.listen != OFF:
            server = MetricsServer(self.metrics, self._settings.metrics.listen)
            self._undo.callback(server.stop)
            log.info("metrics", address=server.address)

    def _start_dead_letters(self) -> None:
        kafka = self._settings.kafka
        settings = DeadLetterSettings(
            kafka.bootstrap,
            kafka.dlq_topic,
            kafka.security,
            retry_s=kafka.dlq_retry_s,
            retry_max_s=kafka.dlq_retry_max_s,
            send_timeout_s=kafka.dlq_timeout_s,
        )
        contents = DlqReader(kafka.bootstrap, kafka.dlq_topic, kafka.security, self.metrics.passed_over)
        shared = None if kafka.control_topic == OFF else Shared(lambda: self._topics_epoch(), contents)
        self._dead_letters = DeadLetters(self._memory, settings, shared=shared)
        self._undo.callback(self._thread("dead-letters", self._dead_letters.run, self._dead_letters.stop))

    def _start_ingest(self) -> None:
        kafka = self._settings.kafka
        source = KafkaSource(
            KafkaSourceSettings(
                kafka.bootstrap,
                kafka.topic,
                kafka.group_id,
                kafka.security,
                allow_compacted=kafka.allow_compacted,
                refresh_s=kafka.refresh_s,
                fetch_max_bytes=kafka.poll_max_bytes,
                batch_max_bytes=kafka.batch_max_bytes,
                event_max_bytes=self._settings.memory.event_max_bytes,
            )
        )
        self._ingest = Ingest(
            self._memory,
            source,
            self.lifecycle,
            ingest_settings(self._settings),
            on_batch=self._count_batch,
            on_rejected=self._dead_letters.wake,
        )
        self._parts.ingest = self._ingest
        # A last snapshot once nothing is applied any more: the next start reads it instead of rebuilding.
        self._undo.callback(self._last_snapshot)
        self._undo.callback(self._thread(INGEST, self._ingest.run, self._ingest.stop))

    def _start_schedule(self) -> None:
        chosen = self._settings.memory
        schedule = self._schedule = Schedule(
            lambda job, ok, seconds: self.metrics.ran(job, ok=ok, seconds=seconds)
        )
        schedule.every(chosen.snapshot_interval_s, "snapshot", self._memory.snapshot)
        schedule.every(chosen.maintain_interval_s, "maintain", self._memory.maintain)
        schedule.every(chosen.recall_interval_s, "recall", self._check_recall)
        schedule.start()
        self._undo.callback(schedule.stop)

    def _check_recall(self) -> None:
        self._parts.recall = self._memory.recall_self_check()

    def _start_answers(self, calibration: gate.GateCalibration) -> None:
        # The sockets come last, so that whoever finds one can be answered.
        chosen = self._settings.answer
        engine = load_engine(self._settings, with_adapter=False)
        self._parts.engine = engine
        self._undo.callback(engine.close)
        self._note_base_model(engine.fingerprint)
        manager = self._parts.adapters = self._start_adapters(engine)
        answers = AnswererSettings(
            max_waiting=waiting_limit(self._settings),
            max_new_tokens=chosen.max_new_tokens_limit,
            whole_chain=chosen.whole_chain,
            restate=chosen.restate,
            retriever=RetrieverSettings(k=chosen.k, max_hops=chosen.hops, history=chosen.history),
        )
        kafka = self._settings.kafka
        publisher = Publisher(PublisherSettings(kafka.bootstrap, kafka.topic, kafka.security))
        self._undo.callback(publisher.close)
        answerer = Answerer(self._memory, self._encoder, calibration, engine, answers)
        drift = self._parts.drift = self._start_drift(answerer, engine)
        realigner = self._parts.realigner = self._start_realigner(engine, manager, drift)
        services = Services(
            answerer=answerer,
            memory=self._memory,
            lifecycle=self.lifecycle,
            engine=engine,
            about=About(version("lte-daemon"), self._started_ms, calibration.encoder, calibration.threshold),
            ingest=self._ingest,
            publisher=publisher,
            drift=drift,
            adapters=manager,
            realigner=realigner,
            dry_runner=DryRunner(
                self._memory,
                self._encoder,
                lambda memory: Answerer(memory, self._encoder, calibration, engine, answers),
            ),
            max_new_tokens=chosen.max_new_tokens,
            max_new_tokens_limit=chosen.max_new_tokens_limit,
            deadline_s=chosen.deadline_s,
            deadline_max_s=chosen.deadline_max_s,
            max_waiting=waiting_limit(self._settings),
            on_answer=self._count_answer,
            on_feedback=self.metrics.judged,
        )
        server = RpcServer(services, rpc_settings(self._settings), self._count_call)
        server.start()
        self._undo.callback(server.stop, self._settings.rpc.drain_s)
        log.info("listening", socket=str(self._settings.socket), tcp=server.tcp_address)

    def _start_adapters(self, engine: AdapterEngine) -> AdapterManager:
        """Serve the adapter that was served last, or the configured one."""
        chosen, ledger = self._settings.registry, self._memory.adapters
        configured = self._configured_adapter(engine)
        reserved = {configured.ref.id} if configured.ref else set()
        store = AdapterStore(chosen.url) if chosen.url else None
        registry = Registry(
            self._settings.registry_path, engine.check_adapter, reserved=reserved, store=store
        )
        registry.sweep()
        self.swapper = Swapper(engine, registry, ledger, configured, on_swap=self._count_swap)
        problems = self.swapper.start()
        if problems:
            self.lifecycle.set_degraded(ADAPTER, "; ".join(problems))
        manager = AdapterManager(
            engine,
            registry,
            ledger,
            self.swapper,
            configured,
            state_of=self._state_of_edit,
            keep=chosen.keep,
        )
        self._schedule.every(chosen.taint_interval_s, "taint", manager.look_for_taint)
        self._start_announcements(engine)
        policy = WatchPolicy(chosen.watch_least, chosen.watch_margin)
        self._promotion = PromotionWatch(self.swapper, ledger, self._memory, policy, window_s=chosen.watch_s)
        return manager

    def _probed(self, kind: str, outcome: str) -> None:
        self.metrics.probed(kind, outcome)
        # The owner judges for all: its rollback is announced.
        if outcome != SKIPPED and self._owns_topics():
            self._promotion.probed(kind, right=outcome == RIGHT)

    def _start_announcements(self, engine: AdapterEngine) -> None:
        """Tell the other replicas which adapter serves, and follow them."""
        kafka = self._settings.kafka
        if kafka.adapters_topic == OFF:
            return
        replica = AdapterReplica(
            self._memory, self._memory.adapters, self.swapper, engine.fingerprint, self._note_announced
        )
        control = "" if kafka.control_topic == OFF else kafka.control_topic
        settings = AnnouncementSettings(kafka.bootstrap, kafka.adapters_topic, kafka.security, control)
        announcements = Announcements(
            replica,
            settings,
            may_write=lambda: self._owns_topics(),
            on_bad=self.metrics.passed_over,
        )
        self.swapper.on_moved = lambda _: announcements.wake()
        self._undo.callback(self._thread("adapters", announcements.run, announcements.stop))

    def _note_announced(self, fault: str) -> None:
        if fault:
            self.lifecycle.set_degraded(ANNOUNCED, fault)
        else:
            self.lifecycle.clear_degraded(ANNOUNCED)

    def _configured_adapter(self, engine: AdapterEngine) -> Configured:
        """Raises its error only while it is the one to serve: another one serves without it."""
        try:
            return configured_adapter(self._settings, engine)
        except LteError as error:
            if self._memory.adapters.active().adapter == CONFIGURED:
                raise
            log.error("configured_adapter_refused", error=str(error))
            return Configured()

    def _state_of_edit(self, edit_id: str) -> str:
        try:
            return self._memory.get_edit(edit_id).state
        except NotFound:
            return ""

    def _count_swap(self, swap: Swap) -> None:
        self.metrics.swapped(swap.outcome, swap.load_s)
        if swap.outcome == DONE:
            self.lifecycle.clear_degraded(ADAPTER)

    def _start_drift(self, answerer: Answerer, engine: Engine) -> DriftWatch | None:
        """None when it is switched off."""
        chosen = self._settings.drift
        if not chosen.enabled:
            return None
        watch = DriftWatch(
            self._memory,
            answerer,
            self._encoder,
            engine,
            watch_settings(self._settings),
            running=lambda: engine.stats().running,
            on_probe=self._probed,
        )
        self._undo.callback(watch.stop)
        self._schedule.every(chosen.look_s, "drift_look", self._while_serving(watch.look), WATCH)
        self._schedule.every(chosen.cycle_s, "drift_probes", self._while_serving(watch.ask), WATCH)
        return watch

    def _start_realigner(
        self, engine: Engine, manager: AdapterManager, drift: DriftWatch | None
    ) -> Realigner:
        serving = Serving(self._memory, engine, manager, self.swapper, drift, self.metrics)
        parts = realignment(self._settings, serving, stub=is_stub(self._settings.model.path))
        if parts.audit is not None:
            self._undo.callback(self._thread("audit", parts.audit.run, parts.audit.stop))
        if parts.control is not None:
            self._undo.callback(self._thread("control", parts.control.run, parts.control.stop))
            control = parts.control
            self._owns_topics = lambda: control.status().owns
            self._topics_epoch = control.epoch
            ledger = self._memory.adapters
            manager.epoch = swap_epoch(
                owned_epoch(control.epoch, ledger), ledger.epoch, away=lambda: self.lifecycle.stale
            )
        else:
            self._owns_topics = lambda: True
        # The child dies with the thread that starts it: this one lives as long as the daemon.
        self._undo.callback(self._thread("realign", parts.realigner.run, parts.realigner.stop))
        if drift is not None and self._settings.realign.automatic:
            consider = self._while_serving(lambda: parts.realigner.consider(drift.report()))
            self._schedule.every(self._settings.drift.look_s, "realign", consider, WATCH)
        return parts.realigner

    def _while_serving(self, job: Callable[[], object]) -> Callable[[], object]:
        """Nothing is measured before there is a state to answer from."""
        return lambda: job() if self.lifecycle.serving() else None

    def _note_base_model(self, fingerprint: str) -> None:
        """No stored thing depends on the base model but adapters, which are checked when they are loaded."""
        before = self._memory.meta_get("base_model")
        if before != fingerprint:
            self._memory.meta_set("base_model", fingerprint)
            log.info("base_model", fingerprint=fingerprint[:12], before=before and before[:12])

    def _last_snapshot(self) -> None:
        try:
            self._memory.snapshot()
        except (LteError, OSError) as error:
            log.warning("no_last_snapshot", error=str(error))

    def _thread(self, name: str, run: Callable[[], None], stop: Callable[[], None]) -> Callable[[], None]:
        """Start `run` in a thread whose failure ends the process; returns what stops it."""

        def body() -> None:
            try:
                run()
            except BaseException as error:  # noqa: BLE001 - told to the main thread, which raises it
                self._failures.append(error)
                self._failed.set()

        thread = threading.Thread(target=body, name=name, daemon=True)
        thread.start()

        def end() -> None:
            stop()
            limit_s = STUCK_JOIN_S if name == INGEST and self._ingest.stuck() else JOIN_S
            thread.join(limit_s)
            if thread.is_alive():
                raise Fatal(f"the {name} thread did not stop in {limit_s:.0f} s")

        return end

    def _count_batch(self, report: BatchReport) -> None:
        applied = report.applied
        self.metrics.ingested(
            events=report.records,
            applied=len(applied.applied),
            duplicates=applied.duplicates,
            conflicts=applied.conflicts,
            unproven=applied.unproven,
            long_texts=applied.long_texts,
            rejected=report.rejected,
            stages_ms={
                "encode": applied.encode_ms,
                "store": applied.store_ms,
                "index": applied.index_ms,
            },
        )
        self.metrics.fresh(milliseconds / 1000 for milliseconds in report.freshness_ms)

    def _count_answer(self, answer: Answer) -> None:
        self.metrics.gated(opened=answer.gate.scope is Scope.EDITED, score=answer.gate.score)
        total = answer.timings_ms.get("total", 0.0) / 1000
        self.metrics.answered(scope=answer.scope, code="OK", seconds=total, stages_ms=answer.timings_ms)

    def _count_call(self, call: Call) -> None:
        if call.code != "OK" and "/Answer" in call.method:
            self.metrics.answered(scope="none", code=call.code, seconds=call.seconds, stages_ms={})


def is_stub(name: str) -> bool:
    """Whether an encoder or model is the one without weights, for trials: `stub`, or `stub:VARIANT`."""
    return name.partition(":")[0] == "stub"


def configured_adapter(settings: Settings, engine: AdapterEngine) -> Configured:
    """The adapter that the settings name, checked; raises `Damaged` or `Refused`."""
    if is_stub(settings.model.path):
        return Configured(engine.adapter)
    directory = adapter_of(settings)
    if directory is None:
        return Configured()
    verified = verify_adapter(directory, engine.fingerprint)
    return Configured(verified.ref, directory, read_json(directory, MANIFEST))


def swap_epoch(
    owned: Callable[[], int],
    seen: Callable[[], int],
    *,
    away: Callable[[], bool],
    patience_s: float = OWNER_S,
) -> Callable[[], int]:
    """The epoch of a move by hand: that of the owner of the control topic, not below one that was seen.

    While Kafka is `away` every daemon is on its own and may be put right by hand. A daemon that has just
    started waits a moment for the topic to be given to it. Raises `Refused` when this one does not own
    it, `Retry`.
    """

    def epoch() -> int:
        deadline = time.monotonic() + patience_s
        while True:
            try:
                return max(owned(), seen())
            except (Refused, Retry) as error:
                if isinstance(error, Retry) and away():
                    return seen()
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)

    return epoch


def load_engine(settings: Settings, *, with_adapter: bool = True) -> AdapterEngine:
    """The engine that the settings name: the stub, or any Hugging Face causal model; with its adapter or,
    for callers that load one themselves, without."""
    chosen = settings.model
    if is_stub(chosen.path):
        from lte_runtime.answer.engine.stub import StubEngine

        # `stub:0.1` takes a tenth of a second for each token, so that load can be tried.
        token_s = float(chosen.path.partition(":")[2] or 0)
        return StubEngine(max_batch=chosen.max_batch, queue_limit=chosen.queue_limit, token_s=token_s)
    from lte_runtime.answer.engine.hf import HfEngine

    engine = HfEngine.load(
        embedded.SHIPPED.get(chosen.path, chosen.path),
        adapter_of(settings) if with_adapter else None,
        device=chosen.device,
        dtype=chosen.dtype,
        adapter_mode=chosen.adapter_mode,
        max_batch=chosen.max_batch,
        queue_limit=chosen.queue_limit,
        max_prompt_tokens=chosen.max_prompt_tokens,
        threads=chosen.threads,
        allow_download=chosen.download,
    )
    # What loading made stays as long as the process: a full pass of the collector over it would stop every
    # thread for a quarter of a second, whoever is being answered.
    gc.collect()
    gc.freeze()
    atexit.register(gc.unfreeze)
    return engine


def adapter_of(settings: Settings) -> Path | None:
    """The directory of the adapter that the settings name."""
    chosen = settings.model
    if chosen.adapter == "embedded":
        # The shipped adapter belongs to the shipped model; another model starts without one.
        return embedded.adapter_path(chosen.path) if chosen.path in embedded.SHIPPED else None
    return None if chosen.adapter == "none" else Path(chosen.adapter)


def model_paths(settings: Settings) -> tuple[Path, Path | None]:
    """The directories of the base model and of its adapter; raises `Refused` for the stub, which has none."""
    chosen = settings.model
    if is_stub(chosen.path):
        raise Refused("the stub has no weights to edit: configure a model")
    if chosen.path in embedded.SHIPPED:
        return embedded.model_path(chosen.path), adapter_of(settings)
    from lte_runtime.answer.engine.hf import resolve

    return resolve(chosen.path, allow_download=chosen.download), adapter_of(settings)


def ingest_settings(settings: Settings) -> IngestSettings:
    """What ingest needs of the settings: caps of a batch, pauses, limits of an event, the publisher guard."""
    kafka, memory = settings.kafka, settings.memory
    writers = {name: frozenset(spaces) for name, spaces in kafka.publishers.items()}
    return IngestSettings(
        max_records=kafka.poll_max_records,
        max_bytes=kafka.poll_max_bytes,
        max_gather_s=kafka.poll_max_ms / 1000,
        refresh_s=kafka.refresh_s,
        reconnect_s=kafka.reconnect_s,
        reconnect_max_s=kafka.reconnect_max_s,
        serve_stale_after_s=kafka.stale_after_s,
        quarantine_max_bytes=memory.quarantine_max_bytes,
        limits=EventLimits(memory.event_max_bytes, memory.event_max_depth, writers),
        guard=GuardSettings(
            kafka.bad_window_s, kafka.bad_min, kafka.bad_share, max_publishers=kafka.bad_publishers_max
        ),
    )


def watch_settings(settings: Settings) -> WatchSettings:
    """What the watch on drift needs of the settings."""
    chosen = settings.drift
    return WatchSettings(
        probes=chosen.probes,
        facts=chosen.facts,
        budget_s=chosen.budget_s,
        max_new_tokens=chosen.max_new_tokens,
        seed=chosen.seed,
        window=chosen.window,
        sample=chosen.sample,
        decision=drift_decision(settings.realign),
    )


def drift_decision(chosen: RealignSettings) -> DecisionSettings:
    """The limits on starts in the units of the decision."""
    age = chosen.max_adapter_age_s
    return DecisionSettings(
        cool_down_ms=round(chosen.cool_down_s * 1000),
        settle_ms=round(chosen.min_fact_age_s * 1000),
        min_new_edits=chosen.min_new_edits,
        daily_budget=chosen.daily_budget,
        max_adapter_age_ms=None if age is None else round(age * 1000),
    )


def rpc_settings(settings: Settings) -> ListenerSettings:
    """What the sockets need of the settings."""
    chosen = settings.rpc
    return ListenerSettings(
        socket=settings.socket,
        group_of=settings.state_dir,
        listen=None if chosen.listen == OFF else chosen.listen,
        admin_socket=settings.admin_socket,
        tls_cert=chosen.tls_cert,
        tls_key=chosen.tls_key,
        token_file=chosen.token_file,
        max_concurrent=chosen.max_concurrent,
        max_message_bytes=chosen.max_message_bytes,
    )


def waiting_limit(settings: Settings) -> int:
    """Calls that may wait for Kafka at once: a quarter of a listener's, so that the others are answered."""
    return max(1, settings.rpc.max_concurrent // 4)


def _not_owned_yet() -> int:
    raise Refused("the control topic has not been read yet: try again")


def _log_state(status: LifecycleStatus) -> None:
    log.info("state", state=status.state, stale=status.stale, reasons=list(status.reasons))


def _log_encoding(done: int, total: int) -> None:
    log.info("encoding_again", done=done, total=total)
