"""A whole re-alignment of the default model: seconds from the trigger to its end, and answers beside it.

The daemon runs as in production, on a real broker, with the whole preset; a caller asks without hurry before
and all the while. The facts are the demo's and its burst. The gate may reject: `extra`
names the outcome, and the time is then that up to the verdict.
"""

from __future__ import annotations

import json
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from daemon.client import Client
from daemon.kafka.publisher import Publisher, PublisherSettings
from lte_runtime.errors import LteError
from ops.bench.result import BenchResult, machine, percentile, today
from ops.stack import Stack

BAR = "trigger to swap <= 600 s on 2 cores, answers go on"
DEMO = Path(__file__).parents[1] / "demo"
# A caller who thinks between two questions; without a pause the queue would be measured.
PAUSE_S = 0.1
IDLE = 300
OWNER_S = 60.0
Json = dict[str, Any]


@dataclass
class Caller:
    """Asks one question after the other. `spans` are begin and milliseconds of each answer."""

    client: Client
    questions: Sequence[str]
    spans: list[tuple[float, float]] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    def ask(self) -> None:
        begin = time.perf_counter()
        try:
            self.client.answer(self.questions[len(self.spans) % len(self.questions)])
        except LteError as error:
            self.failed.append(str(error))
        self.spans.append((begin, (time.perf_counter() - begin) * 1e3))

    @contextmanager
    def asking(self) -> Iterator[None]:
        over = threading.Event()
        thread = threading.Thread(target=self._run, args=(over,))
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def _run(self, over: threading.Event) -> None:
        while not over.wait(PAUSE_S):
            self.ask()

    def between(self, begin: float, end: float) -> list[float]:
        return [ms for at, ms in self.spans if begin <= at < end]


def run(quick: bool, progress: Callable[[str], None]) -> BenchResult:
    """`ours` is seconds from the trigger to the end of the run; `quick` takes the preset `demo`."""
    preset = "demo" if quick else "embedded"
    settings = {
        "LTE_REALIGN__PRESET": preset,
        "LTE_REALIGN__AUTOMATIC": "false",
        "LTE_REALIGN__MIN_FACT_AGE_S": "0",
    }
    events, questions = _material()
    with tempfile.TemporaryDirectory() as name, Stack(Path(name), settings=settings) as stack:
        progress("starting broker and daemon")
        stack.start_broker()
        stack.start_daemon()
        at = stack.addresses
        with Client(f"unix:{at.socket}", admin_address=f"unix:{at.admin_socket}") as client:
            with Publisher(PublisherSettings(at.kafka, at.topic)) as publisher:
                marks = [
                    {"topic_id": p.topic_id, "partition": p.partition, "offset": p.offset}
                    for p in publisher.publish(events)
                ]
            client.retrieve(questions[0], at_least=marks, timeout_s=300.0)
            _await_ownership(client)
            progress("answers of an idle daemon")
            caller = Caller(Client(f"unix:{at.socket}"), questions)
            for _ in range(IDLE):
                time.sleep(PAUSE_S)
                caller.ask()
            with caller.asking():
                begin = time.perf_counter()
                ended, spans = _follow(client, progress)
                end = time.perf_counter()
            caller.client.close()
    return _result(caller, ended, spans, (begin, end), preset)


def _material() -> tuple[list[Json], list[str]]:
    lines = (DEMO / "events.jsonl").read_text(encoding="utf-8").splitlines()
    burst = [json.loads(line) for line in (DEMO / "burst.jsonl").read_text(encoding="utf-8").splitlines()]
    events = [*map(json.loads, lines), *(row["event"] for row in burst)]
    return events, [row["question"] for row in burst]


def _await_ownership(client: Client) -> None:
    until = time.monotonic() + OWNER_S
    while "owner" in {block["name"] for block in client.drift()["blocks"]}:
        if time.monotonic() > until:
            raise RuntimeError("the daemon does not own re-alignment")
        time.sleep(0.1)


def _follow(client: Client, progress: Callable[[str], None]) -> tuple[Json, dict[str, float]]:
    """The ended run, and the seconds spent in each state."""
    run = client.trigger_realignment("bench")
    spans: dict[str, float] = {}
    since = time.perf_counter()
    for update in client.watch_realignment(run["id"]):
        now = time.perf_counter()
        spans[run["state"]] = spans.get(run["state"], 0.0) + now - since
        run, since = update, now
        progress(f"{run['state']} {(run['progress'] or {}).get('step', '')}")
    return run, spans


def _result(
    caller: Caller, ended: Json, spans: dict[str, float], window: tuple[float, float], preset: str
) -> BenchResult:
    idle, beside = caller.between(0.0, window[0]), caller.between(*window)
    verdict = json.loads(ended["verdict_json"]) if ended["verdict_json"] else {}
    return BenchResult(
        name="realign",
        ours=window[1] - window[0],
        peer=None,
        ratio=None,
        unit="s from trigger to the end",
        n=1,
        bar=BAR,
        machine=machine(),
        date=today(),
        extra={
            "state": ended["state"],
            "verdict": verdict.get("outcome", ended["message"]),
            "preset": preset,
            "rows": ended["rows"],
            **{f"{state}_s": round(seconds, 1) for state, seconds in spans.items()},
            "p50_idle_ms": percentile(idle, 0.5),
            "p99_idle_ms": percentile(idle, 0.99),
            "p50_beside_ms": percentile(beside, 0.5),
            "p99_beside_ms": percentile(beside, 0.99),
            "answers_beside": len(beside),
            "failed": len(caller.failed),
        },
    )
