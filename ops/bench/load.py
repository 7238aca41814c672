"""Questions and events together for long, at a share of what the daemon can do, on a real broker and daemon.

First callers that ask without a pause say how many answers a second there are while the events come.
Then questions come at a share of that rate, at times fixed in advance, however long the answers take
(`ops.bench.open_loop`). The watch on drift is on; `realign` trains a new adapter meanwhile.
"""

from __future__ import annotations

import itertools
import json
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from daemon.client import Client
from daemon.kafka.publisher import Publisher, PublisherSettings
from daemon.settings import Settings
from lte_runtime.errors import LteError
from ops.bench.memory import resident
from ops.bench.open_loop import OpenLoop, Times, codes, growth, latencies, poisson
from ops.bench.result import SEED, BenchResult, machine, today
from ops.bench.traffic import Changes, Marks, Traffic, marks, publish
from ops.stack import Stack

BAR = "dropped 0, wrong 0, lag 0 at the end, memory within 2 %"
NEW = 16  # tokens of an answer at most
# Callers that measure the capacity: enough to fill two batches of the engine.
CALLERS = 16
# Calls that run at most: more than `rpc.max_concurrent`, so that it is the daemon that refuses.
AT_ONCE = 256
TIMEOUT_S = 60.0
# Other questions than those that measured the capacity: the daemon remembers what it has read.
FIRST_QUESTION = 1_000_000
# The part of the time after which the re-alignment begins: three quarters are left for it to end in.
REALIGN_AFTER = 1 / 4
OWNER_S = 60.0
SETTLE_S = 120.0
TICK_S = 1.0
CHECKED = 50
_MIB = 2**20


class Progress(Protocol):
    def __call__(self, text: str, done: float | None = None) -> None: ...


@dataclass(frozen=True)
class Plan:
    """`share` of the capacity; rates a second, times in seconds."""

    facts: int
    seconds: float
    capacity_s: float
    share: float
    events_per_s: float
    realign: bool

    def __post_init__(self) -> None:
        if not (self.seconds > 0 and self.share > 0 and self.events_per_s >= 0):
            raise ValueError("minutes and share must be above 0, events-per-s at least 0")


@dataclass
class Readings:
    """What was read while the load ran. `rss`: (seconds, bytes) of the daemon's process."""

    rss: list[tuple[float, float]] = field(default_factory=list)
    seconds: float = 0.0
    interrupted: bool = False
    realigned: dict[str, Any] = field(default_factory=dict)


def run(
    quick: bool,
    progress: Progress,
    settings: Settings | None = None,
    *,
    minutes: float | None = None,
    share: float = 0.4,
    events_per_s: float = 100.0,
    realign: bool = False,
) -> BenchResult:
    """`ours` is the 99th percentile in milliseconds, of all questions, from the scheduled time to the answer.

    Ctrl-C ends the load and gives the figures so far, with `interrupted`.
    """
    facts, default_minutes, capacity_s = (200, 0.25, 3.0) if quick else (2_000, 30.0, 60.0)
    seconds = 60 * (default_minutes if minutes is None else minutes)
    plan = Plan(facts, seconds, capacity_s, share, events_per_s, realign)
    environment = stack_settings(settings or Settings()) | {
        "LTE_REALIGN__AUTOMATIC": "false",
        "LTE_REALIGN__MIN_FACT_AGE_S": "0",
    }
    with ExitStack() as parts:
        name = parts.enter_context(tempfile.TemporaryDirectory())
        stack = parts.enter_context(Stack(Path(name), settings=environment))
        progress("starting broker and daemon")
        stack.start_broker()
        stack.start_daemon()
        at = stack.addresses
        client = parts.enter_context(Client(at.socket, admin_address=at.admin_socket, timeout_s=TIMEOUT_S))
        publisher = parts.enter_context(Publisher(PublisherSettings(at.kafka, at.topic)))
        load = Load(plan, stack, client, publisher)
        progress(f"{plan.facts} facts")
        load.prepare()
        progress(f"answers a second of {CALLERS} callers that do not pause, {plan.capacity_s:.0f} s")
        load.measure_capacity()
        load.drive(progress)
        progress("the end of the topic")
        return load.result()


def stack_settings(settings: Settings) -> dict[str, str]:
    """Encoder and model of the settings, as a daemon's environment."""
    return {
        "LTE_ENCODER__MODEL": settings.encoder.model,
        "LTE_MODEL__PATH": settings.model.path,
        "LTE_MODEL__ENGINE": settings.model.engine,
        "LTE_MODEL__ADAPTER": settings.model.adapter,
    }


class Load:
    """One run: `prepare`, `measure_capacity`, `drive`, `result`."""

    def __init__(self, plan: Plan, stack: Stack, client: Client, publisher: Publisher) -> None:
        self._plan, self._stack, self._client, self._publisher = plan, stack, client, publisher
        self._traffic = Traffic(plan.facts, SEED)
        self._rng = np.random.default_rng(SEED)
        self._read = Readings()
        self._stock: Marks = []
        self._capacity = 0.0
        self._questions = self._loop(np.empty(0))
        self._changes: list[Changes] = []

    def prepare(self) -> None:
        """The facts, seen by questions; and the daemon may re-align, if it shall."""
        self._stock = publish(self._publisher, self._traffic.facts)
        self._client.retrieve("Are they there?", at_least=self._stock, timeout_s=300.0)
        if self._plan.realign:
            _await_ownership(self._client)

    def measure_capacity(self) -> None:
        changes = self._new_changes(self._plan.capacity_s)
        changes.start(time.perf_counter())
        try:
            self._capacity = closed_loop(self._ask, CALLERS, self._plan.capacity_s)
        finally:
            changes.stop()

    def drive(self, progress: Progress) -> None:
        """The load itself; Ctrl-C ends it early."""
        changes = self._new_changes(self._plan.seconds)
        rate = self._plan.share * self._capacity
        questions = self._questions = self._loop(poisson(rate, self._plan.seconds, self._rng))
        begin = time.perf_counter()
        questions.start(begin)
        changes.start(begin)
        try:
            while (now := time.perf_counter() - begin) < self._plan.seconds:
                self._tick(now, progress)
                time.sleep(min(TICK_S, self._plan.seconds - now))
            self._read.seconds = self._plan.seconds
            changes.finish()
            questions.finish()
        except KeyboardInterrupt:
            self._read.interrupted = True
            self._read.seconds = min(time.perf_counter() - begin, self._plan.seconds)
        finally:
            changes.stop()
            questions.stop()
        if self._read.realigned:
            self._follow_realignment(self._read.seconds)

    def result(self) -> BenchResult:
        """Waits until questions see the last event, and looks at what became of everything."""
        figures = {**self._figures(), **self._ended()}
        return BenchResult(
            name="load",
            # Where more than one in a hundred got no answer, it is as late as calls are let run.
            ours=TIMEOUT_S * 1e3 if figures["p99_ms"] is None else figures["p99_ms"],
            peer=None,
            ratio=None,
            unit="ms from the scheduled time to the answer, p99",
            n=len(self._questions.outcomes),
            bar=BAR,
            machine=machine(),
            date=today(),
            extra=figures,
        )

    # -- what is sent --------------------------------------------------------------------------------------

    def _loop(self, times: Times) -> OpenLoop:
        return OpenLoop(times, lambda number: self._ask(FIRST_QUESTION + number), at_once=AT_ONCE)

    def _ask(self, number: int) -> None:
        self._client.answer(self._traffic.question(number), max_new_tokens=NEW)

    def _new_changes(self, seconds: float) -> Changes:
        times = poisson(self._plan.events_per_s, seconds, self._rng)
        first = sum(len(changes.published) for changes in self._changes)
        changes = Changes(times, self._traffic, self._publisher, self._client, first=first)
        self._changes.append(changes)
        return changes

    # -- while it runs -------------------------------------------------------------------------------------

    def _tick(self, now: float, progress: Progress) -> None:
        self._read.rss.append((now, resident(self._stack.daemon_pid)))
        if self._plan.realign and now >= REALIGN_AFTER * self._plan.seconds:
            self._follow_realignment(now)  # the first time: it begins
        progress(self._line(now), now / self._plan.seconds)

    def _line(self, now: float) -> str:
        outcomes = list(self._questions.outcomes)
        failed = sum(codes(outcomes).values())
        parts = [
            f"{_clock(now)} of {_clock(self._plan.seconds)}",
            f"{len(outcomes) - failed:,} answers, {failed} failed",
            f"p99 {latencies(outcomes)['p99_ms']} ms",
            *([f"re-alignment {self._read.realigned['state']}"] if self._read.realigned else []),
        ]
        return "; ".join(parts)

    def _follow_realignment(self, now: float) -> None:
        """Starts it at the first call, and notes how far it is at the others."""
        run_so_far = self._read.realigned
        if run_so_far and run_so_far["ended_s"] is not None:
            return
        try:
            run = (
                self._client.realignment(run_so_far["id"])
                if run_so_far
                else self._client.trigger_realignment("bench")
            )
        except LteError as error:
            self._read.realigned = {**run_so_far, "state": "refused", "message": str(error), "ended_s": now}
            return
        verdict = json.loads(run["verdict_json"]).get("outcome", "") if run["verdict_json"] else ""
        self._read.realigned = {
            "id": run["id"],
            "state": run["state"],
            "verdict": verdict,
            "message": run["message"],
            "rows": run["rows"],
            "begun_s": run_so_far.get("begun_s", round(now, 1)),
            "ended_s": round(now, 1) if run["ended"] else None,
        }

    # -- afterwards ----------------------------------------------------------------------------------------

    def _ended(self) -> dict[str, Any]:
        """Lag and correctness, once the last event is visible."""
        last = marks(position for changes in self._changes for position in changes.last.values())
        begin = time.perf_counter()
        self._client.retrieve("Is it there?", at_least=last, timeout_s=SETTLE_S)
        seconds = time.perf_counter() - begin
        while (lag := _lag(self._client)) != 0 and time.perf_counter() - begin < SETTLE_S:
            time.sleep(0.2)
        return {
            "lag_at_end": lag,
            "last_event_visible_s": round(seconds, 3),
            "wrong": len(self._traffic.wrong(self._client, CHECKED)),
            "drift_cycles": self._client.drift()["cycles"],
        }

    def _figures(self) -> dict[str, Any]:
        read, outcomes, plan = self._read, self._questions.outcomes, self._plan
        changes = self._changes[-1]
        window = min(60.0, read.seconds / 2)
        failed = codes(outcomes)
        begun, ended = read.realigned.get("begun_s"), read.realigned.get("ended_s") or read.seconds
        return {
            **latencies(outcomes),
            "minutes": round(read.seconds / 60, 3),
            "interrupted": read.interrupted,
            "capacity_per_s": round(self._capacity, 3),
            "share": plan.share,
            "answers_per_s": round((len(outcomes) - sum(failed.values())) / max(read.seconds, 1e-9), 3),
            "dropped": sum(failed.values()),
            "errors": failed,
            "not_sent_at_interrupt": self._questions.sent - len(outcomes),
            "window_s": round(window, 1),
            "first_window": latencies(outcomes, 0.0, window),
            "last_window": latencies(outcomes, read.seconds - window),
            "beside_realignment": None if begun is None else latencies(outcomes, begun, ended),
            "sent_late_ms": _late_ms(self._questions),
            "events_per_s": round(len(changes.published) / max(read.seconds, 1e-9), 2),
            "events": len(changes.published),
            "event_errors": codes(changes.published),
            "events_published": latencies(changes.published),
            "events_visible": latencies(changes.visible),
            **_memory(read, window),
            "realignment": read.realigned or None,
            "topic_bytes_per_event": self._topic_bytes_per_event(),
        }

    def _topic_bytes_per_event(self) -> float:
        """What an event takes in the log of the broker."""
        name = self._stack.addresses.topic
        logs = (self._stack.directory / "kafka").glob(f"log/{name}-[0-9]*/*.log")
        sent = len(self._traffic.facts) + sum(len(changes.published) for changes in self._changes)
        return round(sum(log.stat().st_size for log in logs) / sent, 1)


def closed_loop(ask: Callable[[int], object], callers: int, seconds: float) -> float:
    """Answers a second of so many callers, each of whom asks again as soon as the answer is there.

    `ask` is given numbers from 0. What it raises is raised here.
    """
    numbers = itertools.count()
    over = threading.Event()
    counted = [0] * callers

    def caller(place: int) -> None:
        while not over.is_set():
            ask(next(numbers))
            counted[place] += 1

    with ThreadPoolExecutor(callers) as threads:
        begin = time.perf_counter()
        done = [threads.submit(caller, place) for place in range(callers)]
        try:
            time.sleep(seconds)
        finally:
            over.set()
        for future in done:
            future.result()
        return sum(counted) / (time.perf_counter() - begin)


def _await_ownership(client: Client) -> None:
    until = time.monotonic() + OWNER_S
    while "owner" in {block["name"] for block in client.drift()["blocks"]}:
        if time.monotonic() > until:
            raise RuntimeError(f"the daemon does not own re-alignment after {OWNER_S:.0f} s")
        time.sleep(0.1)


def _lag(client: Client) -> int:
    """Records that are not applied; -1 where a partition does not say."""
    lags = [partition["lag"] for partition in client.status()["ingest"]["partitions"]]
    return -1 if min(lags, default=-1) < 0 else sum(lags)


def _late_ms(loop: OpenLoop) -> float | None:
    """The 99th percentile of how much later than scheduled this process sent: its own part in a latency."""
    late = [outcome.late_s * 1e3 for outcome in loop.outcomes]
    return round(float(np.quantile(late, 0.99, method="inverted_cdf")), 2) if late else None


def _memory(read: Readings, window: float) -> Mapping[str, Any]:
    """Resident memory of the daemon's process: medians of the first and last window, and the fitted line."""
    if not read.rss:
        return {"rss_start_mib": None, "rss_end_mib": None}
    # A run that was interrupted at once has a single sample, which may lie in neither window.
    first = [rss for at, rss in read.rss if at <= window] or [read.rss[0][1]]
    last = [rss for at, rss in read.rss if at >= read.seconds - window] or [read.rss[-1][1]]
    # Caches that fill with the store end to do so; what goes on in the second half is another thing.
    later = growth([(at, rss) for at, rss in read.rss if at >= read.seconds / 2])
    line = growth(read.rss)
    return {
        "rss_start_mib": round(statistics.median(first) / _MIB, 1),
        "rss_end_mib": round(statistics.median(last) / _MIB, 1),
        "rss_peak_mib": round(max(rss for _, rss in read.rss) / _MIB, 1),
        "rss_mib_per_hour": round(line["per_hour"] / _MIB, 2),
        "rss_growth": round(line["share"], 4),
        "rss_growth_second_half": round(later["share"], 4),
    }


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
