"""Calls at times fixed in advance, and the figures that are made of them."""

from __future__ import annotations

import threading
import time

import grpc
import numpy as np
import pytest

from lte_runtime.errors import Overloaded, Retry
from ops.bench.open_loop import OpenLoop, Outcome, code_of, codes, growth, latencies, poisson

STALL_S = 0.3


def run(loop: OpenLoop) -> list[Outcome]:
    loop.start(time.perf_counter())
    loop.finish()
    return sorted(loop.outcomes, key=lambda outcome: outcome.at)


def test_a_stall_is_in_the_latency_of_every_call_that_was_due_meanwhile() -> None:
    """With one caller that waits for its answers, nine of these ten would look fast."""
    times = np.linspace(0.0, STALL_S / 2, 10)
    loop = OpenLoop(times, lambda number: time.sleep(STALL_S if number == 0 else 0.0), at_once=1)
    outcomes = run(loop)
    assert [outcome.at for outcome in outcomes] == times.tolist()
    for outcome in outcomes:
        assert outcome.ms >= (STALL_S - outcome.at) * 1e3 - 1
        assert outcome.late_s <= outcome.ms / 1e3


def test_a_slow_call_delays_no_other() -> None:
    released = threading.Event()
    loop = OpenLoop(np.zeros(3), lambda number: released.wait(10) if number == 0 else None, at_once=3)
    loop.start(time.perf_counter())
    deadline = time.monotonic() + 10
    while len(loop.outcomes) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(loop.outcomes) == 2
    released.set()
    loop.finish()
    assert loop.sent == len(loop.outcomes) == 3


def test_a_stop_ends_the_schedule_and_lets_running_calls_end() -> None:
    began = threading.Event()

    def work(_: int) -> None:
        began.set()
        time.sleep(0.1)

    loop = OpenLoop(np.array([0.0, 3600.0]), work, at_once=2)
    loop.start(time.perf_counter())
    assert began.wait(10)
    loop.stop()
    assert loop.sent == len(loop.outcomes) == 1


def test_errors_are_codes() -> None:
    def work(number: int) -> None:
        if number:
            raise Overloaded("full") if number == 1 else ValueError("a fault of the bench")

    assert codes(run(OpenLoop(np.zeros(3), work, at_once=3))) == {"Overloaded": 1, "ValueError": 1}


class Refused(grpc.RpcError):
    def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.UNAVAILABLE


def test_the_code_of_a_call_is_grpcs() -> None:
    error = Retry("away")
    error.__cause__ = Refused()
    assert code_of(error) == "UNAVAILABLE"


def outcomes(times: list[float], failed: int = 0) -> list[Outcome]:
    answered = [Outcome(float(at), 0.0, ms) for at, ms in enumerate(times)]
    return [*answered, *(Outcome(float(len(times)), 0.0, 0.1, "OVERLOADED") for _ in range(failed))]


def test_percentiles_are_values_that_were_measured() -> None:
    hundred = outcomes([float(ms) for ms in range(1, 101)])
    figures = {"p50_ms": 50.0, "p90_ms": 90.0, "p99_ms": 99.0, "p999_ms": 100.0}
    assert latencies(hundred) == {"n": 100, **figures}


def test_a_refusal_never_makes_a_percentile_better() -> None:
    figures = latencies(outcomes([1.0] * 98, failed=2))
    assert figures == {"n": 100, "p50_ms": 1.0, "p90_ms": 1.0, "p99_ms": None, "p999_ms": None}


def test_a_window_takes_what_was_scheduled_in_it() -> None:
    figures = latencies(outcomes([9.0, 1.0, 1.0, 9.0]), 1.0, 3.0)
    assert (figures["n"], figures["p999_ms"]) == (2, 1.0)
    assert latencies([], 0.0, 1.0)["p50_ms"] is None


def test_a_schedule_is_random_ascending_and_the_same_for_a_seed() -> None:
    times = poisson(200.0, 50.0, np.random.default_rng(3))
    assert abs(len(times) - 10_000) < 500
    assert np.all(np.diff(times) >= 0)
    assert times[0] >= 0
    assert times[-1] < 50
    gaps = np.diff(times)
    assert gaps.std() == pytest.approx(gaps.mean(), rel=0.1), "gaps of independent arrivals"
    assert times.tolist() == poisson(200.0, 50.0, np.random.default_rng(3)).tolist()


def test_growth_is_that_of_the_line() -> None:
    line = growth([(float(second), 1000.0 + second) for second in range(101)])
    assert line["per_hour"] == pytest.approx(3600)
    assert line["share"] == pytest.approx(100 / 1050)
    assert growth([(0.0, 5.0)]) == {"per_hour": 0.0, "share": 0.0}
