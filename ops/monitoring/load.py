"""A short load on a daemon that provokes what the dashboards show: each fault once, each reading once."""

from __future__ import annotations

import itertools
import json
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from typing import Any

from kafka import KafkaAdminClient

from daemon.client import Client
from daemon.kafka.publisher import Outgoing, Publisher, PublisherSettings
from daemon.kafka.topics import ensure_topics, plans
from lte_runtime.drift import readings
from lte_runtime.errors import LteError
from lte_runtime.facts.events import original_position_header
from lte_runtime.types import Position
from ops.stack import Stack

# A model that needs some time, so that a queue forms; everything periodic, often.
SETTINGS: Mapping[str, str] = {
    "LTE_ENCODER__MODEL": "stub",
    "LTE_MODEL__PATH": "stub:0.005",
    "LTE_MODEL__MAX_BATCH": "2",
    "LTE_MODEL__QUEUE_LIMIT": "6",
    "LTE_KAFKA__REFRESH_S": "0.5",
    "LTE_KAFKA__CONTROL_SESSION_S": "6",
    "LTE_MEMORY__SNAPSHOT_INTERVAL_S": "8",
    "LTE_DRIFT__CYCLE_S": "4",
    "LTE_DRIFT__LOOK_S": "1",
    "LTE_DRIFT__PROBES": "8",
    "LTE_REALIGN__AUTOMATIC": "false",
    "LTE_REALIGN__MIN_FACT_AGE_S": "0",
    "LTE_REALIGN__PRESET": "stub:slow",
    "LTE_REGISTRY__TAINT_INTERVAL_S": "1",
}
FACTS = 120
# What the reading of a shift takes: a reference of 256 questions, and 64 to compare with it.
QUESTIONS = 340
_OVERLOAD_S = 4.0
# Against hanging only.
_GUARD_S = 240.0
_LONG = "a statement that is longer than any encoder reads at once " * 40
_BAD = (b"no json", b'{"subject": "Quay 1"}', b'{"subject": "Quay 1", "relation": "owner", "op": "explode"}')


class Load:
    """Events and questions at a steady pace, beside what `run` does step by step; the gateway must run."""

    def __init__(self, stack: Stack) -> None:
        at = stack.addresses
        self._bootstrap, self._topic, self._http = at.kafka, at.topic, at.http
        self._client = Client(at.socket, admin_address=at.admin_socket, timeout_s=60.0)
        self._publisher = Publisher(PublisherSettings(at.kafka, at.topic))
        self._asking, self._publishing, self._over = threading.Event(), threading.Event(), threading.Event()
        self._numbers = itertools.count()

    def run(self, note: Callable[[str], None] = lambda _: None) -> None:
        """All steps, about a minute; raises `TimeoutError` when one has not happened in time."""
        with ExitStack() as undo:
            undo.callback(self._client.close)
            undo.callback(self._publisher.close)
            for work in (self._publish_on, self._ask_on):
                thread = threading.Thread(target=work, daemon=True)
                thread.start()
                undo.callback(thread.join)
            undo.callback(self._over.set)
            for name, step in self._steps():
                note(name)
                step()

    def _steps(self) -> Iterator[tuple[str, Callable[[], None]]]:
        yield "facts", self._facts
        yield "bad records", self._bad_records
        yield "a re-alignment", self._realign
        yield "questions", self._questions
        yield "readings of drift", self._readings
        yield "too many questions", self._overload
        yield "a withdrawn fact that the adapter has learned", self._taint
        yield "an adapter taken back", self._roll_back
        yield "missing history", self._gap

    # -- steps ---------------------------------------------------------------------------------------------

    def _facts(self) -> None:
        """With aliases, and with owners that have a fact of their own, for questions over two."""
        facts = [
            {
                "id": f"quay-{number}",
                "subject": f"Quay {number}",
                "relation": "owner",
                "target": f"Owner {number}",
                "subject_aliases": [f"The {number}th Pier"],
            }
            for number in range(FACTS)
        ]
        seconds = [
            {"subject": f"Owner {number}", "relation": "home town", "target": f"Town {number}"}
            for number in range(FACTS)
        ]
        self._publisher.publish([*facts, *seconds, {**facts[0], "id": "long", "statement": _LONG}])
        _until(lambda: self._memory()["current_facts"] >= 2 * FACTS, "the facts")
        self._publishing.set()
        self._asking.set()

    def _bad_records(self) -> None:
        """Also invented positions, and records on the topics of the daemons."""
        self._publisher.send([Outgoing(b"bad", value) for value in _BAD * 3])
        header = original_position_header(Position("AAAAAAAAAAAAAAAAAAAAAA", 0, 7), 1)
        fact = json.dumps({"subject": "Quay 1", "relation": "owner", "target": "Nobody"}).encode()
        self._publisher.send([Outgoing(b"invented", fact, (header,))])
        with Publisher(PublisherSettings(self._bootstrap, "lte.adapters")) as other:
            other.send([Outgoing(b"x", b"no announcement")])

    def _questions(self) -> None:
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(self._ask_until_answered, range(QUESTIONS)))
        for verdict in ("good", "good", "bad"):
            self._client.report_feedback(verdict)

    def _realign(self) -> None:
        _until(lambda: "owner" not in self._blocks(), "ownership of the control topic")
        self._ended(self._client.trigger_realignment("a load run")["id"])

    def _readings(self) -> None:
        """Probes are asked when nobody else asks."""

        def present() -> set[str]:
            return {row["name"] for row in self._client.drift()["readings"]}

        self._asking.clear()
        _until(lambda: present() >= set(readings.NAMES), "every reading of drift")
        self._asking.set()

    def _overload(self) -> None:
        """Long enough for several scrapes to meet a queue."""
        until = time.monotonic() + _OVERLOAD_S
        with ThreadPoolExecutor(32) as pool:
            while time.monotonic() < until:
                list(pool.map(self._ask, range(64)))

    def _taint(self) -> None:
        self._publisher.publish([{"op": "retract", "id": f"quay-{number}"} for number in range(FACTS // 2)])
        _until(lambda: any(row["tainted"] for row in self._client.adapters()["adapters"]), "the taint")
        time.sleep(3.0)

    def _roll_back(self) -> None:
        self._client.rollback_adapter("a load run")

    def _gap(self) -> None:
        """The topic is made anew; an operator accepts, and events go on."""
        self._publishing.clear()
        self._publisher.close()
        admin = KafkaAdminClient(bootstrap_servers=self._bootstrap)
        try:
            admin.delete_topics([self._topic])
            _until(lambda: self._topic not in admin.list_topics(), "the end of the topic")
            ensure_topics(admin, plans(edits=self._topic)[:1])
        finally:
            admin.close()
        _until(lambda: self._client.status()["state"] == "GAP", "the gap")
        time.sleep(3.0)
        _until(self._accepted, "the gap to be accepted")
        _until(lambda: self._client.status()["state"] == "READY", "READY")
        self._publishing.set()
        time.sleep(5.0)

    # -- helpers -------------------------------------------------------------------------------------------

    def _publish_on(self) -> None:
        """Values that change, ten events a second."""
        while not self._over.is_set():
            if self._publishing.is_set():
                number = next(self._numbers)
                event = {
                    "subject": f"Berth {number % 150}",
                    "relation": f"harbour master {number % 7}",
                    "target": f"Master {number}",
                    "revision": 1 if number % 11 == 0 else number + 2,
                }
                with suppress(LteError):  # while the topic is made anew
                    self._publisher.publish([event] * (1 + (number % 13 == 0)))
            self._over.wait(0.1)

    def _ask_on(self) -> None:
        """A few questions a second, half of them about facts."""
        for number in itertools.count():
            if self._over.wait(0.3):
                return
            if self._asking.is_set():
                self._ask(number)
                self._ask_over_http(number)

    def _ask(self, number: int, tokens: int | None = None) -> bool:
        """Whether there was an answer; in the overload questions are refused."""
        about = f"What is the owner of Quay {number % FACTS}?"
        try:
            self._client.answer(
                about if number % 2 else f"What do {number} gulls weigh?", max_new_tokens=tokens
            )
        except LteError:
            return False
        return True

    def _ask_until_answered(self, number: int) -> None:
        """On a busy machine some are refused, and the reading of a shift counts answers."""
        _until(lambda: self._ask(number, tokens=1), "an answer")

    def _ask_over_http(self, number: int) -> None:
        chat = {"model": "lte", "messages": [{"role": "user", "content": f"Who owns Quay {number % FACTS}?"}]}
        headers = {"Content-Type": "application/json"}
        url = f"{self._http}/v1/chat/completions"
        request = urllib.request.Request(url, json.dumps(chat).encode(), headers)
        with suppress(OSError), urllib.request.urlopen(request, timeout=_GUARD_S):  # refused in the overload
            pass

    def _memory(self) -> Any:
        return self._client.status()["memory"]

    def _blocks(self) -> set[str]:
        return {block["name"] for block in self._client.drift()["blocks"]}

    def _ended(self, run_id: str) -> None:
        _until(lambda: self._client.realignment(run_id)["ended"], "the end of the re-alignment")

    def _accepted(self) -> bool:
        try:
            self._client.accept_gap()
        except LteError:
            return False  # brokers do not know the new topic yet
        return True


def _until(condition: Callable[[], Any], what: str) -> None:
    deadline = time.monotonic() + _GUARD_S
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {_GUARD_S:.0f} s for {what}")
        time.sleep(0.1)
