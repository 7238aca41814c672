"""The decision: every limit holds back by itself, reasons last until a re-alignment, margins agree."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lte_runtime.drift import readings as r
from lte_runtime.drift.decide import DAY_MS, HOUR_MS, DecisionSettings, Situation, decide, margins
from lte_runtime.drift.detectors import Bad, ChangeDetector, Scan, Threshold
from lte_runtime.drift.monitor import DetectorRules, DetectorState, from_json, observe, realigned, to_json
from lte_runtime.drift.readings import Reading
from lte_runtime.drift.rules import CHANGES, THRESHOLDS

NOW = 1_700_000_000_000
RULES = DetectorRules(
    (Threshold(r.EDIT_SUCCESS, Bad.FALL, enter=0.8, leave=0.9, min_sample=16),),
    (ChangeDetector(r.EDIT_SUCCESS, Bad.FALL, (Scan(64, 1e-4),), 160, 320),),
)
SETTINGS = DecisionSettings(RULES, cool_down_ms=HOUR_MS, min_new_edits=10, daily_budget=2)
READY = Situation(new_edits=10)


def fed(
    values: list[float], state: DetectorState | None = None, rules: DetectorRules = RULES
) -> DetectorState:
    readings = [Reading(r.EDIT_SUCCESS, value, 16, NOW) for value in values]
    return observe(state or DetectorState(), readings, rules)


LOW = fed([0.5])


def blocked(situation: Situation, settings: DecisionSettings = SETTINGS) -> list[str]:
    return [block.name for block in decide(LOW, situation, settings, NOW).blocks]


def test_without_a_reason_nothing_starts() -> None:
    decision = decide(fed([1.0]), READY, SETTINGS, NOW)
    assert not decision.start
    assert (decision.reasons, decision.blocks) == ((), ())


def test_a_reason_and_no_block_start() -> None:
    decision = decide(LOW, READY, SETTINGS, NOW)
    assert decision.start
    assert [(reason.kind, reason.name) for reason in decision.reasons] == [("threshold", "edit_success")]


def test_one_run_at_a_time() -> None:
    assert blocked(replace(READY, running=True)) == ["running"]


def test_cool_down_counts_from_the_end_and_tells_when_it_is_over() -> None:
    decision = decide(LOW, replace(READY, ended_ms=NOW - HOUR_MS + 1), SETTINGS, NOW)
    assert [(block.name, block.until_ms) for block in decision.blocks] == [("cool_down", NOW + 1)]
    assert decide(LOW, replace(READY, ended_ms=NOW - HOUR_MS), SETTINGS, NOW).start


def test_the_budget_is_of_any_24_hours() -> None:
    full = replace(READY, starts_ms=(NOW - 2 * DAY_MS, NOW - DAY_MS + 5, NOW - HOUR_MS))
    decision = decide(LOW, full, SETTINGS, NOW)
    assert [(block.name, block.until_ms) for block in decision.blocks] == [("budget", NOW + 5)]
    assert decide(LOW, full, SETTINGS, NOW + 5).start


def test_no_budget_never_starts() -> None:
    assert blocked(READY, replace(SETTINGS, daily_budget=0)) == ["budget"]


def test_a_clock_that_was_set_back_renews_no_budget() -> None:
    assert blocked(replace(READY, starts_ms=(NOW + HOUR_MS, NOW + 2 * HOUR_MS))) == ["budget"]


def test_too_few_new_edits_hold_back_unless_a_trained_fact_was_withdrawn() -> None:
    assert blocked(replace(READY, new_edits=9)) == ["new_edits"]
    decision = decide(DetectorState(), Situation(new_edits=0, tainted=1), SETTINGS, NOW)
    assert decision.start
    assert [reason.kind for reason in decision.reasons] == ["taint"]


def test_the_window_and_the_circuit_hold_back() -> None:
    assert blocked(replace(READY, window_open=False, circuit_open=True)) == ["circuit", "window"]


def test_an_old_adapter_is_a_reason_only_where_an_age_is_set() -> None:
    old = replace(READY, adapter_since_ms=NOW - 5 * HOUR_MS)
    assert not decide(DetectorState(), old, SETTINGS, NOW).reasons
    aged = replace(SETTINGS, max_adapter_age_ms=5 * HOUR_MS)
    assert [reason.kind for reason in decide(DetectorState(), old, aged, NOW).reasons] == ["age"]
    assert not decide(DetectorState(), old, aged, NOW - 1).reasons


def test_a_change_stays_a_reason_until_the_next_alignment_and_counts_once() -> None:
    calm = fed([15 / 16] * 40)
    changed = fed([13 / 16] * 3 + [11 / 16] * 4, calm)
    assert [alarm.name for alarm in changed.alarms] == ["edit_success"]
    again = fed([15 / 16] * 60 + [10 / 16] * 8 + [1.0], changed)
    assert again.alarms == changed.alarms
    assert [reason.kind for reason in decide(again, READY, SETTINGS, NOW).reasons] == ["change"]
    after = realigned(again)
    assert not decide(after, READY, SETTINGS, NOW).reasons
    assert (after.levels, after.tracks) == ({}, {})


def test_the_state_lives_on_in_json() -> None:
    state = fed([15 / 16] * 40 + [0.5] * 3)
    assert state.alarms
    assert from_json(json.loads(json.dumps(to_json(state)))) == state
    assert from_json({"version": 0, "levels": "of another make"}) == DetectorState()


def test_margins_tell_what_is_missing_and_how_far_a_reason_is() -> None:
    level, change = margins(fed([1.0]), RULES)
    assert (level.value, level.limit, level.reason) == (1.0, 0.8, False)
    assert level.margin == pytest.approx(0.2)
    assert (change.value, change.n, change.needed) == (None, 0, 160)
    _, change = margins(fed([15 / 16] * 30), RULES)
    assert change.margin is not None
    assert change.margin == pytest.approx(4.0)
    level, _ = margins(LOW, RULES)
    assert level.reason
    assert level.margin == pytest.approx(-0.4)


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), max_size=60))
def test_a_margin_beyond_the_limit_is_a_reason(values: list[float]) -> None:
    state = fed(values)
    reasons = {(reason.kind, reason.name) for reason in decide(state, READY, SETTINGS, NOW).reasons}
    for margin in margins(state, RULES):
        assert margin.reason == ((margin.kind, margin.name) in reasons)
        if margin.kind == "threshold" and margin.margin is not None and margin.margin < 0:
            assert margin.reason


@settings(deadline=None)
@given(
    st.integers(0, 20),
    st.booleans(),
    st.lists(st.integers(NOW - 2 * DAY_MS, NOW), max_size=4),
    st.none() | st.integers(NOW - 2 * HOUR_MS, NOW),
    st.booleans(),
)
def test_whatever_starts_keeps_every_limit(
    new_edits: int, running: bool, starts: list[int], ended: int | None, window: bool
) -> None:
    situation = Situation(new_edits, running, tuple(starts), ended, window_open=window)
    kept = (
        new_edits >= SETTINGS.min_new_edits
        and not running
        and sum(start > NOW - DAY_MS for start in starts) < SETTINGS.daily_budget
        and (ended is None or NOW - ended >= SETTINGS.cool_down_ms)
        and window
    )
    assert decide(LOW, situation, SETTINGS, NOW).start == kept


def test_a_reason_settles_until_what_provoked_it_may_be_learned_from() -> None:
    settling = replace(SETTINGS, settle_ms=60_000)
    young = replace(READY, reason_since_ms=NOW - 59_999)
    decision = decide(LOW, young, settling, NOW)
    assert [(block.name, block.until_ms) for block in decision.blocks] == [("settling", NOW + 1)]
    assert decide(LOW, replace(READY, reason_since_ms=NOW - 60_000), settling, NOW).start
    # A withdrawn fact waits for nothing that is new.
    assert decide(LOW, replace(young, tainted=1), settling, NOW).start


def test_every_reading_has_a_rule_and_every_rule_a_reading() -> None:
    named = {rule.name for rule in THRESHOLDS} | {rule.name for rule in CHANGES}
    assert named == set(r.NAMES)


def test_two_rules_for_one_reading_are_refused() -> None:
    with pytest.raises(ValueError, match="two rules"):
        DetectorRules((), (CHANGES[0], CHANGES[0]))
