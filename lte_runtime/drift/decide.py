"""Whether to re-align now: reasons from the readings, and the limits that hold a start back. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from math import log10

from lte_runtime.drift.detectors import Bad, ChangeDetector, Level, Threshold, Track, comparisons
from lte_runtime.drift.monitor import DetectorRules, DetectorState

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS


@dataclass(frozen=True, slots=True)
class DecisionSettings:
    """Limits on starts. Times in milliseconds; `max_adapter_age_ms` None: age is no reason.

    `settle_ms` is how long a reason must stand: what provoked it may not be learned from before.
    """

    rules: DetectorRules = field(default_factory=DetectorRules)
    cool_down_ms: int = 6 * HOUR_MS
    settle_ms: int = 0
    min_new_edits: int = 200
    daily_budget: int = 2
    max_adapter_age_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Situation:
    """What the readings do not tell. Times are milliseconds since the epoch.

    `starts_ms` are earlier starts by drift (at least those of a day), `ended_ms` when the last run ended,
    however it did; `backoff_until_ms` when the rest after failures is over; `adapter_since_ms` when the
    active adapter was made; `reason_since_ms` since when a reading is a reason; `tainted` how many facts that
    it was trained on no longer hold.
    `window_open` tells whether the cron window allows a start now, `owned` whether it is this daemon's to do.
    """

    new_edits: int = 0
    running: bool = False
    starts_ms: tuple[int, ...] = ()
    ended_ms: int | None = None
    adapter_since_ms: int | None = None
    reason_since_ms: int | None = None
    tainted: int = 0
    window_open: bool = True
    circuit_open: bool = False
    backoff_until_ms: int | None = None
    owned: bool = True


@dataclass(frozen=True, slots=True)
class Reason:
    """Why to re-align. `kind` is threshold, change, age or taint; `name` the reading, or the kind again."""

    kind: str
    name: str
    detail: str


@dataclass(frozen=True, slots=True)
class Block:
    """Why not now. `until_ms` is when the limit itself lets go, where time alone decides."""

    name: str
    detail: str
    until_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """`start` is true when there is a reason and no block."""

    reasons: tuple[Reason, ...]
    blocks: tuple[Block, ...]

    @property
    def start(self) -> bool:
        return bool(self.reasons) and not self.blocks


def decide(state: DetectorState, situation: Situation, settings: DecisionSettings, now_ms: int) -> Decision:
    """What should happen now. The same for the same arguments."""
    reasons = (
        *drifted(state, settings.rules),
        *_age(situation, settings, now_ms),
        *_taint(situation),
    )
    return Decision(reasons, tuple(_blocks(situation, settings, now_ms)))


def drifted(state: DetectorState, rules: DetectorRules) -> tuple[Reason, ...]:
    """The reasons that readings give."""
    return (*_thresholds(state, rules), *_changes(state))


def _thresholds(state: DetectorState, rules: DetectorRules) -> Iterator[Reason]:
    for rule in rules.thresholds:
        level = state.levels.get(rule.name, Level())
        if level.active:
            sign = "below" if rule.bad is Bad.FALL else "above"
            detail = (
                f"{level.value:.4g} over {level.n}, {sign} {rule.enter:g} and not yet back at {rule.leave:g}"
            )
            yield Reason("threshold", rule.name, detail)


def _changes(state: DetectorState) -> Iterator[Reason]:
    for alarm in state.alarms:
        detail = f"bad share {alarm.share:.3f} of {alarm.n}, {alarm.before:.3f} before, p {alarm.p:.1e}"
        yield Reason("change", alarm.name, detail)


def _age(situation: Situation, settings: DecisionSettings, now_ms: int) -> Iterator[Reason]:
    limit, since = settings.max_adapter_age_ms, situation.adapter_since_ms
    if limit is not None and since is not None and now_ms - since >= limit:
        yield Reason("age", "age", f"the adapter is {(now_ms - since) / HOUR_MS:.1f} h old")


def _taint(situation: Situation) -> Iterator[Reason]:
    if situation.tainted:
        yield Reason(
            "taint", "taint", f"{situation.tainted} facts that the adapter was trained on no longer hold"
        )


def _blocks(situation: Situation, settings: DecisionSettings, now_ms: int) -> Iterator[Block]:
    if situation.running:
        yield Block("running", "a re-alignment is under way")
    if not situation.owned:
        yield Block("owner", "another daemon owns re-alignment")
    if situation.circuit_open:
        yield Block("circuit", "too many runs failed in a row")
    if situation.backoff_until_ms is not None and now_ms < situation.backoff_until_ms:
        hours = (situation.backoff_until_ms - now_ms) / HOUR_MS
        yield Block(
            "back_off", f"{hours:.1f} h left of the pause after a failed run", situation.backoff_until_ms
        )
    if not situation.window_open:
        yield Block("window", "outside the cron window")
    # A withdrawn fact does its harm from within the adapter: it does not wait for news.
    if situation.new_edits < settings.min_new_edits and not situation.tainted:
        yield Block("new_edits", f"{situation.new_edits} new edits, {settings.min_new_edits} needed")
    yield from _settling(situation, settings, now_ms)
    yield from _cool_down(situation, settings, now_ms)
    yield from _budget(situation, settings, now_ms)


def _settling(situation: Situation, settings: DecisionSettings, now_ms: int) -> Iterator[Block]:
    """The facts that made the reason would be left out as too young, and the cool-down would follow."""
    if situation.reason_since_ms is None or situation.tainted:
        return
    until = situation.reason_since_ms + settings.settle_ms
    if now_ms < until:
        yield Block(
            "settling",
            f"{(until - now_ms) / 1000:.0f} s until the newest facts are old enough to be learned from",
            until,
        )


def _cool_down(situation: Situation, settings: DecisionSettings, now_ms: int) -> Iterator[Block]:
    if situation.ended_ms is None:
        return
    until = situation.ended_ms + settings.cool_down_ms
    if now_ms < until:
        yield Block(
            "cool_down", f"{(until - now_ms) / HOUR_MS:.1f} h left of the cool-down after the last run", until
        )


def _budget(situation: Situation, settings: DecisionSettings, now_ms: int) -> Iterator[Block]:
    # Starts that seem to lie ahead count too: a clock that was set back must not renew the budget.
    today = sorted(start for start in situation.starts_ms if start > now_ms - DAY_MS)
    if len(today) >= settings.daily_budget:
        frees = len(today) - settings.daily_budget
        until = today[frees] + DAY_MS if settings.daily_budget else None
        yield Block("budget", f"{len(today)} starts in 24 h, {settings.daily_budget} allowed", until)


@dataclass(frozen=True, slots=True)
class Margin:
    """How far a rule is from becoming a reason, for people.

    For a threshold `value`, `limit` and `margin` are in the reading's unit. For a change `value` is the
    smallest chance of all scans, `limit` that scan's level, `margin` the decades between. All None while
    `n` is below `needed`. The margin is negative beyond the limit.
    """

    name: str
    kind: str
    value: float | None
    limit: float | None
    margin: float | None
    n: int
    needed: int
    reason: bool


def margins(state: DetectorState, rules: DetectorRules) -> tuple[Margin, ...]:
    """One for each rule, thresholds first."""
    return (
        *(_level_margin(rule, state.levels.get(rule.name, Level())) for rule in rules.thresholds),
        *(_track_margin(rule, state) for rule in rules.changes),
    )


def _level_margin(rule: Threshold, level: Level) -> Margin:
    value = level.value if level.n >= rule.min_sample else None
    limit = rule.leave if level.active else rule.enter
    gap = None if value is None else value - limit if rule.bad is Bad.FALL else limit - value
    return Margin(rule.name, "threshold", value, limit, gap, level.n, rule.min_sample, level.active)


def _track_margin(rule: ChangeDetector, state: DetectorState) -> Margin:
    track = state.tracks.get(rule.name, Track())
    alarmed = any(alarm.name == rule.name for alarm in state.alarms)
    n = track.reference.n
    tested = list(comparisons(rule, track))
    if not tested:
        return Margin(rule.name, "change", None, None, None, n, rule.min_reference, alarmed)
    worst = min(tested, key=lambda comparison: comparison.p / comparison.scan.alpha)
    decades = log10(max(worst.p, 1e-300) / worst.scan.alpha)
    return Margin(rule.name, "change", worst.p, worst.scan.alpha, decades, n, rule.min_reference, alarmed)
