"""Records of runs: which moves there are, what failures mean, and that JSON gives them back."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lte_runtime.align.runs import (
    Progress,
    Run,
    RunState,
    Trigger,
    failures,
    from_json,
    moved,
    situation,
    to_json,
)

RUN = Run("run-000001", RunState.QUEUED, Trigger.DRIFT, ("why",), created_ms=1000)
HOUR = 3_600_000


def ended(state: RunState, at_ms: int, trigger: Trigger = Trigger.DRIFT) -> Run:
    return replace(RUN, state=state, ended_ms=at_ms, created_ms=at_ms - 10, trigger=trigger)


def test_a_run_moves_forward_and_keeps_its_times() -> None:
    run = RUN
    for number, state in enumerate(
        (RunState.BUILDING, RunState.TRAINING, RunState.JUDGING, RunState.PROMOTING, RunState.DONE), 2
    ):
        run = moved(run, state, number * 1000)
    assert (run.started_ms, run.ended_ms, run.state.active) == (2000, 6000, False)


@pytest.mark.parametrize(
    ("state", "to"),
    [
        (RunState.QUEUED, RunState.TRAINING),
        (RunState.BUILDING, RunState.DONE),
        (RunState.PROMOTING, RunState.TRAINING),
        *((state, RunState.FAILED) for state in RunState if not state.active),
    ],
)
def test_there_is_no_other_move(state: RunState, to: RunState) -> None:
    with pytest.raises(ValueError, match="cannot go"):
        moved(replace(RUN, state=state), to, 1)


def test_failures_count_until_something_else_ended() -> None:
    failed, done = ended(RunState.FAILED, 1), ended(RunState.DONE, 1)
    rejected, cancelled = ended(RunState.REJECTED, 1), ended(RunState.CANCELLED, 1)
    assert failures([failed, done, failed, cancelled, failed]) == 2
    assert failures([failed, failed, rejected]) == 0


def test_the_situation_holds_what_limits_need() -> None:
    now = 100 * HOUR
    found = situation(
        [
            ended(RunState.DONE, now - 30 * HOUR),
            ended(RunState.FAILED, now - 5 * HOUR),
            ended(RunState.FAILED, now - 2 * HOUR, Trigger.OPERATOR),
            ended(RunState.FAILED, now - HOUR),
        ],
        now,
        backoff_ms=HOUR,
    )
    assert found.starts_ms == (now - 5 * HOUR - 10, now - HOUR - 10), "an operator's start is not drift's"
    assert found.backoff_until_ms == now - HOUR + 4 * HOUR
    assert found.circuit_open
    assert not found.running
    assert situation([RUN], now, backoff_ms=HOUR).running


def test_json_gives_a_run_back_and_leaves_out_what_is_newer() -> None:
    run = replace(
        RUN,
        verdict={"outcome": "reject"},
        progress=Progress("training", 1, 2, 0.5),
        relations=("owner",),
    )
    text = to_json(run)
    assert from_json(text) == run
    assert from_json(text[:-1] + ', "later": 1}') == run
