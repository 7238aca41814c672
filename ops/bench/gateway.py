"""Answers over HTTP beside the same answers over gRPC, on a real broker, daemon and gateway, in turn.

Both sides ask from this process with a plain client: what differs is the gateway. The HTTP requests bring a
key that is none of the daemon's tokens, as OpenAI's clients do: the gateway finds that out by a further call.
"""

from __future__ import annotations

import http.client
import itertools
import json
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from daemon.client import Client
from daemon.kafka.publisher import Outgoing, Publisher, PublisherSettings
from daemon.settings import Settings
from ops.bench.result import SEED, BenchResult, interleave, machine, today
from ops.bench.texts import events
from ops.stack import Stack

AT_ONCE = 64
NEW = 12
# Against hanging only, on both sides.
TIMEOUT_S = 300.0
BAR = "ratio >= 0.9, overhead p50 <= 4 ms"
HEADERS = {"Content-Type": "application/json", "Authorization": "Bearer sk-none-of-the-daemons-0123456789"}
Ask = Callable[[str], None]


def run(quick: bool, progress: Callable[[str], None], settings: Settings | None = None) -> BenchResult:
    """`ours` and `peer` are answers a second over HTTP and gRPC, 64 at once; `overhead_p50_ms` is the median
    difference of two calls with the same question, one at a time, `gateway_cpu_ms` what such a call costs."""
    facts, repeats, alone = (100, 1, 40) if quick else (1_000, 5, 300)
    model = (settings or Settings()).model
    environment = {"LTE_MODEL__PATH": model.path, "LTE_MODEL__ENGINE": model.engine}
    environment |= {"LTE_MODEL__ADAPTER": model.adapter, "LTE_DRIFT__ENABLED": "false"}
    environment |= {"LTE_GATEWAY__TIMEOUT_S": str(TIMEOUT_S), "LTE_ANSWER__DEADLINE_MAX_S": str(TIMEOUT_S)}
    with tempfile.TemporaryDirectory() as name, Stack(Path(name), settings=environment) as stack:
        progress("starting broker, daemon and gateway")
        stack.start_broker()
        stack.start_daemon()
        stack.start_gateway()
        with Client(stack.addresses.socket, timeout_s=TIMEOUT_S) as client:
            questions = itertools.cycle(_publish(client, stack, facts))
            grpc, over_http = _over_grpc(client), _over_http(stack.addresses.http)
            for ask in (grpc, over_http):
                _rate(ask, questions, AT_ONCE)
            progress(f"{alone} questions, one at a time")
            cpu_s = _processor_s(stack.gateway_pid)
            pairs = [_pair(grpc, over_http, next(questions), turn) for turn in range(alone)]
            cpu_s = _processor_s(stack.gateway_pid) - cpu_s
            progress(f"{repeats} turns of {2 * AT_ONCE} questions on each side")
            rates = interleave(
                lambda: _rate(over_http, questions, 2 * AT_ONCE),
                lambda: _rate(grpc, questions, 2 * AT_ONCE),
                repeats,
                higher=True,
            )
    return BenchResult(
        name="gateway",
        ours=rates.ours.median,
        peer=rates.peer.median,
        ratio=rates.ratios.median,
        unit="answers/s over HTTP, 64 at once; peer: gRPC",
        n=2 * AT_ONCE * repeats,
        bar=BAR,
        machine=machine(),
        date=today(),
        extra={
            "overhead_p50_ms": statistics.median(over - direct for direct, over in pairs),
            "grpc_p50_ms": statistics.median(direct for direct, _ in pairs),
            "http_p50_ms": statistics.median(over for _, over in pairs),
            "gateway_cpu_ms": cpu_s * 1e3 / alone,
            "ratio_spread": rates.ratios.to_json(),
            "model": model.path,
        },
    )


def _publish(client: Client, stack: Stack, count: int) -> list[str]:
    """Facts, seen by questions; returns a question about each."""
    at = stack.addresses
    facts = list(itertools.islice(events(count, SEED), count))
    with Publisher(PublisherSettings(at.kafka, at.topic)) as publisher:
        positions = publisher.send([Outgoing(None, json.dumps(fact).encode()) for fact in facts])
    marks = [{"topic_id": p.topic_id, "partition": p.partition, "offset": p.offset} for p in positions]
    client.retrieve("Is it there?", at_least=marks)
    return [f"What is the {fact['relation']} of {fact['subject']}?" for fact in facts]


def _over_grpc(client: Client) -> Ask:
    def ask(question: str) -> None:
        client.answer(question, max_new_tokens=NEW)

    return ask


def _over_http(url: str) -> Ask:
    """With a connection for each thread, that is kept."""
    address = url.removeprefix("http://")
    connections = threading.local()

    def ask(question: str) -> None:
        if not hasattr(connections, "own"):
            connections.own = http.client.HTTPConnection(address, timeout=TIMEOUT_S)
        messages = [{"role": "user", "content": question}]
        body = json.dumps({"model": "lte", "messages": messages, "max_tokens": NEW})
        connections.own.request("POST", "/v1/chat/completions", body, HEADERS)
        reply = connections.own.getresponse()
        text = reply.read()
        if reply.status != 200:
            raise RuntimeError(f"the gateway answered {reply.status}: {text.decode()}")

    return ask


def _pair(grpc: Ask, over_http: Ask, question: str, turn: int) -> tuple[float, float]:
    """Milliseconds of both, the first of them in turn."""
    if turn % 2:
        over = _milliseconds(over_http, question)
        return _milliseconds(grpc, question), over
    return _milliseconds(grpc, question), _milliseconds(over_http, question)


def _milliseconds(ask: Ask, question: str) -> float:
    begin = time.perf_counter()
    ask(question)
    return (time.perf_counter() - begin) * 1e3


def _processor_s(pid: int) -> float:
    """Processor time of a process: what it costs, however busy the machine is."""
    fields = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _rate(ask: Ask, questions: itertools.cycle[str], count: int) -> float:
    """Answers a second, `AT_ONCE` of them at once."""
    chosen = list(itertools.islice(questions, count))
    with ThreadPoolExecutor(AT_ONCE) as threads:
        begin = time.perf_counter()
        list(threads.map(ask, chosen))
        return count / (time.perf_counter() - begin)
