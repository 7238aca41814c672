"""Thresholds and changes: hysteresis, minimum sample, direction, reset; the tail against a slow count."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lte_runtime.drift.detectors import (
    Bad,
    ChangeDetector,
    Level,
    OutcomeCounts,
    Scan,
    ScanComparison,
    Threshold,
    Track,
    comparisons,
    excess_by_chance,
    step_change,
    step_threshold,
)
from lte_runtime.drift.readings import Reading, share, unseen_relations
from lte_runtime.drift.rules import CHANGES
from lte_runtime.names.normalise import key_form

FLOOR = Threshold("edit_success", Bad.FALL, enter=0.8, leave=0.9, min_sample=32)
CHANGE = ChangeDetector("edit_success", Bad.FALL, (Scan(64, 1e-4), Scan(256, 1e-4)), 320, 640)


def reading(value: float, n: int = 32) -> Reading:
    return Reading("edit_success", value, n, 0)


def levels(rule: Threshold, *values: float, n: int = 32) -> list[bool]:
    state, seen = Level(), []
    for value in values:
        state = step_threshold(rule, state, reading(value, n))
        seen.append(state.active)
    return seen


def run(
    rule: ChangeDetector, shares: list[float], n: int = 16, state: Track | None = None
) -> tuple[Track, list[ScanComparison]]:
    track, alarms = state or Track(), []
    for value in shares:
        track, found = step_change(rule, track, reading(value, n))
        alarms += [found] if found else []
    return track, alarms


def test_a_threshold_is_left_only_at_its_second_value() -> None:
    assert levels(FLOOR, 0.81, 0.79, 0.85, 0.89, 0.9, 0.85) == [False, True, True, True, False, False]


def test_a_rising_threshold_looks_up() -> None:
    rule = Threshold("unseen", Bad.RISE, enter=0.2, leave=0.1, min_sample=32)
    assert levels(rule, 0.0, 0.21, 0.15, 0.1) == [False, True, True, False]


def test_a_small_sample_is_no_reason_and_is_pooled_with_the_next() -> None:
    assert levels(FLOOR, 0.0, 0.0, 0.0, n=10) == [False, False, False]
    assert levels(FLOOR, 0.0, 0.0, 0.0, 0.0, n=10) == [False, False, False, True]


def test_an_empty_reading_changes_nothing() -> None:
    active = step_threshold(FLOOR, Level(), reading(0.5))
    assert step_threshold(FLOOR, active, reading(0.0, 0)) == active
    assert step_change(CHANGE, Track(), reading(0.0, 0)) == (Track(), None)


def test_a_held_threshold_needs_values_in_a_row() -> None:
    rule = Threshold("shift", Bad.FALL, enter=0.01, leave=0.05, min_sample=32, hold=3)
    assert levels(rule, 0.001, 0.001, 0.5, 0.001, 0.001, 0.001) == [False] * 5 + [True]


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1), st.integers(0, 64)), max_size=40))
def test_a_threshold_never_turns_between_its_two_values(seen: list[tuple[float, int]]) -> None:
    state = Level()
    for value, n in seen:
        after = step_threshold(FLOOR, state, reading(value, n))
        if after.active != state.active:
            assert after.value is not None
            assert after.n >= FLOOR.min_sample
            assert after.value < FLOOR.enter if after.active else after.value >= FLOOR.leave
        state = after


def test_a_threshold_with_its_values_the_wrong_way_round_is_refused() -> None:
    with pytest.raises(ValueError, match="threshold x"):
        Threshold("x", Bad.FALL, enter=0.9, leave=0.8, min_sample=1)


@settings(deadline=None)
@given(st.integers(0, 12), st.integers(1, 12), st.integers(0, 20), st.integers(1, 20))
def test_the_tail_is_the_counted_one(bad: int, n: int, reference_bad: int, reference_n: int) -> None:
    bad, reference_bad = min(bad, n), min(reference_bad, reference_n)
    marked, total = bad + reference_bad, n + reference_n
    ways = sum(
        math.comb(marked, k) * math.comb(total - marked, n - k) for k in range(bad, min(n, marked) + 1)
    )
    if bad * reference_n > reference_bad * n:
        expected = ways / math.comb(total, n)
        assert excess_by_chance(bad, n, reference_bad, reference_n) == pytest.approx(expected)
    else:
        assert excess_by_chance(bad, n, reference_bad, reference_n) == 1.0


def test_a_fall_is_found_and_a_rise_is_not() -> None:
    calm, _ = run(CHANGE, [14 / 16] * 60)
    assert run(CHANGE, [8 / 16] * 8, state=calm)[1]
    assert not run(CHANGE, [1.0] * 60, state=calm)[1]


def test_a_rise_is_found_where_a_rise_is_bad() -> None:
    rule = ChangeDetector("feedback", Bad.RISE, CHANGE.scans, 320, 640)
    calm, _ = run(rule, [1 / 16] * 60)
    assert run(rule, [8 / 16] * 8, state=calm)[1]
    assert not run(rule, [0.0] * 60, state=calm)[1]


def test_nothing_is_said_before_the_reference_is_large_enough() -> None:
    track, alarms = run(CHANGE, [1.0] * 19 + [0.0] * 16)
    assert track.reference.n < CHANGE.min_reference
    assert not alarms
    assert not list(comparisons(CHANGE, track))


def test_an_alarm_starts_from_nothing_and_the_new_rate_becomes_the_norm() -> None:
    state, _ = run(CHANGE, [15 / 16] * 60)
    while state != Track():
        state, _ = step_change(CHANGE, state, reading(8 / 16, 16))
    assert state == Track()
    assert not run(CHANGE, [8 / 16] * 200, state=state)[1]


def test_the_reference_stops_growing_so_that_a_slow_decline_is_found() -> None:
    state, _ = run(CHANGE, [1.0] * 80)
    assert state.reference == OutcomeCounts(0, 640)
    alarms = run(CHANGE, [1.0 - step / 2000 for step in range(400)], n=64, state=state)[1]
    assert alarms
    assert alarms[0].reference == OutcomeCounts(0, 640)


def test_readings_larger_than_a_scan_are_left_to_the_longer_scan() -> None:
    state, _ = run(CHANGE, [0.9] * 12, n=100)
    assert [each.scan.probes for each in comparisons(CHANGE, state)] == [256]


def test_the_level_holds_whatever_the_rate_and_a_poor_reference() -> None:
    rng = random.Random(5)
    rule = ChangeDetector("x", Bad.FALL, (Scan(64, 0.02),), 160, 160)
    for rate in (0.5, 0.8, 0.97):
        alarms = 0
        for _ in range(400):
            drawn = [sum(rng.random() < rate for _ in range(16)) / 16 for _ in range(14)]
            alarms += len(run(rule, drawn)[1])
        assert alarms <= 20  # a single look a run: 8 expected at most, 20 has a chance below 1e-3


def test_a_drop_of_a_tenth_is_found_within_300_probes() -> None:
    rule, rng, found = CHANGES[0], random.Random(7), 0
    for _ in range(40):
        state = Track(
            OutcomeCounts(round(0.05 * 12_800), 12_800), tuple(range(61)), tuple(range(0, 61 * 16, 16))
        )
        drawn = [sum(rng.random() < 0.85 for _ in range(16)) / 16 for _ in range(18)]
        found += bool(run(rule, drawn, state=state)[1])
    assert found >= 35


@pytest.mark.parametrize(("value", "n"), [(math.nan, 1), (math.inf, 1), (0.5, -1)])
def test_a_reading_that_is_no_number_is_refused(value: float, n: int) -> None:
    with pytest.raises(ValueError, match="reading x"):
        Reading("x", value, n, 0)


def test_shares() -> None:
    assert share("x", [True, False, True, True], 5) == Reading("x", 0.75, 4, 5)
    assert share("x", [], 5).n == 0
    aligned = {key_form("Head of  State")}
    assert unseen_relations(["head of state", "orbit", "ORBIT"], aligned, 5).value == pytest.approx(2 / 3)
