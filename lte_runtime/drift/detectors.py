"""When a reading becomes a reason: a threshold with hysteresis, or a change against a reference. Pure.

Both are a frozen rule and a frozen state with a step from reading to reading. The change detector scans
the newest probes, in windows of several sizes, against a reference taken before them, by Fisher's exact
test in one direction. It is the binomial case of the scan for a change whose earlier rate is unknown
(Siegmund and Venkatraman, Ann. Statist. 23, 1995), with the exact conditional tail (Fisher, 1935) in the
place of the likelihood ratio: the level holds at every base rate and whatever the error of the reference.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

from lte_runtime.drift.readings import Reading


class Bad(StrEnum):
    """The direction that is looked at; the other one is never a reason."""

    FALL = "fall"
    RISE = "rise"


@dataclass(frozen=True, slots=True)
class Threshold:
    """A reason from `enter` on, until the value is back at `leave`; readings are pooled up to `min_sample`.

    `hold` pooled values beyond `enter` in a row are needed.
    """

    name: str
    bad: Bad
    enter: float
    leave: float
    min_sample: int
    hold: int = 1

    def __post_init__(self) -> None:
        gap = self.leave - self.enter if self.bad is Bad.FALL else self.enter - self.leave
        if gap < 0 or self.min_sample < 1 or self.hold < 1:
            raise ValueError(f"threshold {self.name}: {self}")

    def beyond(self, value: float) -> bool:
        return value < self.enter if self.bad is Bad.FALL else value > self.enter

    def recovered(self, value: float) -> bool:
        return value >= self.leave if self.bad is Bad.FALL else value <= self.leave


@dataclass(frozen=True, slots=True)
class Level:
    """State of a threshold: (value, n) of the pooled readings, whether it is a reason, how long beyond."""

    recent: tuple[tuple[float, int], ...] = ()
    active: bool = False
    beyond: int = 0

    @property
    def n(self) -> int:
        return sum(n for _, n in self.recent)

    @property
    def value(self) -> float | None:
        """The pooled mean; None before the first reading."""
        return sum(value * n for value, n in self.recent) / self.n if self.recent else None


def step_threshold(rule: Threshold, state: Level, reading: Reading) -> Level:
    """The state after a reading; unchanged in its verdict while the sample is too small."""
    if not reading.n:
        return state
    pooled = Level(_newest((*state.recent, (reading.value, reading.n)), rule.min_sample))
    value = pooled.value
    if value is None or pooled.n < rule.min_sample:
        return Level(pooled.recent, state.active, state.beyond)
    beyond = state.beyond + 1 if rule.beyond(value) else 0
    still_active = state.active and not rule.recovered(value)
    return Level(pooled.recent, still_active or beyond >= rule.hold, beyond)


def _newest(recent: tuple[tuple[float, int], ...], least: int) -> tuple[tuple[float, int], ...]:
    """The shortest tail with at least `least` observations; all when there are fewer."""
    total = 0
    for start in range(len(recent) - 1, -1, -1):
        total += recent[start][1]
        if total >= least:
            return recent[start:]
    return recent


@dataclass(frozen=True, slots=True)
class Scan:
    """The newest at most `probes` outcomes are compared; an alarm when chance explains them to `alpha`."""

    probes: int
    alpha: float


@dataclass(frozen=True, slots=True)
class ChangeDetector:
    """A change of a share to the worse. The reference is what came before the longest scan.

    It needs `min_reference` outcomes and stops growing at `max_reference`, so that a slow decline cannot
    become the norm.
    """

    name: str
    bad: Bad
    scans: tuple[Scan, ...]
    min_reference: int = 1280
    max_reference: int = 12_800

    @property
    def longest(self) -> int:
        return max(scan.probes for scan in self.scans)


@dataclass(frozen=True, slots=True)
class OutcomeCounts:
    """`bad` outcomes of `n`."""

    bad: int = 0
    n: int = 0

    @property
    def share(self) -> float:
        return self.bad / self.n if self.n else 0.0


@dataclass(frozen=True, slots=True)
class Track:
    """State of a change detector: the reference, and running totals from its end on, reading by reading."""

    reference: OutcomeCounts = OutcomeCounts()
    bad: tuple[int, ...] = (0,)
    n: tuple[int, ...] = (0,)

    def last(self, probes: int) -> OutcomeCounts:
        """The longest tail of readings with at most `probes` outcomes."""
        start = bisect_left(self.n, self.n[-1] - probes)
        return OutcomeCounts(self.bad[-1] - self.bad[start], self.n[-1] - self.n[start])


@dataclass(frozen=True, slots=True)
class ScanComparison:
    """One scan's comparison: `p` is the chance of so many bad outcomes in the window without a change."""

    scan: Scan
    window: OutcomeCounts
    reference: OutcomeCounts
    p: float

    @property
    def alarm(self) -> bool:
        return self.p <= self.scan.alpha


def step_change(rule: ChangeDetector, state: Track, reading: Reading) -> tuple[Track, ScanComparison | None]:
    """The state after a reading, and the comparison that raises an alarm; then it starts from nothing."""
    if not reading.n:
        return state, None
    track = _shifted(rule, _longer(state, counted(rule.bad, reading)))
    for comparison in comparisons(rule, track):
        if comparison.alarm:
            return Track(), comparison
    return track, None


def counted(bad: Bad, reading: Reading) -> OutcomeCounts:
    """A share as counts of the bad outcome."""
    hits = round(reading.value * reading.n)
    return OutcomeCounts(reading.n - hits if bad is Bad.FALL else hits, reading.n)


def _longer(track: Track, new: OutcomeCounts) -> Track:
    return Track(track.reference, (*track.bad, track.bad[-1] + new.bad), (*track.n, track.n[-1] + new.n))


def _shifted(rule: ChangeDetector, track: Track) -> Track:
    """Readings older than the longest scan go to the reference, or away when that is full."""
    reference, bad, n = track.reference, track.bad, track.n
    while n[-1] - n[1] >= rule.longest:
        if reference.n < rule.max_reference:
            reference = OutcomeCounts(reference.bad + bad[1] - bad[0], reference.n + n[1] - n[0])
        bad, n = bad[1:], n[1:]
    return Track(reference, bad, n)


def comparisons(rule: ChangeDetector, track: Track) -> Iterator[ScanComparison]:
    """What each scan says now; nothing while the reference is too small."""
    reference = track.reference
    if reference.n < rule.min_reference:
        return
    for scan in rule.scans:
        window = track.last(scan.probes)
        if 2 * window.n >= scan.probes:
            p = excess_by_chance(window.bad, window.n, reference.bad, reference.n)
            yield ScanComparison(scan, window, reference, p)


@lru_cache(maxsize=1 << 16)
def excess_by_chance(bad: int, n: int, reference_bad: int, reference_n: int) -> float:
    """P(at least `bad` bad outcomes among the `n`), given all the bad ones: Fisher's exact test, one-sided.

    The hypergeometric tail, summed from its first term; 1.0 where the window is no worse than the reference.
    """
    if bad * reference_n <= reference_bad * n:
        return 1.0
    total, marked = reference_n + n, reference_bad + bad
    log_first = _log_choose(marked, bad) + _log_choose(total - marked, n - bad) - _log_choose(total, n)
    term = math.exp(log_first)
    tail = term
    for k in range(bad, min(n, marked)):
        term *= (marked - k) * (n - k) / ((k + 1) * (total - marked - n + k + 1))
        tail += term
        if term < tail * 1e-12:
            break
    return min(tail, 1.0)


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
