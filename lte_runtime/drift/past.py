"""The last readings of each name, to see how a value came near its limit. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from lte_runtime.drift.readings import NAMES, Reading

MOST_PAST = 120
"""Readings of each name that are kept: 30 hours of cycles as configured by default."""


@dataclass(frozen=True, slots=True)
class PastReadings:
    """By name, oldest first. Readings of one time are one: their mean, weighted by their observations."""

    by_name: Mapping[str, tuple[Reading, ...]] = field(default_factory=dict)

    def step(self, readings: Iterable[Reading]) -> PastReadings:
        """The state after further readings, in their order; those without observations say nothing."""
        by_name = {name: list(earlier) for name, earlier in self.by_name.items()}
        for reading in readings:
            if reading.n:
                _add(by_name.setdefault(reading.name, []), reading)
        return PastReadings({name: tuple(earlier[-MOST_PAST:]) for name, earlier in by_name.items()})

    def last(self, count: int) -> tuple[Reading, ...]:
        """The last `count` of each name, the names in their usual order."""
        if not count:
            return ()
        return tuple(reading for name in NAMES for reading in self.by_name.get(name, ())[-count:])


def _add(earlier: list[Reading], reading: Reading) -> None:
    if earlier and earlier[-1].time_ms == reading.time_ms:
        reading = _pooled(earlier.pop(), reading)
    earlier.append(reading)


def _pooled(first: Reading, second: Reading) -> Reading:
    n = first.n + second.n
    value = (first.value * first.n + second.value * second.n) / n
    return Reading(first.name, value, n, first.time_ms)


def to_json(past: PastReadings) -> dict[str, Any]:
    """The readings as JSON values."""
    return {name: [[r.value, r.n, r.time_ms] for r in earlier] for name, earlier in past.by_name.items()}


def from_json(value: Mapping[str, Any]) -> PastReadings:
    """The readings as `to_json` gave them; names that are read no more are left out."""
    return PastReadings(
        {name: tuple(Reading(name, *row) for row in rows) for name, rows in value.items() if name in NAMES}
    )
