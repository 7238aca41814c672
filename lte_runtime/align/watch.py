"""Whether live probes fell after an adapter was exchanged: pure, from counts of right answers by kind."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

# Of each adapter: with fewer a single answer moves the share by more than two points, and the bound of the
# fall, which takes the shares as normal, is poor.
LEAST_PROBES = 48


@dataclass(frozen=True, slots=True)
class ProbeTally:
    """Probes of one kind: how many were asked, how many answers were right."""

    right: int = 0
    total: int = 0


@dataclass(frozen=True, slots=True)
class WatchPolicy:
    """A fall counts from `LEAST_PROBES` on each side on, when it is surely more than `margin`.

    `z` is one-sided; 3 allows for a look after every probe of a window of a few hundred.
    """

    margin: float = 0.05
    z: float = 3.0


@dataclass(frozen=True, slots=True)
class Fall:
    """Mean fall of the share of right answers, and its lower bound; in [-1, 1]."""

    mean: float
    lower: float
    before: int
    after: int


def fall(
    before: Mapping[str, ProbeTally], after: Mapping[str, ProbeTally], policy: WatchPolicy
) -> Fall | None:
    """How far the share of right answers fell, kinds compared with themselves; None with too few probes.

    Differences of proportions with one success and one failure added on each side (Agresti & Caffo, 2000),
    pooled over the kinds by their harmonic sizes, so that another mix of kinds is no fall.
    """
    kinds = [kind for kind in before if before[kind].total and after.get(kind, ProbeTally()).total]
    sizes = sum(before[kind].total for kind in kinds), sum(after[kind].total for kind in kinds)
    if min(sizes) < LEAST_PROBES:
        return None
    total = mean = variance = 0.0
    for kind in kinds:
        (p, n), (q, m) = _share(before[kind]), _share(after[kind])
        weight = n * m / (n + m)
        total += weight
        mean += weight * (p - q)
        variance += weight**2 * (p * (1 - p) / n + q * (1 - q) / m)
    return Fall(mean / total, (mean - policy.z * math.sqrt(variance)) / total, *sizes)


def _share(tally: ProbeTally) -> tuple[float, float]:
    """Share and size after one success and one failure were added."""
    size = tally.total + 2
    return (tally.right + 1) / size, float(size)


def reason(measured: Fall | None, policy: WatchPolicy) -> str:
    """Why to roll back; empty where there is no reason."""
    if measured is None or measured.lower <= policy.margin:
        return ""
    return (
        f"live probes fell by {measured.mean:.3f} (lower bound {measured.lower:.3f}, "
        f"allowed {policy.margin:.3f}; {measured.before} probes before, {measured.after} after)"
    )
