"""Three daemons on one Kafka, behind a client that goes round among them.

Answers a second beside those of one daemon, what callers notice of a kill, and whether all daemons hold the
same facts afterwards.
"""

from __future__ import annotations

import itertools
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from daemon.client import Client
from daemon.kafka.publisher import Publisher, PublisherSettings
from daemon.settings import Settings
from lte_runtime.errors import LteError
from lte_runtime.memory.edit_memory import STORE_FILE
from lte_runtime.store.backup import summarise
from ops.bench.load import stack_settings
from ops.bench.open_loop import code_of
from ops.bench.result import SEED, BenchResult, interleave, machine, today
from ops.bench.texts import events
from ops.bench.traffic import Marks, publish, question_about
from ops.stack import Stack

REPLICAS = 3
AT_ONCE = 64
CALLERS = 8  # beside the kill
NEW = 12
TIMEOUT_S = 300.0
BAR = "failed 0, wrong 0, states equal"


def run(quick: bool, progress: Callable[[str], None], settings: Settings | None = None) -> BenchResult:
    """`ours` is answers a second of three daemons, `peer` of one of them, 64 questions at once.

    `failed` and `wrong` are of the questions asked while one daemon was killed and came back; an answer is
    wrong that cites other edits than before.
    """
    facts, repeats = (60, 1) if quick else (1_000, 5)
    with ExitStack() as parts:
        directory = Path(parts.enter_context(tempfile.TemporaryDirectory()))
        progress(f"starting a broker and {REPLICAS} daemons")
        stacks = _started(parts, directory, stack_settings(settings or Settings()))
        addresses = [stack.addresses.grpc for stack in stacks]
        clients = [parts.enter_context(Client(address, timeout_s=TIMEOUT_S)) for address in addresses]
        fleet = parts.enter_context(Client(",".join(addresses), timeout_s=TIMEOUT_S))
        at = stacks[0].addresses
        publisher = parts.enter_context(Publisher(PublisherSettings(at.kafka, at.topic)))
        # The second half changes under the kill, so that answers about the first half stay the same.
        stock = list(itertools.islice(events(2 * facts, SEED), 2 * facts))
        _see(clients, publish(publisher, stock))
        questions = [question_about(fact) for fact in stock[:facts]]
        turns = itertools.cycle(questions)
        progress(f"{repeats} turns of {2 * AT_ONCE} questions on each side")
        rates = interleave(
            lambda: _rate(fleet, turns), lambda: _rate(clients[0], turns), repeats, higher=True
        )
        progress("a kill")
        expected = {text: _cited(clients[0], text) for text in questions[:AT_ONCE]}
        asking = Asking(fleet, expected)
        with asking:
            stacks[-1].kill_daemon()
            last = publish(publisher, [_changed(fact) for fact in stock[facts:]])
            seconds = stacks[-1].start_daemon()
            _see(clients, last)
        hashes = {_state_hash(stack) for stack in stacks}
    return BenchResult(
        name="replicas",
        ours=rates.ours.median,
        peer=rates.peer.median,
        ratio=rates.ratios.median,
        unit=f"answers/s of {REPLICAS} daemons, 64 at once; peer: one",
        n=2 * AT_ONCE * repeats,
        bar=BAR,
        machine=machine(),
        date=today(),
        extra={
            "ratio_spread": rates.ratios.to_json(),
            "answers_beside_the_kill": asking.answers,
            "failed": len(asking.failed),
            "errors": sorted(set(asking.failed)),
            "wrong": len(asking.wrong),
            "back_s": round(seconds, 2),
            "states_equal": len(hashes) == 1,
        },
    )


class Asking:
    """Callers that ask one question after the other while the context is open, and compare the citations."""

    def __init__(self, client: Client, expected: Mapping[str, Sequence[str]]) -> None:
        self.answers = 0
        self.failed: list[str] = []
        self.wrong: list[str] = []
        self._client, self._expected = client, expected
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(place,)) for place in range(CALLERS)]
        self._counting = threading.Lock()

    def __enter__(self) -> Asking:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _run(self, place: int) -> None:
        questions = itertools.islice(itertools.cycle(self._expected), place, None, 1)
        while not self._over.is_set():
            self._ask(next(questions))

    def _ask(self, question: str) -> None:
        try:
            right = _cited(self._client, question) == self._expected[question]
        except LteError as error:
            self.failed.append(code_of(error))
            time.sleep(0.1)
            return
        with self._counting:
            self.answers += 1
        if not right:
            self.wrong.append(question)


def _started(parts: ExitStack, directory: Path, environment: Mapping[str, str]) -> list[Stack]:
    """On one broker, which is the first one's and ends last."""
    quiet = {"LTE_DRIFT__ENABLED": "false", "LTE_REALIGN__AUTOMATIC": "false"}
    longest = {"LTE_ANSWER__DEADLINE_MAX_S": str(TIMEOUT_S)}
    stacks: list[Stack] = []
    for number in range(REPLICAS):
        broker = stacks[0].broker if stacks else None
        stack = Stack(directory / str(number), settings={**environment, **quiet, **longest}, broker=broker)
        stacks.append(parts.enter_context(stack))
        stack.start_broker()
        stack.start_daemon()
    return stacks


def _changed(fact: Mapping[str, str]) -> dict[str, str]:
    return {**fact, "id": f"changed-{fact['id']}", "target": "Ada Quint"}


def _see(clients: Sequence[Client], last: Marks) -> None:
    for client in clients:
        client.retrieve("Are they there?", at_least=last)


def _rate(client: Client, questions: itertools.cycle[str]) -> float:
    """Answers a second, `AT_ONCE` of them at once."""
    chosen = list(itertools.islice(questions, 2 * AT_ONCE))
    with ThreadPoolExecutor(AT_ONCE) as threads:
        begin = time.perf_counter()
        list(threads.map(lambda text: client.answer(text, max_new_tokens=NEW), chosen))
        return len(chosen) / (time.perf_counter() - begin)


def _cited(client: Client, question: str) -> list[str]:
    answer: Any = client.answer(question, max_new_tokens=NEW)
    return [citation["edit_id"] for citation in answer["citations"]]


def _state_hash(stack: Stack) -> str:
    stack.stop_daemon()
    return summarise(stack.directory / "state" / STORE_FILE).state_hash
