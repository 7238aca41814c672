"""The default rules on simulated readings, at reduced size; `lte bench drift` has the full one."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from lte_runtime.drift.monitor import DetectorState, observe
from ops.bench import drift


def test_stationary_readings_raise_next_to_no_alarm() -> None:
    # Two expected in 50,000 cycles; two in 300 have a chance below 1e-3.
    assert len(drift.stream(0, 300)) <= 1


@pytest.mark.parametrize("base", [0.99, 0.97])
def test_a_drop_of_a_tenth_is_found_within_300_probes(base: float) -> None:
    found = drift.drop(25, base, before=60)
    assert found.share >= 0.9
    assert found.p95 is not None
    assert found.p95 <= 300


def test_a_new_family_is_found_within_200_events() -> None:
    assert drift.family(25, 0.5).share >= 0.95


def test_embeddings_alone_tell_a_new_family() -> None:
    assert drift.shift(10, 0.5) >= 0.9


def test_nothing_found_is_told_as_such() -> None:
    assert drift.summary([None, None]) == drift.Found(0.0, None, None)
    assert drift.summary([None, 32, 64, 64]) == drift.Found(0.75, 64, 64)


def test_an_alarm_is_counted_when_it_begins_only() -> None:
    rng = np.random.default_rng(1)
    calm = observe(DetectorState(), drift.successes(rng, 0.95, 300, 16), drift.RULES)
    seen: list[str] = []
    state = replace(calm, alarms=())
    for _ in range(40):
        after = observe(state, drift.successes(rng, 0.6, 1, 16), drift.RULES)
        seen += drift.raised(state, after)
        state = replace(after, alarms=())
    assert sorted(seen) == ["edit_success change", "edit_success threshold"]


@pytest.mark.parametrize(("count", "upper"), [(0, 2.9957), (1, 4.7439), (5, 10.5130), (20, 29.0620)])
def test_the_upper_bound_is_the_exact_one(count: int, upper: float) -> None:
    assert drift.poisson_upper(count) == pytest.approx(upper, abs=1e-3)


def test_the_figures_have_their_names() -> None:
    figures = drift.false(["locality change"] * 2, drift.DriftPlan(4, 5000, 1))
    assert figures["false_alarms_per_10k"] == 1.0
    assert figures["false_alarms_per_10k_upper_95"] == pytest.approx(3.148, abs=1e-3)
    assert figures["false_alarms"] == {"locality change": 2}
    with ThreadPoolExecutor(1) as pool:
        assert {"detected", "delay_probes", "new_family_detected"} <= drift.changes(1, pool).keys()
