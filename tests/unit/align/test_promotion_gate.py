"""The promotion gate: what promotes, what rejects, when none serves, and how often chance alone promotes."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from lte_runtime.align.promotion import AA_RATE, PromotionOutcome, judge

COUNTS = {
    "edit_success": 128,
    "generality": 32,
    "portability": 64,
    "locality": 96,
    "general": 96,
    "safety": 48,
}
KINDS = {f"{kind}-{number}": kind for kind, count in COUNTS.items() for number in range(count)}
SHARES = {
    "edit_success": 0.85,
    "generality": 0.8,
    "portability": 0.5,
    "locality": 0.95,
    "general": 0.97,
    "safety": 0.97,
}


def arm(rng: random.Random, noise: float, base: dict[str, int], **gains: float) -> dict[str, int]:
    """`base` with a share of its judgements drawn again, and a gain by kind (chance that a 0 becomes 1)."""
    made = {}
    for name, value in base.items():
        kind = KINDS[name]
        new = int(rng.random() < SHARES[kind]) if rng.random() < noise else value
        gain = gains.get(kind, 0.0)
        if gain > 0 and not new:
            new = int(rng.random() < gain)
        if gain < 0 and new:
            new = int(rng.random() >= -gain)
        made[name] = new
    return made


def simulated(seed: int, noise: float = 0.2, none: float = -0.1, **gains: float) -> dict[str, dict[str, int]]:
    rng = random.Random(seed)
    base = {name: int(rng.random() < SHARES[kind]) for name, kind in KINDS.items()}
    return {
        "candidate": arm(rng, noise, base, **gains),
        "incumbent": arm(rng, noise, base),
        "none": arm(rng, noise, base, edit_success=none, portability=none),
    }


def verdict(judged: Any, **more: Any) -> Any:
    return judge(judged, KINDS, **{"incumbent": True, **more})


@pytest.mark.parametrize("none", [-0.1, 0.0])
def test_two_trainings_that_differ_by_seed_are_promoted_at_most_at_the_stated_rate(none: float) -> None:
    runs = [verdict(simulated(seed, none=none), seed=seed).outcome for seed in range(200)]
    assert runs.count(PromotionOutcome.PROMOTE) <= AA_RATE * 200


def test_a_real_gain_is_promoted() -> None:
    runs = [verdict(simulated(seed, edit_success=0.6, portability=0.4)).outcome for seed in range(40)]
    assert runs.count(PromotionOutcome.PROMOTE) >= 32


@pytest.mark.parametrize("kind", ["locality", "general", "safety"])
def test_a_fall_in_a_guarded_kind_rejects_whatever_is_gained(kind: str) -> None:
    judged = simulated(1, noise=0.0, edit_success=0.9, portability=0.9, **{kind: -0.3})
    found = verdict(judged)
    assert found.outcome is PromotionOutcome.REJECT
    assert len(found.reasons) == 1
    assert found.reasons[0].startswith(kind)


def test_no_gain_is_rejected_but_is_enough_when_the_incumbent_is_tainted() -> None:
    judged = simulated(2, noise=0.0)
    assert verdict(judged).outcome is PromotionOutcome.REJECT
    assert verdict(judged, tainted=True).outcome is PromotionOutcome.PROMOTE
    worse = simulated(2, noise=0.0, edit_success=-0.15)
    assert verdict(worse, tainted=True).outcome is PromotionOutcome.REJECT


def test_the_gain_must_be_over_the_better_of_incumbent_and_none() -> None:
    judged = simulated(3, noise=0.0, edit_success=0.8, portability=0.5)
    assert verdict(judged).outcome is PromotionOutcome.PROMOTE
    judged["none"] = dict(judged["candidate"])
    assert verdict(judged).outcome is PromotionOutcome.NONE


def test_none_serves_where_it_beats_the_incumbent() -> None:
    judged = simulated(4, noise=0.0, none=0.8)
    found = verdict(judged)
    assert found.outcome is PromotionOutcome.NONE
    assert {each.name for each in found.comparisons} >= {"gain", "none: gain", "none: safety"}
    del judged["incumbent"]
    assert verdict(judged, incumbent=False).outcome is PromotionOutcome.REJECT, "none serves already"


def test_without_an_incumbent_the_candidate_is_compared_with_none() -> None:
    judged = simulated(5, noise=0.0, edit_success=0.8)
    del judged["incumbent"]
    assert verdict(judged, incumbent=False).outcome is PromotionOutcome.PROMOTE


@pytest.mark.parametrize(
    "spoil",
    [
        lambda j: j.pop("candidate"),
        lambda j: j.pop("none"),
        lambda j: j["incumbent"].popitem(),
        lambda j: j["candidate"].update(extra=1),
        lambda j: j["candidate"].update({"safety-0": 2}),
        lambda j: j["candidate"].update({"safety-0": True}),
        lambda j: j["candidate"].update({"safety-0": "1"}),
    ],
)
def test_what_is_missing_or_malformed_rejects(spoil: Any) -> None:
    judged = simulated(6, edit_success=0.9, portability=0.9)
    spoil(judged)
    found = verdict(judged)
    assert found.outcome is PromotionOutcome.REJECT
    assert found.reasons


@pytest.mark.parametrize("kind", ["edit_success", "locality", "general", "safety"])
def test_too_few_probes_reject(kind: str) -> None:
    kept = {name: each for name, each in KINDS.items() if each != kind or name.endswith("-1")}
    judged = {
        name: {probe: value for probe, value in found.items() if probe in kept}
        for name, found in simulated(7, edit_success=0.9, portability=0.9).items()
    }
    found = judge(judged, kept, incumbent=True)
    assert found.outcome is PromotionOutcome.REJECT
    assert "needed" in found.reasons[0]


def test_the_verdict_is_seeded_and_is_json() -> None:
    judged = simulated(8)
    assert verdict(judged, seed=3) == verdict(judged, seed=3)
    kept = json.loads(json.dumps(verdict(judged).to_json()))
    assert kept["probes"] == COUNTS
    assert set(kept["scores"]) == {"candidate", "incumbent", "none"}
    assert {each["name"] for each in kept["comparisons"]} >= {"gain", "locality", "general", "safety"}
