"""What the dashboards show, as tables. Metrics are named bare: the selector of instances is added to each.

`dashboards.py` makes Grafana's JSON of it, `render.py` pictures.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from lte_runtime.drift import readings
from lte_runtime.drift.rules import THRESHOLDS

SELECTOR = 'instance=~"$instance"'
# Not the objectives, which belong to no instance.
_METRIC = re.compile(r"\b(lte_\w+|lte:slo_(?!allowed)[\w:]+)(\{)?")


class Kind(StrEnum):
    """How a panel draws its series. STATES are bands, coloured where the value is 1."""

    LINES = "lines"
    NUMBER = "number"
    STATES = "states"


@dataclass(frozen=True)
class Query:
    """PromQL without the selector, and the legend with Grafana's `{{label}}`."""

    expr: str
    legend: str

    @property
    def selected(self) -> str:
        """With the selector in every metric and recorded series."""
        return _METRIC.sub(lambda m: f"{m[1]}{{{SELECTOR}{',' if m[2] else '}'}", self.expr)


@dataclass(frozen=True)
class Panel:
    """`unit` as Grafana names it, `width` in 24ths of a page; `bad_below` and `bad_above` are limits; `alert`
    names an entry of the runbook."""

    title: str
    description: str
    queries: tuple[Query, ...]
    unit: str = "short"
    kind: Kind = Kind.LINES
    width: int = 8
    bad_below: float | None = None
    bad_above: float | None = None
    minimum: float | None = 0.0
    maximum: float | None = None
    alert: str = ""


@dataclass(frozen=True)
class Row:
    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True)
class Board:
    """A dashboard; `uid` is fixed, so that links last."""

    uid: str
    title: str
    description: str
    rows: tuple[Row, ...]
    swaps: bool = False

    @property
    def panels(self) -> Iterator[Panel]:
        return (panel for row in self.rows for panel in row.panels)


SWAPS = Query(
    'increase(lte_adapter_swaps_total{outcome="done"}[$__rate_interval]) > 0', "swap on {{instance}}"
)
RATE = "[$__rate_interval]"
PER_S = "suffix:/s"
SHARE = "percentunit"


def _per_second(metric: str, legend: str, by: str = "") -> Query:
    return Query(f"sum{f' by ({by}) ' if by else ''}(rate({metric}{RATE}))", legend)


def _quantiles(metric: str, *quantiles: float) -> tuple[Query, ...]:
    return tuple(
        Query(f"histogram_quantile({q:g}, sum by (le) (rate({metric}_bucket{RATE})))", f"{q:.0%}")
        for q in quantiles
    )


def _mean(metric: str, by: str) -> Query:
    """Nothing where nothing was counted."""
    total, count = f"rate({metric}_sum{RATE})", f"rate({metric}_count{RATE})"
    return Query(f"sum by ({by}) ({total}) / (sum by ({by}) ({count}) > 0)", f"{{{{{by}}}}}")


def _budget(slo: str, promise: str) -> Panel:
    return Panel(
        f"Budget left: {slo}",
        f"What is left of the week's error budget, -100 % at the least. Promised: {promise}.",
        (Query(f'clamp_min(min(lte:slo_budget:remaining7d{{slo="{slo}"}}), -1)', "left"),),
        unit=SHARE,
        kind=Kind.NUMBER,
        width=4,
        bad_below=0.0,
        minimum=None,
        maximum=1.0,
        alert="LteBudgetBurnsFast",
    )


def _objective(slo: str, title: str, bad: str) -> Panel:
    return Panel(
        title,
        f"Share of {bad}, over five minutes and one hour, and the share that the objective allows.",
        (
            Query(f'max(lte:slo_bad:ratio5m{{slo="{slo}"}})', "5 min"),
            Query(f'max(lte:slo_bad:ratio1h{{slo="{slo}"}})', "1 h"),
            Query(f'max(lte:slo_allowed:ratio{{slo="{slo}"}})', "allowed"),
        ),
        unit=SHARE,
        alert="LteBudgetBurnsSlowly",
    )


OVERVIEW = Board(
    "lte-overview",
    "lte: Overview",
    "Are the answers right, fresh and fast? Objectives, error budgets, and what is wrong now.",
    (
        Row(
            "Now",
            (
                Panel(
                    "State",
                    "The state of each daemon. READY and DEGRADED serve; GAP and SUSPENDED serve and "
                    "apply nothing.",
                    (Query("max by (instance, state) (lte_state)", "{{state}}"),),
                    kind=Kind.STATES,
                    alert="LteGap",
                ),
                Panel(
                    "Alerts",
                    "Alerts of the daemon that fire now.",
                    (Query('count(ALERTS{alertname=~"Lte.*", alertstate="firing"}) or vector(0)', "firing"),),
                    kind=Kind.NUMBER,
                    width=4,
                    bad_above=0.5,
                ),
                _budget("right", "95 % of live probes are answered right"),
                _budget("fresh", "99 % of events can be found within 1 s"),
                _budget("fast", "95 % of questions are answered within 1 s"),
            ),
        ),
        Row(
            "Objectives",
            (
                _objective("right", "Right: wrong answers to probes", "probes that were answered wrong"),
                _objective("fresh", "Fresh: late events", "events that were found later than after 1 s"),
                _objective("fast", "Fast: late or no answers", "questions without an answer within 1 s"),
            ),
        ),
        Row(
            "Load",
            (
                Panel(
                    "Events and questions",
                    "Events read from Kafka, and calls for an answer.",
                    (
                        _per_second("lte_ingest_events_total", "events"),
                        _per_second("lte_answers_total", "questions"),
                    ),
                    unit=PER_S,
                    alert="LteOverloaded",
                ),
                Panel(
                    "Freshness",
                    "From an event's timestamp to the moment questions can find it: median and 99th "
                    "percentile.",
                    _quantiles("lte_freshness_seconds", 0.5, 0.99),
                    unit="s",
                    bad_above=1.0,
                ),
                Panel(
                    "Time of an answer",
                    "Total time of an answer: median and 99th percentile.",
                    _quantiles("lte_answer_seconds", 0.5, 0.99),
                    unit="s",
                    bad_above=1.0,
                ),
                Panel(
                    "Lag",
                    "Records in Kafka that were not read yet, by daemon; nothing while the lag is unknown.",
                    (Query("sum by (instance) (lte_ingest_lag_records)", "{{instance}}"),),
                    alert="LteIngestLag",
                    bad_above=5000.0,
                ),
                Panel(
                    "Adapter in service",
                    "The adapter that new questions get. Replicas should agree.",
                    (Query("max by (adapter) (lte_adapter_serving)", "{{adapter}}"),),
                    kind=Kind.STATES,
                ),
                Panel(
                    "Version",
                    "Daemons by version. Two versions for long: an upgrade stopped half way.",
                    (Query("count by (version) (lte_build)", "{{version}}"),),
                    kind=Kind.NUMBER,
                ),
            ),
        ),
    ),
    swaps=True,
)

INGEST = Board(
    "lte-ingest",
    "lte: Ingest",
    "From Kafka to the edit memory: rate, lag, freshness, bad records, missing history.",
    (
        Row(
            "Rate and lag",
            (
                Panel(
                    "Events",
                    "Records read, and what became of them: applied, dropped as duplicates, lost to "
                    "another edit of their "
                    "key, rejected as no valid event.",
                    (
                        _per_second("lte_ingest_events_total", "read"),
                        _per_second("lte_ingest_applied_total", "applied"),
                        _per_second("lte_ingest_duplicates_total", "duplicates"),
                        _per_second("lte_ingest_conflicts_total", "conflicts lost"),
                        _per_second("lte_ingest_rejected_total", "rejected"),
                    ),
                    unit=PER_S,
                ),
                Panel(
                    "Lag by partition",
                    "Records between the position and the end of each partition.",
                    (Query("max by (partition) (lte_ingest_lag_records)", "partition {{partition}}"),),
                    alert="LteIngestLag",
                ),
                Panel(
                    "Progress by partition",
                    "How fast each watermark moves. A flat line beside a lag: that partition is stuck.",
                    (
                        Query(
                            f"max by (partition) (rate(lte_ingest_next_offset{RATE}))",
                            "partition {{partition}}",
                        ),
                    ),
                    unit=PER_S,
                    alert="LteDegraded",
                ),
            ),
        ),
        Row(
            "Freshness",
            (
                Panel(
                    "Freshness",
                    "From an event's timestamp to the moment questions can find it.",
                    _quantiles("lte_freshness_seconds", 0.5, 0.95, 0.99),
                    unit="s",
                    bad_above=1.0,
                    alert="LteBudgetBurnsFast",
                ),
                Panel(
                    "Time of a batch by stage",
                    "Mean time of a batch in the encoder, the store and the index.",
                    (_mean("lte_ingest_stage_seconds", "stage"),),
                    unit="s",
                ),
                Panel(
                    "Missing history and stops",
                    "GAP: records are gone that were not read yet. SUSPENDED: an operator must act. "
                    "Stale: no broker answers.",
                    (
                        Query('max by (state) (lte_state{state=~"GAP|SUSPENDED|CATCHING_UP"})', "{{state}}"),
                        Query("max(lte_stale)", "stale"),
                    ),
                    kind=Kind.STATES,
                    alert="LteGap",
                ),
            ),
        ),
        Row(
            "Bad records",
            (
                Panel(
                    "Rejected by reason",
                    "Records that are no valid event, by the reason that `lte dlq list` shows.",
                    (_per_second("lte_ingest_rejected_total", "{{code}}", "code"),),
                    unit=PER_S,
                    alert="LteDeadLetterRate",
                ),
                Panel(
                    "Share rejected",
                    "Rejected records of all records read.",
                    (
                        Query(
                            f"sum(rate(lte_ingest_rejected_total{RATE})) / "
                            f"(sum(rate(lte_ingest_events_total{RATE})) > 0)",
                            "rejected",
                        ),
                    ),
                    unit=SHARE,
                    bad_above=0.05,
                    alert="LteDeadLetterRate",
                ),
                Panel(
                    "Dead letters",
                    "Records in the quarantine, and those of them that are not in the dead-letter topic yet.",
                    (
                        Query("sum(lte_quarantine_records)", "quarantined"),
                        Query("sum(lte_dead_letters_pending)", "pending"),
                    ),
                    alert="LteDeadLettersPending",
                ),
                Panel(
                    "Quarantine used",
                    "Bytes of the quarantine by its limit; past it ingest suspends.",
                    (
                        Query(
                            "max by (instance) (lte_quarantine_bytes / lte_quarantine_limit_bytes)",
                            "{{instance}}",
                        ),
                    ),
                    unit=SHARE,
                    bad_above=0.8,
                    alert="LteQuarantineFilling",
                ),
                Panel(
                    "Long texts",
                    "Edits with a text longer than the encoder reads at once, in all since the start.",
                    (Query("sum by (flag) (lte_ingest_long_texts_total)", "{{flag}}"),),
                ),
                Panel(
                    "Doubtful names",
                    "Edits that were applied and flagged, since the start: a name of another publisher's "
                    "facts, a name that says too little, look-alike or invisible characters.",
                    (Query("sum by (flag) (lte_ingest_flagged_total)", "{{flag}}"),),
                ),
                Panel(
                    "Records that nobody should write",
                    "Since the start: bad records on the topics of the daemons, and invented original "
                    "positions.",
                    (
                        Query("sum by (topic) (lte_topic_records_passed_over_total)", "{{topic}}"),
                        Query("sum(lte_ingest_unproven_positions_total)", "invented positions"),
                    ),
                    alert="LteForeignRecords",
                ),
            ),
        ),
    ),
)

ANSWERS = Board(
    "lte-answers",
    "lte: Answers",
    "What questions get, how fast, and where the time goes.",
    (
        Row(
            "Questions",
            (
                Panel(
                    "Questions by scope",
                    "edited: answered from facts; base: by the original model alone; none: no answer.",
                    (_per_second("lte_answers_total", "{{scope}}", "scope"),),
                    unit=PER_S,
                ),
                Panel(
                    "Calls by status code",
                    "RESOURCE_EXHAUSTED: the queue was full. DEADLINE_EXCEEDED: the caller did not wait "
                    "long enough.",
                    (_per_second("lte_answers_total", "{{code}}", "code"),),
                    unit=PER_S,
                    alert="LteOverloaded",
                ),
                Panel(
                    "Share without an answer",
                    "Calls that ended with another code than OK.",
                    (
                        Query(
                            f'sum(rate(lte_answers_total{{code!="OK"}}{RATE})) / '
                            f"(sum(rate(lte_answers_total{RATE})) > 0)",
                            "failed",
                        ),
                    ),
                    unit=SHARE,
                    bad_above=0.05,
                    alert="LteOverloaded",
                ),
            ),
        ),
        Row(
            "Time",
            (
                Panel(
                    "Time of an answer",
                    "Total time in the daemon.",
                    _quantiles("lte_answer_seconds", 0.5, 0.95, 0.99),
                    unit="s",
                    bad_above=1.0,
                    alert="LteBudgetBurnsFast",
                ),
                Panel(
                    "Time by stage",
                    "Mean time of an answer in each stage: encode, search, chain, gate, queue, model.",
                    (_mean("lte_answer_stage_seconds", "stage"),),
                    unit="s",
                ),
                Panel(
                    "Queue",
                    "Questions that wait for the model. At `model.queue_limit` the next one is refused.",
                    (Query("max by (instance) (lte_queue_depth)", "{{instance}}"),),
                    alert="LteOverloaded",
                ),
            ),
        ),
        Row(
            "Content",
            (
                Panel(
                    "Tokens",
                    "Tokens of answers, by scope.",
                    (_per_second("lte_answer_tokens_total", "{{scope}}", "scope"),),
                    unit=PER_S,
                ),
                Panel(
                    "Tokens of an answer",
                    "Mean length of an answer, by scope.",
                    (
                        Query(
                            f"sum by (scope) (rate(lte_answer_tokens_total{RATE})) "
                            f'/ (sum by (scope) (rate(lte_answers_total{{code="OK"}}{RATE})) > 0)',
                            "{{scope}}",
                        ),
                    ),
                ),
                Panel(
                    "Gate decisions",
                    "open: the question is about an edit.",
                    (_per_second("lte_gate_decisions_total", "{{decision}}", "decision"),),
                    unit=PER_S,
                ),
                Panel(
                    "Gate score",
                    "Probability that a question is about an edit. Much between 0.3 and 0.7: the gate "
                    "is unsure.",
                    _quantiles("lte_gate_score", 0.1, 0.5, 0.9),
                    unit=SHARE,
                    maximum=1.0,
                ),
                Panel(
                    "Feedback",
                    "Users' verdicts on answers.",
                    (_per_second("lte_feedback_total", "{{verdict}}", "verdict"),),
                    unit=PER_S,
                    alert="LteDriftStands",
                ),
                Panel(
                    "Misquotes put right",
                    "Answers in which a misquoted value was put as it was published.",
                    (_per_second("lte_answers_corrected_total", "corrected"),),
                    unit=PER_S,
                ),
            ),
        ),
        Row(
            "Gateway",
            (
                Panel(
                    "HTTP requests",
                    "Requests of the gateway by status: 429 is a limit, 503 a daemon that is away.",
                    (_per_second("lte_gateway_requests_total", "{{status}}", "status"),),
                    unit=PER_S,
                    alert="LteGatewayFails",
                ),
                Panel(
                    "HTTP time",
                    "Time of requests for answers, streams to their end.",
                    _quantiles("lte_gateway_request_seconds", 0.5, 0.99),
                    unit="s",
                ),
                Panel(
                    "HTTP requests running",
                    "Requests that run now; the limit is gateway.max_concurrent.",
                    (Query("sum(lte_gateway_requests_running)", "running"),),
                ),
            ),
        ),
        Row(
            "Callers",
            (
                Panel(
                    "Refused callers",
                    "Calls refused for who made them: no known token, no right, or more than the rate or the "
                    "listener allows.",
                    (_per_second("lte_calls_refused_total", "{{code}}", "code"),),
                    unit=PER_S,
                ),
                Panel(
                    "Token file",
                    "0: the file as it is now was refused, and the tokens of before hold.",
                    (Query("min by (instance) (lte_token_file_ok)", "{{instance}}"),),
                    kind=Kind.STATES,
                    alert="LteDegraded",
                ),
                Panel(
                    "Principals",
                    "Who may call, by whether their entry has expired.",
                    (Query("max by (state) (lte_principals)", "{{state}}"),),
                ),
            ),
        ),
    ),
    swaps=True,
)

# What each reading is, in a line.
_READINGS = {
    readings.EDIT_SUCCESS: "Share of verbatim questions about current facts that were answered right.",
    readings.GENERALITY: "Share of rephrased questions that were answered right.",
    readings.ALIAS: "Share of questions by an alias that were answered right.",
    readings.PORTABILITY: "Share of questions over two facts that were answered right.",
    readings.LOCALITY: "Share of general questions that were answered as by the base model.",
    readings.CHOICE: "Share of questions with four choices that were answered right.",
    readings.RETRIEVAL_HITS: "Share of verbatim questions whose fact was cited.",
    readings.RECALL: "Recall of the index against exact search.",
    readings.GATE_MARGIN: "Gate score of verbatim questions less the gate's threshold.",
    readings.UNSEEN_RELATIONS: "Share of new edits whose relation the last alignment has not seen.",
    readings.EDITS_SINCE: "Edits since the last alignment.",
    readings.QUESTION_SHIFT: "p-value: do the newest questions look like the first ones?",
    readings.EVENT_SHIFT: "p-value: do the newest edits look like the first ones?",
    readings.NEGATIVE_FEEDBACK: "Share of bad verdicts in users' feedback.",
}
_LIMITED = {rule.name for rule in THRESHOLDS}
_COUNTED = {readings.EDITS_SINCE}


def _reading(name: str, what: str) -> Panel:
    limit = (Query(f'max(lte_drift_limit{{rule="{name}"}})', "limit"),) if name in _LIMITED else ()
    how = "A reason when it passes the limit, pooled over its sample." if limit else "A reason when it falls."
    return Panel(
        name.replace("_", " ").capitalize(),
        f"{what} {how}",
        (Query(f'max by (instance) (lte_drift_reading{{reading="{name}"}})', "{{instance}}"), *limit),
        unit="short" if name in _COUNTED else SHARE,
        width=6,
        maximum=None if name in _COUNTED else 1.0,
        minimum=None if name == readings.GATE_MARGIN else 0.0,
        alert="LteLocalityDrop" if name == readings.LOCALITY else "LteDriftStands",
    )


_RIGHT = f'sum by (instance, kind) (rate(lte_drift_probes_total{{outcome="right"}}{RATE}))'
_ASKED = f'(sum by (instance, kind) (rate(lte_drift_probes_total{{outcome=~"right|wrong"}}{RATE})) > 0)'

DRIFT = Board(
    "lte-drift",
    "lte: Drift and alignment",
    "Whether answers get worse, why, and what re-alignment did about it. Vertical lines are swaps of "
    "the adapter.",
    (
        Row("Readings and their limits", tuple(_reading(name, what) for name, what in _READINGS.items())),
        Row(
            "Reasons",
            (
                Panel(
                    "Reasons to re-align",
                    "Rules that are a reason now: below their limit, or changed against their own past.",
                    (Query("max by (rule, kind) (lte_drift_reason)", "{{rule}} ({{kind}})"),),
                    kind=Kind.STATES,
                    width=12,
                    alert="LteDriftStands",
                ),
                Panel(
                    "Distance from the limit",
                    "Thresholds in the unit of their reading, changes in decades of chance; a reason "
                    "below 0.",
                    (
                        Query(
                            'min by (rule, kind) (lte_drift_margin{rule!="edits_since_alignment"})',
                            "{{rule}} ({{kind}})",
                        ),
                    ),
                    width=12,
                    minimum=None,
                    bad_below=0.0,
                ),
                Panel(
                    "Observations",
                    "Observations in each threshold's pooled value; below its sample a rule decides nothing.",
                    (Query('max by (rule) (lte_drift_samples{kind="threshold"})', "{{rule}}"),),
                    width=12,
                ),
                Panel(
                    "A re-alignment would start now",
                    "1 when there is a reason and nothing holds it back; `lte drift` names both.",
                    (Query("max by (instance) (lte_drift_would_start)", "{{instance}}"),),
                    kind=Kind.STATES,
                    width=6,
                ),
                Panel(
                    "New edits",
                    "Edits since the last alignment; a start by drift needs `realign.min_new_edits`.",
                    (Query("max by (instance) (lte_drift_new_edits)", "{{instance}}"),),
                    width=6,
                ),
            ),
        ),
        Row(
            "Probes",
            (
                Panel(
                    "Right answers by adapter",
                    "Share of live probes answered right, by kind and the adapter that serves now.",
                    (
                        Query(
                            f"avg by (adapter, kind) ({_RIGHT} / {_ASKED} "
                            "* on (instance) group_left (adapter) lte_adapter_serving)",
                            "{{adapter}} {{kind}}",
                        ),
                    ),
                    unit=SHARE,
                    maximum=1.0,
                    width=12,
                ),
                Panel(
                    "Probes",
                    "Probes asked, by outcome. skipped: users' questions left no time.",
                    (_per_second("lte_drift_probes_total", "{{outcome}}", "outcome"),),
                    unit=PER_S,
                    width=12,
                ),
            ),
        ),
        Row(
            "Runs",
            (
                Panel(
                    "Run under way",
                    "The state of the re-alignment under way.",
                    (Query("max by (state) (lte_realign_state)", "{{state}}"),),
                    kind=Kind.STATES,
                    alert="LteRealignFailing",
                ),
                Panel(
                    "Progress of the phase",
                    "Share of its phase that the run under way has done.",
                    (Query("max by (phase) (lte_realign_progress)", "{{phase}}"),),
                    unit=SHARE,
                    maximum=1.0,
                ),
                Panel(
                    "Verdicts",
                    "Runs by how they ended, since the start of the daemon: done is promoted, rejected "
                    "lost against what "
                    "serves.",
                    (Query("sum by (state) (lte_realign_runs_total)", "{{state}}"),),
                    kind=Kind.NUMBER,
                    alert="LteRealignFailing",
                ),
                Panel(
                    "Runs by who started them",
                    "drift, an operator, or a record on the control topic.",
                    (Query("sum by (trigger) (lte_realign_runs_total)", "{{trigger}}"),),
                    kind=Kind.NUMBER,
                ),
                Panel(
                    "Circuit open",
                    "1 after three failures in a row: nothing starts by itself.",
                    (Query("max(lte_realign_circuit_open)", "open"),),
                    kind=Kind.STATES,
                    alert="LteRealignFailing",
                ),
            ),
        ),
        Row(
            "Adapters",
            (
                Panel(
                    "Adapter in service",
                    "The adapter that new questions get.",
                    (Query("max by (adapter) (lte_adapter_serving)", "{{adapter}}"),),
                    kind=Kind.STATES,
                ),
                Panel(
                    "Judged scores by adapter",
                    "Share of held-out probes that each adapter had right when it was judged.",
                    (Query("max by (adapter, kind) (lte_adapter_score)", "{{adapter}} {{kind}}"),),
                    unit=SHARE,
                    maximum=1.0,
                ),
                Panel(
                    "Swaps",
                    "Swaps since the start: done or refused.",
                    (Query("sum by (outcome) (lte_adapter_swaps_total)", "{{outcome}}"),),
                    alert="LteSwapRefused",
                ),
                Panel(
                    "Time of a swap",
                    "Mean time to verify, load, try and switch. Answers go on meanwhile.",
                    (
                        Query(
                            "sum(lte_adapter_swap_seconds_sum) / (sum(lte_adapter_swap_seconds_count) > 0)",
                            "mean",
                        ),
                    ),
                    unit="s",
                ),
                Panel(
                    "Tainted edits",
                    "Edits that the serving adapter learned and that no longer stand.",
                    (Query("max by (instance) (lte_adapter_tainted_edits)", "{{instance}}"),),
                    bad_above=0.5,
                    alert="LteAdapterTainted",
                ),
                Panel(
                    "Registry",
                    "Adapters in the registry, and the highest epoch of a swap that was seen.",
                    (Query("max(lte_adapters)", "adapters"), Query("max(lte_adapter_epoch)", "epoch")),
                    kind=Kind.NUMBER,
                    minimum=None,
                ),
            ),
        ),
    ),
    swaps=True,
)

MEMORY = Board(
    "lte-memory",
    "lte: Edit memory",
    "Size, churn, recall and upkeep of the edit memory, its disk, and whether replicas agree.",
    (
        Row(
            "Size and churn",
            (
                Panel(
                    "Facts, keys and edits",
                    "Facts that are current, keys that were ever asserted, edits kept with their history.",
                    (
                        Query("max(lte_memory_facts)", "facts"),
                        Query("max(lte_memory_keys)", "keys"),
                        Query("max(lte_memory_edits)", "edits"),
                    ),
                ),
                Panel(
                    "Keys joined by an upgrade",
                    "Facts of different publishers that became one at an upgrade, because their names are "
                    "spellings of one name. `lte index rekey --dry-run` lists them.",
                    (Query("max by (instance) (lte_memory_joined_keys)", "{{instance}}"),),
                    kind=Kind.NUMBER,
                ),
                Panel(
                    "Churn",
                    "Edits applied, and how the number of current facts changes: facts that replace "
                    "others add nothing.",
                    (
                        _per_second("lte_ingest_applied_total", "edits applied"),
                        Query(f"sum(deriv(lte_memory_facts{RATE}))", "facts gained"),
                    ),
                    unit=PER_S,
                    minimum=None,
                ),
                Panel(
                    "Vectors",
                    "Vectors in the index. Dead ones go with the next rebuild, from a fifth of all on.",
                    (Query("sum by (state) (lte_index_vectors)", "{{state}}"),),
                ),
            ),
        ),
        Row(
            "Index",
            (
                Panel(
                    "Recall",
                    "Recall@3 of the index against exact search, by the self-check every ten minutes.",
                    (Query("min by (instance) (lte_index_recall)", "{{instance}}"),),
                    unit=SHARE,
                    maximum=1.0,
                    bad_below=0.95,
                    alert="LteIndexRecallLow",
                ),
                Panel(
                    "Way of searching",
                    "exact reads all vectors, hnsw a graph (from 5,000 vectors of a namespace).",
                    (Query("max by (path) (lte_index_path)", "{{path}}"),),
                    kind=Kind.STATES,
                ),
                Panel(
                    "Rebuilds",
                    "Indexes made anew since the start, because of dead vectors or poor recall.",
                    (Query("sum(lte_index_rebuilds_total)", "rebuilds"),),
                ),
            ),
        ),
        Row(
            "Upkeep",
            (
                Panel(
                    "Age of the snapshot",
                    "An old snapshot makes the next start slower; nothing is lost.",
                    (Query("max(time() - lte_snapshot_timestamp_seconds)", "age"),),
                    unit="s",
                    alert="LteJobFailing",
                ),
                Panel(
                    "Runs of jobs",
                    "The daemon's own jobs, by how they ended.",
                    (
                        Query(
                            f"sum by (exported_job, result) (rate(lte_job_runs_total{RATE})) > 0",
                            "{{exported_job}} {{result}}",
                        ),
                    ),
                    unit=PER_S,
                    alert="LteJobFailing",
                ),
                Panel(
                    "Time of jobs",
                    "Mean time of a run.",
                    (
                        Query(
                            f"sum by (exported_job) (rate(lte_job_seconds_sum{RATE})) "
                            f"/ (sum by (exported_job) (rate(lte_job_seconds_count{RATE})) > 0)",
                            "{{exported_job}}",
                        ),
                    ),
                    unit="s",
                ),
            ),
        ),
        Row(
            "Disk and replicas",
            (
                Panel(
                    "State directory",
                    "Bytes of the state directory.",
                    (Query("max by (instance) (lte_memory_bytes)", "{{instance}}"),),
                    unit="bytes",
                ),
                Panel(
                    "Disk free",
                    "Share of the file system of the state directory that is free. On a full disk "
                    "ingest stops.",
                    (Query("min by (instance) (lte_disk_free_bytes / lte_disk_bytes)", "{{instance}}"),),
                    unit=SHARE,
                    maximum=1.0,
                    bad_below=0.05,
                    alert="LteDiskLow",
                ),
                Panel(
                    "Different states at equal offsets",
                    "How many different sets of facts daemons have held at the same offsets, within six "
                    "hours. Above 1 "
                    "replicas differ.",
                    (
                        Query(
                            "max(count by (offsets) (count by (offsets, facts) "
                            "(last_over_time(lte_memory_state[6h]))))",
                            "states",
                        ),
                    ),
                    kind=Kind.NUMBER,
                    bad_above=1.5,
                    alert="LteReplicasDiffer",
                ),
            ),
        ),
    ),
)

BOARDS = (OVERVIEW, INGEST, ANSWERS, DRIFT, MEMORY)
