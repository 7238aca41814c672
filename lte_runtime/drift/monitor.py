"""All detectors as one frozen state that readings are folded into; kept over restarts as JSON. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from lte_runtime.drift.detectors import (
    ChangeDetector,
    Level,
    OutcomeCounts,
    ScanComparison,
    Threshold,
    Track,
    step_change,
    step_threshold,
)
from lte_runtime.drift.readings import Reading
from lte_runtime.drift.rules import CHANGES, THRESHOLDS

VERSION = 1


@dataclass(frozen=True, slots=True)
class DetectorRules:
    """The thresholds and change detectors in force, one of each for a name at most."""

    thresholds: tuple[Threshold, ...] = THRESHOLDS
    changes: tuple[ChangeDetector, ...] = CHANGES

    def __post_init__(self) -> None:
        for rules in (self.thresholds, self.changes):
            names = [rule.name for rule in rules]
            if len(names) != len(set(names)):
                raise ValueError(f"two rules for one reading: {', '.join(names)}")

    def threshold(self, name: str) -> Threshold | None:
        return next((rule for rule in self.thresholds if rule.name == name), None)

    def change(self, name: str) -> ChangeDetector | None:
        return next((rule for rule in self.changes if rule.name == name), None)


@dataclass(frozen=True, slots=True)
class Alarm:
    """A change that was found: share of bad outcomes now and before, over how many, and its chance."""

    name: str
    time_ms: int
    share: float
    before: float
    n: int
    p: float


@dataclass(frozen=True, slots=True)
class DetectorState:
    """What the readings have led to. Alarms stay until the next re-alignment, one for a name (the first)."""

    levels: Mapping[str, Level] = field(default_factory=dict)
    tracks: Mapping[str, Track] = field(default_factory=dict)
    latest: Mapping[str, Reading] = field(default_factory=dict)
    alarms: tuple[Alarm, ...] = ()


def observe(state: DetectorState, readings: Iterable[Reading], rules: DetectorRules) -> DetectorState:
    """The state after the readings, in their order."""
    levels, tracks, latest = dict(state.levels), dict(state.tracks), dict(state.latest)
    alarms = {alarm.name: alarm for alarm in state.alarms}
    for reading in readings:
        name = reading.name
        latest[name] = reading
        if threshold := rules.threshold(name):
            levels[name] = step_threshold(threshold, levels.get(name, Level()), reading)
        if change := rules.change(name):
            tracks[name], comparison = step_change(change, tracks.get(name, Track()), reading)
            if comparison:
                alarms.setdefault(name, _alarm(reading, comparison))
    return DetectorState(levels, tracks, latest, tuple(alarms.values()))


def _alarm(reading: Reading, comparison: ScanComparison) -> Alarm:
    window, before = comparison.window, comparison.reference.share
    return Alarm(reading.name, reading.time_ms, window.share, before, window.n, comparison.p)


def realigned(state: DetectorState) -> DetectorState:
    """The state after a new adapter went into service: every detector learns its reference anew."""
    return DetectorState(latest=state.latest)


def to_json(state: DetectorState) -> dict[str, Any]:
    """The state as JSON values."""
    return {
        "version": VERSION,
        "levels": {k: [[list(p) for p in v.recent], v.active, v.beyond] for k, v in state.levels.items()},
        "tracks": {
            k: [[v.reference.bad, v.reference.n], list(v.bad), list(v.n)] for k, v in state.tracks.items()
        },
        "latest": {k: [v.value, v.n, v.time_ms] for k, v in state.latest.items()},
        "alarms": [[a.name, a.time_ms, a.share, a.before, a.n, a.p] for a in state.alarms],
    }


def from_json(value: Mapping[str, Any]) -> DetectorState:
    """The state as `to_json` gave it; the empty state for another version's."""
    if value.get("version") != VERSION:
        return DetectorState()
    return DetectorState(
        levels={
            k: Level(tuple((float(value), int(n)) for value, n in recent), active, beyond)
            for k, (recent, active, beyond) in value["levels"].items()
        },
        tracks={
            k: Track(OutcomeCounts(*reference), tuple(bad), tuple(n))
            for k, (reference, bad, n) in value["tracks"].items()
        },
        latest={k: Reading(k, *v) for k, v in value["latest"].items()},
        alarms=tuple(Alarm(*fields) for fields in value["alarms"]),
    )
