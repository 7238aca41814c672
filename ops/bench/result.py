"""What a benchmark returns, and how two sides are timed fairly on a noisy machine."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

SEED = 20231


@dataclass(frozen=True)
class BenchResult:
    """One row of `lte bench`: `ours` and `peer` in `unit`, `ratio` >= 1 where ours is the better one.

    `peer` and `ratio` are None where a figure has no peer. `extra` holds further figures (p99, spreads).
    """

    name: str
    ours: float
    peer: float | None
    ratio: float | None
    unit: str
    n: int
    bar: str
    machine: str
    date: str
    seed: int = SEED
    extra: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Flat dictionary: the fields, with `extra` merged in."""
        row = asdict(self)
        return {**row.pop("extra"), **row}


@dataclass(frozen=True)
class Spread:
    """Median, minimum and maximum of repeats."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        return cls(statistics.median(values), min(values), max(values))

    def to_json(self) -> list[float]:
        return [round(self.low, 4), round(self.median, 4), round(self.high, 4)]


@dataclass(frozen=True)
class PairedRuns:
    """Two sides measured in turn, A B A B ..., so that drift of the machine hits both."""

    ours: Spread
    peer: Spread
    ratios: Spread


def interleave(
    ours: Callable[[], float], peer: Callable[[], float], repeats: int, *, higher: bool
) -> PairedRuns:
    """Run both `repeats` times in turn; `higher` says that a larger value is the better one."""
    mine: list[float] = []
    theirs: list[float] = []
    for turn in range(repeats):
        for side in (ours, peer) if turn % 2 == 0 else (peer, ours):
            (mine if side is ours else theirs).append(side())
    ratios = [a / b if higher else b / a for a, b in zip(mine, theirs, strict=True)]
    return PairedRuns(Spread.of(mine), Spread.of(theirs), Spread.of(ratios))


def percentile(values: Sequence[float], share: float) -> float:
    """Nearest-rank percentile; `share` in [0, 1]."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def machine() -> str:
    """Cores, processor and memory in one line, for the figures' side."""
    gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{os.cpu_count()} cores, {_processor()}, {gib:.0f} GiB"


def today() -> str:
    return datetime.now(UTC).date().isoformat()


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.machine()
