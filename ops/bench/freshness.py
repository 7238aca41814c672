"""Time from publishing a fact to finding it by `Retrieve`, on a real broker and daemon: singly, and at 100/s.

One at a time, the question names the event's position (`at_least`), as a caller does that must read its own
write. Asking again and again until the event is found would measure the asking as well: each vain question
takes the daemon several milliseconds of the cores that it needs to bring the event in.
"""

from __future__ import annotations

import json
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from daemon.client import Client
from daemon.kafka.publisher import Outgoing, Publisher, PublisherSettings
from lte_runtime.types import Position
from ops.bench.result import SEED, BenchResult, machine, percentile, today
from ops.bench.texts import events
from ops.stack import Stack

BAR = "p50 <= 15 ms, p99 <= 50 ms"
RATE = 100.0
# The answer is found before generation, so the language model stays out.
SETTINGS = {"LTE_MODEL__PATH": "stub"}


def run(quick: bool, progress: Callable[[str], None]) -> BenchResult:
    """`ours` is the median of the one-at-a-time run in milliseconds."""
    n = 50 if quick else 300
    with tempfile.TemporaryDirectory() as name, Stack(Path(name), settings=SETTINGS) as stack:
        progress("starting broker and daemon")
        stack.start_broker()
        stack.start_daemon()
        at = stack.addresses
        with (
            Client(f"unix:{at.socket}") as client,
            Publisher(PublisherSettings(at.kafka, at.topic)) as publisher,
        ):
            stream = events(3 * n, SEED)
            _alone(client, publisher, stream, 10)
            progress(f"{n} events, one at a time")
            alone = _alone(client, publisher, stream, n)
            progress(f"{n} events at {RATE:.0f} a second")
            loaded = _at_rate(client, publisher, stream, n)
    return BenchResult(
        name="freshness",
        ours=percentile(alone, 0.5),
        peer=None,
        ratio=None,
        unit="ms publish to retrievable, p50",
        n=n,
        bar=BAR,
        machine=machine(),
        date=today(),
        extra={
            "p99": percentile(alone, 0.99),
            "at_100_per_s_p50": percentile(loaded, 0.5),
            "at_100_per_s_p99": percentile(loaded, 0.99),
        },
    )


def _question(event: dict[str, str]) -> str:
    return f"What is the {event['relation']} of {event['subject']}?"


def _is_retrieved(client: Client, event: dict[str, str], positions: Sequence[Position]) -> bool:
    answer = client.retrieve(_question(event), at_least=_marks(positions))
    facts = (candidate.get("fact", candidate) for candidate in answer["candidates"])
    return event["id"] in {fact["edit_id"] for fact in facts}


def _marks(positions: Sequence[Position]) -> list[dict[str, str | int]]:
    return [{"topic_id": p.topic_id, "partition": p.partition, "offset": p.offset} for p in positions]


def _alone(client: Client, publisher: Publisher, stream: Iterable[dict[str, str]], n: int) -> list[float]:
    times = []
    for _, event in zip(range(n), stream, strict=False):
        begin = time.perf_counter()
        positions = publisher.send([Outgoing(None, json.dumps(event).encode())])
        if not _is_retrieved(client, event, positions):
            raise RuntimeError(f"{event['id']} was not found at its position")
        times.append((time.perf_counter() - begin) * 1e3)
    return times


def _at_rate(client: Client, publisher: Publisher, stream: Iterable[dict[str, str]], n: int) -> list[float]:
    """Each event's time from its publication to the moment that questions can see its position."""
    times: list[float] = []
    watchers = []

    def watch(positions: list[Position], begin: float) -> None:
        client.retrieve("Is it there?", at_least=_marks(positions))
        times.append((time.perf_counter() - begin) * 1e3)

    start = time.perf_counter()
    for number, event in zip(range(n), stream, strict=False):
        time.sleep(max(0.0, start + number / RATE - time.perf_counter()))
        begin = time.perf_counter()
        positions = publisher.send([Outgoing(None, json.dumps(event).encode())])
        watchers.append(threading.Thread(target=watch, args=(positions, begin)))
        watchers[-1].start()
    for watcher in watchers:
        watcher.join()
    return times
