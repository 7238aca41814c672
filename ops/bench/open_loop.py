"""Calls at times that are fixed in advance, so that a slow answer delays no other call and hides no wait.

Whoever asks the next question after the answer to the last one measures too little: while one answer is slow,
the questions that would have waited with it are never asked (coordinated omission). Here every latency counts
from the time that the schedule names, whether or not the caller was able to send then.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Times = NDArray[np.float64]
QUANTILES = {"p50_ms": 0.5, "p90_ms": 0.9, "p99_ms": 0.99, "p999_ms": 0.999}


def poisson(rate: float, seconds: float, rng: np.random.Generator) -> Times:
    """Ascending times in [0, `seconds`) of calls that come independently, `rate` a second on average."""
    return np.sort(rng.uniform(0.0, seconds, rng.poisson(rate * seconds)))


@dataclass(frozen=True, slots=True)
class Outcome:
    """One call. `at`: its scheduled time, `late_s`: how much later it began, in seconds.

    `ms`: from `at` to the end. `code` is empty for an answer, else why there is none.
    """

    at: float
    late_s: float
    ms: float
    code: str = ""


class OpenLoop:
    """Calls `work` with the number of every scheduled time, at that time, whatever became of those before.

    At most `at_once` calls run; one that finds no thread free waits, and its wait counts. What `work` raises
    becomes the call's code.
    """

    def __init__(self, times: Times, work: Callable[[int], object], *, at_once: int) -> None:
        self.outcomes: list[Outcome] = []
        self.sent = 0
        self._times, self._work, self._begin = times, work, 0.0
        self._pool = ThreadPoolExecutor(at_once, "open-loop")
        self._over = threading.Event()
        self._sender = threading.Thread(target=self._send, name="open-loop-sender")

    def start(self, begin: float) -> None:
        """`begin`: what `time.perf_counter` says at the schedule's zero."""
        self._begin = begin
        self._sender.start()

    def finish(self) -> None:
        """Wait for the end of the schedule and of every call."""
        self._sender.join()
        self._pool.shutdown()

    def stop(self) -> None:
        """End the schedule now; calls that run end, those that wait for a thread are not made."""
        self._over.set()
        self._sender.join()
        self._pool.shutdown(cancel_futures=True)

    def _send(self) -> None:
        for number, at in enumerate(self._times.tolist()):
            if self._over.wait(max(0.0, self._begin + at - time.perf_counter())):
                return
            self._pool.submit(self._call, number, at)
            self.sent += 1

    def _call(self, number: int, at: float) -> None:
        due = self._begin + at
        late_s = time.perf_counter() - due
        code = ""
        try:
            self._work(number)
        except Exception as error:  # noqa: BLE001 - counted by its code: no fault may end the schedule
            code = code_of(error)
        self.outcomes.append(Outcome(at, late_s, (time.perf_counter() - due) * 1e3, code))


def code_of(error: Exception) -> str:
    """gRPC's code where the error came from a call, else the name of the error's class."""
    status: Any = getattr(error.__cause__, "code", None)
    return str(status().name) if callable(status) else type(error).__name__


def codes(outcomes: Sequence[Outcome]) -> dict[str, int]:
    """How many calls failed, by code."""
    return dict(Counter(outcome.code for outcome in outcomes if outcome.code))


def latencies(outcomes: Sequence[Outcome], begin: float = 0.0, end: float = np.inf) -> dict[str, Any]:
    """Number and nearest-rank percentiles in milliseconds of the calls scheduled in [`begin`, `end`) seconds.

    A call without an answer counts as slower than all others, or refusing would look fast: a percentile that
    falls on one is None.
    """
    chosen = [outcome for outcome in outcomes if begin <= outcome.at < end]
    if not chosen:
        return {"n": 0, **dict.fromkeys(QUANTILES)}
    times = np.array([np.inf if outcome.code else outcome.ms for outcome in chosen])
    values = np.quantile(times, list(QUANTILES.values()), method="inverted_cdf").tolist()
    rounded = (round(value, 2) if np.isfinite(value) else None for value in values)
    return {"n": len(chosen), **dict(zip(QUANTILES, rounded, strict=True))}


def growth(samples: Sequence[tuple[float, float]]) -> dict[str, float]:
    """Of (seconds, value): the fitted line's rise an hour, and over all samples by their median."""
    if len(samples) < 2:
        return {"per_hour": 0.0, "share": 0.0}
    seconds, values = np.array(samples, np.float64).T
    slope = float(np.polyfit(seconds - seconds[0], values, 1)[0])
    rise = slope * float(seconds[-1] - seconds[0])
    return {"per_hour": slope * 3600, "share": rise / float(np.median(values))}
