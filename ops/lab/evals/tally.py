"""Figures from per-sample records: means over edits, sub-types, intervals by bootstrap. Pure."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from statistics import NormalDist, harmonic_mean
from typing import Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt

from lte_runtime.scoring import mean

T = TypeVar("T")
Sample = Mapping[str, Any]
"""One edit of one method: see `compare.MethodJudge.samples` for its keys."""
Side = Literal["free", "contains"]
"""Free decoding by exact match, or by values that stand in the answer."""

FOUR = ("edit_success", "generality", "portability_mean", "locality")
RESAMPLES = 1000


def figures(samples: Sequence[Sample], seed: int = 0) -> dict[str, Any]:
    """Free decoding at the top, teacher forcing under `forced`; `interval` holds 95 % bounds of the four.

    `contains` holds the figures and bounds of free decoding for values that stand in the answer.
    """
    means = {**_side(samples, "free"), "forced": _side(samples, "forced")}
    return {
        "n": len(samples),
        **means,
        "belief": mean(sample["belief"] for sample in samples),
        "rouge_l": mean(sample.get("rouge_l") for sample in samples),
        "fluency": mean(sample["fluency"] for sample in samples),
        "arithmetic_mean": mean(means[name] for name in FOUR),
        "harmonic_mean": harmonic(means[name] for name in FOUR),
        "interval": _intervals(samples, "free", seed),
        "contains": {**_side(samples, "contains"), "interval": _intervals(samples, "contains", seed)},
        "invented_additions": mean(value for sample in samples for value in sample["additions"]),
    }


def _side(samples: Sequence[Sample], side: str) -> dict[str, Any]:
    return {
        "edit_success": mean(sample[side]["edit"] for sample in samples),
        "generality": mean(sample[side]["rephrase"] for sample in samples),
        "portability": kinds(samples, side, "portability"),
        "portability_mean": mean(portability(sample[side]) for sample in samples),
        "locality": mean(value for sample in samples for value in _all(sample[side]["locality"])),
        "locality_by_kind": kinds(samples, side, "locality"),
    }


def _all(by_kind: Mapping[str, Sequence[float]]) -> Iterable[float]:
    return (value for values in by_kind.values() for value in values)


def kinds(samples: Sequence[Sample], side: str, aspect: str) -> dict[str, float | None]:
    """By sub-type: portability over probes within an edit, then over edits; locality over all probes."""
    names = dict.fromkeys(kind for sample in samples for kind in sample[side][aspect])
    if aspect == "locality":
        return {
            kind: mean(v for sample in samples for v in sample[side][aspect].get(kind, ())) for kind in names
        }
    return {kind: mean(mean(sample[side][aspect].get(kind, ())) for sample in samples) for kind in names}


def portability(side: Mapping[str, Any]) -> float | None:
    """Of one edit: the mean over probes of a sub-type, then over sub-types; None without probes."""
    return mean(mean(values) for values in side["portability"].values())


def harmonic(values: Iterable[float | None]) -> float | None:
    """Harmonic mean of the figures that there are; zero where one is zero."""
    present = [value for value in values if value is not None]
    return round(harmonic_mean(present), 4) if present else None


BY_EDIT: Mapping[str, Callable[[Mapping[str, Any]], float | None]] = {
    "edit_success": lambda side: side["edit"],
    "generality": lambda side: side["rephrase"],
    "portability_mean": portability,
    "locality": lambda side: mean(_all(side["locality"])),
}
"""The four of one edit, from one side of its sample."""


def _intervals(samples: Sequence[Sample], side: Side, seed: int) -> dict[str, tuple[float, float] | None]:
    sides = [sample[side] for sample in samples]
    return {name: interval(sides, of, seed) for name, of in BY_EDIT.items()}


def interval(
    samples: Sequence[T], of: Callable[[T], float | None], seed: int = 0
) -> tuple[float, float] | None:
    """95 % bounds of the mean over edits: percentiles over resampled edits (Efron, 1979); seeded."""
    values = [value for value in map(of, samples) if value is not None]
    if not values:
        return None
    rng = random.Random(seed)
    means = sorted(sum(rng.choices(values, k=len(values))) / len(values) for _ in range(RESAMPLES))
    return round(means[int(0.025 * RESAMPLES)], 4), round(means[int(0.975 * RESAMPLES) - 1], 4)


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """95 % bounds of a share (Wilson, 1927); raises `ValueError` without trials."""
    if trials <= 0:
        raise ValueError("an interval needs at least one trial")
    z, share = NormalDist().inv_cdf(0.975), successes / trials
    centre = share + z * z / (2 * trials)
    spread = z * math.sqrt(share * (1 - share) / trials + (z / (2 * trials)) ** 2)
    scale = 1 + z * z / trials
    return round(max(0.0, (centre - spread) / scale), 4), round(min(1.0, (centre + spread) / scale), 4)


def lead(
    ours: Sequence[Sample], theirs: Sequence[Sample], seed: int = 0, side: Side = "free"
) -> tuple[float, float, float] | None:
    """How far the mean of the aspects of `ours` lies above that of `theirs`, with 95 % bounds.

    Both are samples of the same edits in the same order: edits are resampled in pairs; seeded. None where
    nothing counts (no edits, or teacher forcing alone).
    """
    if not any(any(map(len, aspects(sample, side))) for sample in ours):
        return None
    rng = np.random.default_rng(seed)
    drawn = rng.integers(len(ours), size=(RESAMPLES, len(ours)))
    rows = np.concatenate([np.arange(len(ours))[None], drawn])
    differences = _overall(ours, rows, side) - _overall(theirs, rows, side)
    low, high = np.percentile(differences[1:], (2.5, 97.5))
    return round(float(differences[0]), 4), round(float(low), 4), round(float(high), 4)


def _overall(samples: Sequence[Sample], rows: npt.NDArray[np.int64], side: Side) -> npt.NDArray[np.float64]:
    """For each row of drawn samples the mean of the aspects that they have."""
    values = [list(aspects(sample, side)) for sample in samples]
    sums = np.array([[sum(pool) for pool in pools] for pools in values], float)[rows].sum(axis=1)
    counts = np.array([[len(pool) for pool in pools] for pools in values], float)[rows].sum(axis=1)
    with np.errstate(invalid="ignore"):
        means: npt.NDArray[np.float64] = np.nanmean(sums / counts, axis=1)
    return means


def aspects(sample: Sample, side: Side = "free") -> Iterator[Sequence[float]]:
    """The values of an edit that count: the four of free decoding, each pooled as in `figures`.

    For running text (WikiBio) ROUGE-L, the tokens right under teacher forcing, locality.
    """
    free = sample[side]
    if sample.get("rouge_l") is not None:
        shares: tuple[float | None, ...] = (sample["rouge_l"], sample["forced"]["edit"])
    else:
        shares = (free["edit"], free["rephrase"], portability(free))
    for value in shares:
        yield [] if value is None else [value]
    yield list(_all(free["locality"]))
