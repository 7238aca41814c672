"""The metrics catalogue and its endpoint: each metric is declared once, here, with what it is for.

Counters and histograms are fed as things happen; gauges are read from the parts when Prometheus asks, so
that they cannot go stale. The registry is the daemon's own: nothing leaks in from libraries.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from lte_runtime.errors import Refused

# A gauge's value: a number, or one number for each tuple of label values.
Reading = float | Mapping[tuple[str, ...], float]
Readings = Mapping[str, Reading]

_FAST = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
_FRESH = (0.002, 0.005, 0.01, 0.015, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 5, 30, 300, 3600)
_SHARE = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)


@dataclass(frozen=True)
class Spec:
    """One metric: its name, what it tells, and its labels. `initial`: label values that a counter or
    histogram has from the start, so that Prometheus sees the step from 0 to the first event."""

    name: str
    help: str
    labels: tuple[str, ...] = ()
    initial: tuple[tuple[str, ...], ...] = ()


# Fed as things happen.
EVENTS = Spec("lte_ingest_events_total", "Kafka records read from the edits topic.")
APPLIED = Spec("lte_ingest_applied_total", "Edits applied to the edit memory.")
DUPLICATES = Spec("lte_ingest_duplicates_total", "Edits dropped because they had been applied before.")
CONFLICTS = Spec("lte_ingest_conflicts_total", "Edits that lost to another edit of their key.")
UNPROVEN = Spec(
    "lte_ingest_unproven_positions_total",
    "Records whose header claims an original position that could not be checked; it was ignored.",
)
LONG_TEXTS = Spec(
    "lte_ingest_long_texts_total",
    "Edits with a text longer than the encoder reads at once: long_key (searched by windows of it), "
    "long_statement (no statement is searched).",
    ("flag",),
)
FLAGGED = Spec(
    "lte_ingest_flagged_total",
    "Edits with doubtful names, as they come: foreign_name (facts of another publisher have the name), "
    "weak_name, mixed_script, hidden_characters.",
    ("flag",),
    (("foreign_name",),),
)
REJECTED = Spec("lte_ingest_rejected_total", "Records quarantined, by reason.", ("code",))
INGEST_STAGE = Spec("lte_ingest_stage_seconds", "Time of a batch in each stage of ingest.", ("stage",))
FRESHNESS = Spec("lte_freshness_seconds", "From an event's timestamp to the moment questions can find it.")
GATE = Spec(
    "lte_gate_decisions_total",
    "Gate decisions: open means about an edit.",
    ("decision",),
    (("open",), ("closed",)),
)
GATE_SCORE = Spec("lte_gate_score", "Probability that a question is about an edit, as the gate saw it.")
ANSWERS = Spec(
    "lte_answers_total",
    "Answers by scope and gRPC status code.",
    ("scope", "code"),
    (
        ("edited", "OK"),
        ("base", "OK"),
        ("none", "RESOURCE_EXHAUSTED"),
        ("none", "DEADLINE_EXCEEDED"),
        ("none", "UNAVAILABLE"),
    ),
)
ANSWER_TIME = Spec("lte_answer_seconds", "Total time of an answer.", ("scope",), (("edited",), ("base",)))
ANSWER_TOKENS = Spec("lte_answer_tokens_total", "Tokens of answers, by scope.", ("scope",))
CORRECTED = Spec(
    "lte_answers_corrected_total", "Answers in which a misquoted value was put as it was published."
)
ANSWER_STAGE = Spec("lte_answer_stage_seconds", "Time of an answer in each stage.", ("stage",))
JOBS = Spec("lte_job_runs_total", "Runs of the daemon's own jobs.", ("job", "result"))
JOB_TIME = Spec("lte_job_seconds", "Time of a run of a job.", ("job",))
REBUILDS = Spec("lte_index_rebuilds_total", "Indexes made anew because of dead vectors or poor recall.")
PROBES = Spec(
    "lte_drift_probes_total", "Probes asked, by kind: right, wrong or skipped.", ("kind", "outcome")
)
FEEDBACK = Spec(
    "lte_feedback_total", "Users' verdicts on answers: good or bad.", ("verdict",), (("good",), ("bad",))
)
REALIGNED = Spec(
    "lte_realign_runs_total",
    "Re-alignments by how they ended, and who started them.",
    ("state", "trigger"),
    tuple(product(("done", "rejected", "failed", "cancelled"), ("drift", "operator", "control"))),
)

PASSED_OVER = Spec(
    "lte_topic_records_passed_over_total",
    "Bad records on the control, adapters and dead-letter topics, by topic and reason.",
    ("topic", "code"),
)
SWAPS = Spec(
    "lte_adapter_swaps_total",
    "Swaps of the adapter: done or refused.",
    ("outcome",),
    (("done",), ("refused",)),
)
REFUSED = Spec(
    "lte_calls_refused_total",
    "Calls refused for who made them, by gRPC status code.",
    ("code",),
    (("UNAUTHENTICATED",), ("PERMISSION_DENIED",), ("RESOURCE_EXHAUSTED",)),
)
SWAP_TIME = Spec("lte_adapter_swap_seconds", "Time of a swap: verify, load, try, switch, store the pointer.")

# Read when Prometheus asks.
GAUGES = (
    Spec("lte_state", "1 for the state that the daemon is in, 0 for the others.", ("state",)),
    Spec("lte_stale", "1 when no broker has answered for a while: answers go on, flagged."),
    Spec(
        "lte_ingest_lag_records",
        "Records between position and end of a partition; NaN while unknown.",
        ("partition",),
    ),
    Spec("lte_token_file_ok", "0 when the token file as it is now was refused: the one of before holds."),
    Spec("lte_principals", "Principals of the token file, by whether they have expired.", ("state",)),
    Spec("lte_ingest_next_offset", "Next offset that questions cannot see yet.", ("partition",)),
    Spec("lte_memory_edits", "Edits kept, with their history."),
    Spec("lte_memory_facts", "Facts that are current."),
    Spec("lte_memory_keys", "Fact keys that were ever asserted."),
    Spec(
        "lte_memory_joined_keys",
        "Fact keys that an upgrade made of keys of different publishers, because they are spellings of one.",
    ),
    Spec("lte_memory_bytes", "Bytes of the state directory."),
    Spec(
        "lte_memory_state",
        "1, with hashes of all standing facts and of the offsets that they reflect, at the last self-check: "
        "replicas with the same offsets have the same facts.",
        ("facts", "offsets"),
    ),
    Spec("lte_disk_bytes", "Size of the file system of the state directory."),
    Spec("lte_disk_free_bytes", "Bytes free there for the daemon's user."),
    Spec("lte_index_vectors", "Vectors in the index, live and dead.", ("state",)),
    Spec("lte_index_path", "1 for the way the index searches: exact or hnsw.", ("path",)),
    Spec("lte_index_recall", "Recall@3 of the index against exact search, from the last self-check."),
    Spec("lte_queue_depth", "Questions that wait for the model."),
    Spec("lte_dead_letters_pending", "Quarantined records not yet in the dead-letter topic."),
    Spec("lte_quarantine_records", "Records in the quarantine."),
    Spec("lte_quarantine_bytes", "Bytes in the quarantine."),
    Spec("lte_quarantine_limit_bytes", "Bytes of quarantine past which ingest suspends."),
    Spec("lte_snapshot_timestamp_seconds", "When the last snapshot was finished, seconds since the epoch."),
    Spec("lte_drift_reading", "Newest value of each reading of drift.", ("reading",)),
    Spec("lte_drift_samples", "Observations in each rule's pooled value.", ("rule", "kind")),
    Spec(
        "lte_drift_margin", "Distance of each drift rule from its limit; negative past it.", ("rule", "kind")
    ),
    Spec("lte_drift_limit", "Limit of each threshold, in the unit of its reading.", ("rule", "kind")),
    Spec("lte_drift_reason", "1 for each rule that is a reason to re-align now.", ("rule", "kind")),
    Spec("lte_drift_would_start", "1 when a re-alignment would start now."),
    Spec("lte_drift_new_edits", "Edits since the last alignment."),
    Spec("lte_realign_state", "1 for the state of the run under way, 0 for the others.", ("state",)),
    Spec("lte_realign_progress", "Share of its phase that the run under way has done.", ("phase",)),
    Spec("lte_realign_circuit_open", "1 when too many runs failed in a row: nothing starts by itself."),
    Spec("lte_adapter_serving", "1 for the adapter that new questions get.", ("adapter", "sha256")),
    Spec("lte_adapters", "Adapters in the registry."),
    Spec(
        "lte_adapter_score",
        "Share of held-out probes that an adapter of the registry had right when it was judged.",
        ("adapter", "kind"),
    ),
    Spec("lte_adapter_tainted_edits", "Edits that the serving adapter learned and that no longer stand."),
    Spec("lte_adapter_epoch", "Highest epoch of a swap that was seen."),
    Spec("lte_build", "1, with the version and the adapter that is loaded.", ("version", "adapter")),
)
# Of the gateway's own process, which has a registry and an endpoint of its own.
GATEWAY = (
    Spec("lte_gateway_requests_total", "HTTP requests by route and status.", ("route", "status")),
    Spec("lte_gateway_request_seconds", "Time of an HTTP request, streams to their end.", ("route",)),
    Spec("lte_gateway_requests_running", "HTTP requests that run now."),
)
Fed = TypeVar("Fed", Counter, Histogram)
_GAUGES = {spec.name: spec for spec in GAUGES}


class Metrics:
    """Counters and histograms of one daemon, and the gauges of what `watch` was given. Thread-safe."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry(auto_describe=False)
        self._events = self._counter(EVENTS)
        self._applied = self._counter(APPLIED)
        self._duplicates = self._counter(DUPLICATES)
        self._conflicts = self._counter(CONFLICTS)
        self._unproven = self._counter(UNPROVEN)
        self._long_texts = self._counter(LONG_TEXTS)
        self._flagged = self._counter(FLAGGED)
        self._rejected = self._counter(REJECTED)
        self._ingest_stage = self._histogram(INGEST_STAGE, _FAST)
        self._freshness = self._histogram(FRESHNESS, _FRESH)
        self._gate = self._counter(GATE)
        self._gate_score = self._histogram(GATE_SCORE, _SHARE)
        self._answers = self._counter(ANSWERS)
        self._answer_time = self._histogram(ANSWER_TIME, _FAST)
        self._corrected = self._counter(CORRECTED)
        self._answer_tokens = self._counter(ANSWER_TOKENS)
        self._answer_stage = self._histogram(ANSWER_STAGE, _FAST)
        self._probes = self._counter(PROBES)
        self._feedback = self._counter(FEEDBACK)
        self._realigned = self._counter(REALIGNED)
        self._passed_over = self._counter(PASSED_OVER)
        self._swaps = self._counter(SWAPS)
        self._refused = self._counter(REFUSED)
        self._swap_time = self._histogram(SWAP_TIME, _FAST)
        self._rebuilds = self._counter(REBUILDS)
        self._jobs = self._counter(JOBS)
        self._job_time = self._histogram(JOB_TIME, _FAST)
        self._collector = _GaugeCollector()
        self.registry.register(self._collector)

    def watch(self, readings: Callable[[], Readings]) -> None:
        """Read the gauges of one more part at each scrape."""
        self._collector.add(readings)

    def ingested(
        self,
        *,
        events: int,
        applied: int,
        duplicates: int = 0,
        conflicts: int = 0,
        unproven: int = 0,
        long_texts: Mapping[str, int] | None = None,
        flagged: Mapping[str, int] | None = None,
        rejected: Mapping[str, int] | None = None,
        stages_ms: Mapping[str, float] | None = None,
    ) -> None:
        """One batch went through; `rejected` counts by reason, `long_texts` and `flagged` by flag."""
        self._events.inc(events)
        self._applied.inc(applied)
        self._duplicates.inc(duplicates)
        self._conflicts.inc(conflicts)
        self._unproven.inc(unproven)
        for flag, count in (long_texts or {}).items():
            self._long_texts.labels(flag).inc(count)
        for flag, count in (flagged or {}).items():
            self._flagged.labels(flag).inc(count)
        for code, count in (rejected or {}).items():
            self._rejected.labels(code).inc(count)
        for stage, milliseconds in (stages_ms or {}).items():
            self._ingest_stage.labels(stage).observe(milliseconds / 1000)

    def fresh(self, seconds: Iterable[float]) -> None:
        """Ages of events at the moment they became retrievable; a clock that is ahead counts as 0."""
        for age in seconds:
            self._freshness.observe(max(0.0, age))

    def gated(self, *, opened: bool, score: float) -> None:
        """The gate decided; `score` is its probability."""
        self._gate.labels("open" if opened else "closed").inc()
        self._gate_score.observe(score)

    def answered(
        self, *, scope: str, code: str, seconds: float, stages_ms: Mapping[str, float], tokens: int = 0
    ) -> None:
        """A call for an answer ended with a gRPC status code; `scope` is `none` when it failed before."""
        self._answers.labels(scope, code).inc()
        self._answer_tokens.labels(scope).inc(tokens)
        self._answer_time.labels(scope).observe(seconds)
        for stage, milliseconds in stages_ms.items():
            self._answer_stage.labels(stage).observe(milliseconds / 1000)

    def corrected(self) -> None:
        """An answer misquoted a value that it cites, and was put right."""
        self._corrected.inc()

    def rebuilt(self, indexes: int) -> None:
        """So many indexes were made anew."""
        self._rebuilds.inc(indexes)

    def probed(self, kind: str, outcome: str) -> None:
        """A probe was asked: `outcome` is right, wrong or skipped."""
        for possible in ("right", "wrong", "skipped"):
            self._probes.labels(kind, possible).inc(possible == outcome)

    def judged(self, verdict: str) -> None:
        """A user said what an answer was worth."""
        self._feedback.labels(verdict).inc()

    def realigned(self, state: str, trigger: str) -> None:
        """A re-alignment ended."""
        self._realigned.labels(state, trigger).inc()

    def passed_over(self, topic: str, code: str) -> None:
        """A bad record of a shared topic was passed over."""
        self._passed_over.labels(topic, code).inc()

    def swapped(self, outcome: str, seconds: float) -> None:
        """A swap of the adapter was tried: `outcome` is done or refused."""
        self._swaps.labels(outcome).inc()
        self._swap_time.observe(seconds)

    def refused(self, code: str) -> None:
        """A call was refused for who made it."""
        self._refused.labels(code).inc()

    def ran(self, job: str, *, ok: bool, seconds: float) -> None:
        """A job of the scheduler ended."""
        self._jobs.labels(job, "ok").inc(ok)
        self._jobs.labels(job, "failed").inc(not ok)
        self._job_time.labels(job).observe(seconds)

    def _counter(self, spec: Spec) -> Counter:
        name = spec.name.removesuffix("_total")
        return _started(Counter(name, spec.help, spec.labels, registry=self.registry), spec)

    def _histogram(self, spec: Spec, buckets: tuple[float, ...]) -> Histogram:
        histogram = Histogram(spec.name, spec.help, spec.labels, registry=self.registry, buckets=buckets)
        return _started(histogram, spec)


def _started(metric: Fed, spec: Spec) -> Fed:
    for values in spec.initial:
        metric.labels(*values)
    return metric


class _GaugeCollector(Collector):
    """Turns the parts' readings into gauges; an undeclared name is a bug and raises."""

    def __init__(self) -> None:
        self._parts: list[Callable[[], Readings]] = []

    def add(self, readings: Callable[[], Readings]) -> None:
        self._parts.append(readings)

    def collect(self) -> Iterator[Metric]:
        # A part may be added meanwhile: this scrape shows those that were there when it began.
        for name, reading in [pair for part in tuple(self._parts) for pair in part().items()]:
            spec = _GAUGES[name]
            family = GaugeMetricFamily(spec.name, spec.help, labels=spec.labels)
            for labels, value in _samples(reading):
                family.add_metric(labels, value)
            yield family


def _samples(reading: Reading) -> Iterator[tuple[tuple[str, ...], float]]:
    if isinstance(reading, Mapping):
        yield from reading.items()
    else:
        yield (), reading


class GatewayMetrics:
    """Counters, histogram and gauge of one gateway."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry(auto_describe=False)
        requests, seconds, running = GATEWAY
        self._requests = Counter(
            requests.name.removesuffix("_total"), requests.help, requests.labels, registry=self.registry
        )
        self._seconds = Histogram(
            seconds.name, seconds.help, seconds.labels, registry=self.registry, buckets=_FAST
        )
        self._running = Gauge(running.name, running.help, registry=self.registry)

    def began(self) -> None:
        self._running.inc()

    def ended(self, route: str, status: int, seconds: float) -> None:
        """A request has ended; `route` is a route's path, or a name for those that found none."""
        self._running.dec()
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)


class MetricsServer:
    """Serves `/metrics` at `host:port` (port 0 takes a free one) until `stop`.

    Raises `Refused` when the address cannot be bound.
    """

    def __init__(self, metrics: Metrics | GatewayMetrics, listen: str) -> None:
        host, _, port = listen.rpartition(":")
        self._server: Any
        try:
            self._server, self._thread = start_http_server(
                int(port), host.strip("[]"), registry=metrics.registry
            )
        except OSError as error:
            raise Refused(f"metrics cannot be served at {listen} ({error}): set metrics.listen") from error
        self.address = f"{host}:{self._server.server_port}"

    def stop(self) -> None:
        """Close the listener and wait for its thread."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
