"""Drift at its default settings, on simulated readings: false alarms, and how soon real changes are found.

Everything goes through `monitor.observe` as in the daemon. Cycles are stationary streams of every reading at
once, independent of each other (the worst case for alarms of any of them), with a new reference each 2,500
cycles as after a re-alignment. Every new reason counts as an alarm. `edits_since_alignment` is no matter
of chance and is left out. `ours` is false_alarms_per_10k.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt

from lte_runtime.drift import mmd
from lte_runtime.drift import readings as r
from lte_runtime.drift.monitor import DetectorRules, DetectorState, observe
from lte_runtime.drift.readings import Reading
from ops.bench.result import SEED, BenchResult, machine, percentile, today

BAR = "<= 1 per 10,000; detected >= 0.95 within 300 probes; new_family_detected >= 0.95 within 200 events"
RULES = DetectorRules()
BATCH = 16
PROBES = 64
WITHIN_PROBES, WITHIN_EVENTS = 300, 200
DROP, BASE = 0.10, 0.95
REFERENCE, SHORT_REFERENCE = 240, 60
BASES = (0.99, 0.97, 0.95, 0.93, 0.90)  # below, the floor of 0.80 is a reason before any drop
FAMILY_SHARES = (1.0, 0.5, 0.25)
FAMILY_SHARE = 0.5
UNSEEN = 0.02
KNOWN = tuple(f"relation {n}" for n in range(18))
FAMILY = ("berth", "harbour pilot", "tide table", "draught")
WINDOW, DIMENSION, CLUSTERS = 512, 32, 12

# Name, outcomes a cycle, true share: what each reading is when nothing changes.
SHARES = (
    (r.EDIT_SUCCESS, PROBES, BASE),
    (r.GENERALITY, 32, 0.85),
    (r.ALIAS, 16, 0.85),
    (r.PORTABILITY, 16, 0.60),
    (r.LOCALITY, 32, 0.97),
    (r.CHOICE, 16, 0.75),
    (r.RETRIEVAL_HITS, PROBES, 0.97),
    (r.RECALL, PROBES, 0.998),
    (r.NEGATIVE_FEEDBACK, BATCH, 0.05),
    (r.UNSEEN_RELATIONS, PROBES, UNSEEN),
)

Progress = Callable[[str], None]
Rng = np.random.Generator
Vectors = npt.NDArray[np.float32]


@dataclass(frozen=True)
class DriftPlan:
    """Streams of `length` stationary cycles, and runs with a change."""

    streams: int
    length: int
    runs: int


FULL = DriftPlan(streams=80, length=2500, runs=200)
QUICK = DriftPlan(streams=2, length=500, runs=40)


@dataclass(frozen=True)
class Found:
    """Runs with a change: the share found in time, and the delays of those found (None when none)."""

    share: float
    median: float | None
    p95: float | None


def run(quick: bool, progress: Progress) -> BenchResult:
    """One row; what holds at other base rates and mixes is in `extra`."""
    plan = QUICK if quick else FULL
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        alarms = [name for names in stationary(plan, pool, progress) for name in names]
        progress("drops in edit success and new families of relations")
        extra = {**false(alarms, plan), **changes(plan.runs, pool)}
    return BenchResult(
        name="drift",
        ours=extra["false_alarms_per_10k"],
        peer=None,
        ratio=None,
        unit="false alarms per 10,000 cycles, all detectors",
        n=plan.streams * plan.length,
        bar=BAR,
        machine=machine(),
        date=today(),
        extra=extra,
    )


def false(alarms: Sequence[str], plan: DriftPlan) -> dict[str, Any]:
    """The rate, its one-sided upper 95 % bound, and which detectors raised how many."""
    cycles = plan.streams * plan.length
    return {
        "false_alarms_per_10k": 1e4 * len(alarms) / cycles,
        "false_alarms_per_10k_upper_95": 1e4 * poisson_upper(len(alarms)) / cycles,
        "false_alarms": {name: alarms.count(name) for name in sorted(set(alarms))},
    }


def changes(runs: int, pool: Executor) -> dict[str, Any]:
    """What was found of real changes, and how soon."""
    drops = {base: pool.submit(drop, runs, base) for base in BASES}
    short = pool.submit(drop, runs, BASE, before=SHORT_REFERENCE)
    full_cycles = pool.submit(drop, runs, BASE, batch=PROBES)
    families = {part: pool.submit(family, runs, part) for part in FAMILY_SHARES}
    embedded = pool.submit(shift, runs, FAMILY_SHARE)
    usual, new_family = drops[BASE].result(), families[FAMILY_SHARE].result()
    return {
        "detected": usual.share,
        "delay_probes": usual.median,
        "delay_probes_p95": usual.p95,
        "base_rate": BASE,
        "runs": runs,
        "detected_by_base_rate": {str(base): detection.result().share for base, detection in drops.items()},
        "detected_short_reference": short.result().share,
        "detected_whole_cycles": full_cycles.result().share,
        "new_family_detected": new_family.share,
        "new_family_delay_events": new_family.median,
        "new_family_by_share": {str(part): detection.result().share for part, detection in families.items()},
        "new_family_detected_by_embeddings": embedded.result(),
    }


def stationary(plan: DriftPlan, pool: Executor, progress: Progress) -> Iterator[list[str]]:
    """The names behind the alarms of each stream."""
    alarm_names = pool.map(stream, range(plan.streams), [plan.length] * plan.streams)
    for number, names in enumerate(alarm_names, 1):
        progress(f"stationary cycles: {number * plan.length} of {plan.streams * plan.length}")
        yield names


def stream(number: int, cycles: int) -> list[str]:
    return false_alarms(np.random.default_rng((SEED, number)), cycles)


def false_alarms(rng: Rng, cycles: int) -> list[str]:
    """What raised an alarm in one stream; an alarm is counted and the stream goes on."""
    state, alarms = DetectorState(), []
    questions, events = Embeddings(rng), Embeddings(rng)
    for _ in range(cycles):
        readings = [*shares(rng), margin(rng), questions.reading(r.QUESTION_SHIFT, rng)]
        after = observe(state, [*readings, events.reading(r.EVENT_SHIFT, rng)], RULES)
        alarms += raised(state, after)
        state = replace(after, alarms=())
    return alarms


def raised(before: DetectorState, after: DetectorState) -> list[str]:
    """Names of the reasons that are new; the alarms before were cleared."""
    entered = [
        f"{name} threshold"
        for name, level in after.levels.items()
        if level.active and not (name in before.levels and before.levels[name].active)
    ]
    return [*entered, *(f"{alarm.name} change" for alarm in after.alarms)]


def shares(rng: Rng) -> Iterator[Reading]:
    """One cycle of the readings that are shares, in batches."""
    for name, n, rate in SHARES:
        for hits in rng.binomial(BATCH, rate, n // BATCH):
            yield Reading(name, int(hits) / BATCH, BATCH, 0)


def margin(rng: Rng) -> Reading:
    return Reading(r.GATE_MARGIN, float(rng.normal(0.4, 0.2, PROBES).mean()), PROBES, 0)


class Embeddings:
    """Unit vectors in clusters, as questions and events lie, and a reference window of them."""

    def __init__(self, rng: Rng) -> None:
        self._centres = rng.normal(size=(CLUSTERS + 1, DIMENSION))
        self._window = mmd.reference(self.draw(WINDOW, rng), PROBES, seed=int(rng.integers(1 << 31)))

    def draw(self, n: int, rng: Rng, new: float = 0.0) -> Vectors:
        """`n` vectors; a share `new` of them from a cluster that is not in the reference."""
        cluster = np.where(rng.random(n) < new, CLUSTERS, rng.integers(CLUSTERS, size=n))
        rows = self._centres[cluster] + 0.5 * rng.normal(size=(n, DIMENSION))
        return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)

    def reading(self, name: str, rng: Rng, new: float = 0.0) -> Reading:
        return Reading(name, mmd.p_value(self._window, self.draw(PROBES, rng, new)), PROBES, 0)


def drop(runs: int, base: float, *, before: int = REFERENCE, batch: int = BATCH) -> Found:
    """Edit success falls by 0.10 after `before` cycles; alarms or the floor within 300 probes."""
    delays = []
    for number in range(runs):
        rng = np.random.default_rng((SEED, 1, number, round(100 * base), before, batch))
        calm = successes(rng, base, before * PROBES // batch, batch)
        state = replace(observe(DetectorState(), calm, RULES), alarms=())
        fallen = successes(rng, base - DROP, WITHIN_PROBES // batch, batch)
        delays.append(delay(state, fallen, r.EDIT_SUCCESS))
    return summary(delays)


def successes(rng: Rng, rate: float, batches: int, batch: int) -> list[Reading]:
    hit_counts = rng.binomial(batch, rate, batches)
    return [Reading(r.EDIT_SUCCESS, int(count) / batch, batch, 0) for count in hit_counts]


def delay(state: DetectorState, readings: Sequence[Reading], name: str) -> int | None:
    """Observations up to the one that gives a reason; None when none does."""
    seen = 0
    for reading in readings:
        state = observe(state, [reading], RULES)
        seen += reading.n
        if state.levels[name].active or any(alarm.name == name for alarm in state.alarms):
            return seen
    return None


def summary(delays: Sequence[int | None]) -> Found:
    detected = [observations for observations in delays if observations is not None]
    if not detected:
        return Found(0.0, None, None)
    return Found(len(detected) / len(delays), median(detected), percentile(detected, 0.95))


def family(runs: int, part: float) -> Found:
    """Events of relations that the alignment has not seen, a share `part` of all from some event on.

    The events before are as many as chance has it, from none (just re-aligned) on.
    """
    delays = []
    for number in range(runs):
        rng = np.random.default_rng((SEED, 2, number, round(100 * part)))
        calm = relations(rng, int(rng.integers(40)), 0.0)
        fresh = relations(rng, WITHIN_EVENTS // BATCH, part)
        delays.append(delay(observe(DetectorState(), calm, RULES), fresh, r.UNSEEN_RELATIONS))
    return summary(delays)


def relations(rng: Rng, batches: int, new: float) -> list[Reading]:
    """Batches of events' relations as readings."""
    return [r.unseen_relations([relation(rng, new) for _ in range(BATCH)], KNOWN, 0) for _ in range(batches)]


def relation(rng: Rng, new: float) -> str:
    if rng.random() < new:
        return FAMILY[rng.integers(len(FAMILY))]
    if rng.random() < UNSEEN:
        return f"oddity {rng.integers(1000)}"
    return KNOWN[rng.integers(len(KNOWN))]


def shift(runs: int, part: float) -> float:
    """The share of runs in which embeddings alone tell a new family of events within three cycles (192)."""
    detected = 0
    for number in range(runs):
        rng = np.random.default_rng((SEED, 3, number))
        events = Embeddings(rng)
        fresh = [events.reading(r.EVENT_SHIFT, rng, part) for _ in range(WITHIN_EVENTS // PROBES)]
        detected += delay(DetectorState(), fresh, r.EVENT_SHIFT) is not None
    return detected / runs


def poisson_upper(count: int, level: float = 0.95) -> float:
    """The exact one-sided upper bound of a Poisson mean after `count` events (Garwood, 1936)."""
    low, high = float(count), 3.0 * count + 10.0
    for _ in range(60):
        middle = (low + high) / 2
        below = sum(math.exp(k * math.log(middle) - middle - math.lgamma(k + 1)) for k in range(count + 1))
        low, high = (middle, high) if below > 1 - level else (low, middle)
    return high
