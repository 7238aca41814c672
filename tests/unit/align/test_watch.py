"""The fall of live probes: found when it is there, quiet when it is not, blind to another mix of kinds."""

from __future__ import annotations

import random

import pytest

from lte_runtime.align.watch import ProbeTally, WatchPolicy, fall, reason

POLICY = WatchPolicy()


def falls(before: dict[str, ProbeTally], after: dict[str, ProbeTally]) -> str:
    return reason(fall(before, after, POLICY), POLICY)


def test_a_large_fall_is_a_reason_with_its_numbers() -> None:
    told = falls({"verbatim": ProbeTally(90, 100)}, {"verbatim": ProbeTally(40, 80)})
    assert "100 probes before, 80 after" in told
    assert "allowed 0.050" in told


@pytest.mark.parametrize("asked", [0, 1, 47])
def test_too_few_probes_are_no_reason(asked: int) -> None:
    assert fall({"verbatim": ProbeTally(90, 100)}, {"verbatim": ProbeTally(0, asked)}, POLICY) is None


def test_a_gain_is_no_reason() -> None:
    found = fall({"verbatim": ProbeTally(50, 100)}, {"verbatim": ProbeTally(95, 100)}, POLICY)
    assert found
    assert found.mean < -0.4
    assert reason(found, POLICY) == ""


def test_another_mix_of_kinds_is_no_fall() -> None:
    before = {"verbatim": ProbeTally(190, 200), "two_hop": ProbeTally(30, 100)}
    after = {"verbatim": ProbeTally(19, 20), "two_hop": ProbeTally(90, 300)}
    found = fall(before, after, POLICY)
    assert found
    assert abs(found.mean) < 0.02


def test_a_kind_that_was_not_asked_before_is_left_out() -> None:
    assert (
        fall(
            {"verbatim": ProbeTally(9, 10)},
            {"verbatim": ProbeTally(9, 10), "alias": ProbeTally(0, 200)},
            POLICY,
        )
        is None
    )


def looked_at(chance: random.Random, before: float, after: float, probes: int = 256) -> bool:
    """Whether a watch that looks after every probe speaks."""
    known = {"verbatim": ProbeTally(sum(chance.random() < before for _ in range(256)), 256)}
    right = 0
    for asked in range(1, probes + 1):
        right += chance.random() < after
        if falls(known, {"verbatim": ProbeTally(right, asked)}):
            return True
    return False


def test_false_alarms_are_rare_and_a_collapse_is_always_found() -> None:
    chance = random.Random(0)
    assert sum(looked_at(chance, 0.85, 0.85) for _ in range(300)) == 0
    assert all(looked_at(chance, 0.85, 0.55) for _ in range(60))
