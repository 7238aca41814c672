"""What the steps of the demo share: the stack, a client, the facts, and the rows of the final table."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kafka import KafkaConsumer

from daemon.client import Client
from daemon.kafka.publisher import Outgoing, Publisher, PublisherSettings
from lte_runtime.errors import DeadlineExceeded
from lte_runtime.scoring import contains, matches
from lte_runtime.types import Position
from ops.stack import Stack

HERE = Path(__file__).parent
Json = dict[str, Any]
WAIT_S = 60.0
DEAD_LETTERS = "lte.edits.dlq"
ERRORS = "__connect.errors."


@dataclass(frozen=True)
class TableRow:
    """One line of the table: what was asked, what came back, and whether that was promised."""

    step: str
    question: str
    answer: str
    citation: str
    scope: str
    adapter: str
    milliseconds: float
    ok: bool
    citation_ids: tuple[str, ...] = ()


@dataclass
class Session:
    """Everything a step needs. `show` prints a line for the person who watches."""

    stack: Stack
    client: Client
    publisher: Publisher
    events: Mapping[str, Json]
    script: Json
    show: Callable[[str], None]
    fast: bool = False
    rows: list[TableRow] = field(default_factory=list)
    published: set[str] = field(default_factory=set)

    @classmethod
    def open(cls, stack: Stack, show: Callable[[str], None], *, fast: bool) -> Session:
        """Connect to a stack that is up, with the facts and the script that lie beside this file."""
        lines = (HERE / "events.jsonl").read_text(encoding="utf-8").splitlines()
        events = {event["id"]: event for event in map(json.loads, lines)}
        script = json.loads((HERE / "script.json").read_text(encoding="utf-8"))
        at = stack.addresses
        publisher = Publisher(PublisherSettings(at.kafka, at.topic))
        return cls(stack, connect(stack), publisher, events, script, show, fast)

    def close(self) -> None:
        self.client.close()
        self.publisher.close()

    def publish(self, *ids: str) -> list[Position]:
        """Publish events of the file by id, once each."""
        fresh = [name for name in ids if name not in self.published]
        self.published.update(fresh)
        return self.publisher.publish([self.events[name] for name in fresh])

    def send(self, event: Json | str) -> list[Position]:
        """Publish an event of the script, or raw text as it is."""
        if isinstance(event, str):
            return self.publisher.send([Outgoing(None, event.encode())])
        return self.publisher.publish([event])

    def ask(
        self, question: str, *, scope: str = "auto", at_least: Sequence[Position] = ()
    ) -> tuple[Json, float]:
        """The answer and the milliseconds that the caller waited."""
        begin = time.perf_counter()
        answer = self.client.answer(question, scope=scope, at_least=marks(at_least))
        return answer, (time.perf_counter() - begin) * 1e3

    def dead_letters(self) -> list[Json]:
        """The error headers of every record in the dead-letter topic."""
        consumer = KafkaConsumer(
            DEAD_LETTERS,
            bootstrap_servers=self.stack.addresses.kafka,
            auto_offset_reset="earliest",
            consumer_timeout_ms=500,
        )
        try:
            return [
                {name: value.decode() for name, value in letter.headers if name.startswith(ERRORS)}
                for letter in consumer
            ]
        finally:
            consumer.close()

    def check(self, step: str, question: str, answer: Json, ms: float, ok: bool) -> bool:
        """Note one answer in the table; returns `ok`."""
        adapter = answer["adapter"]["id"] if answer["adapter"] else "-"
        texts = (answer["text"], cited(answer), answer["scope"])
        row = TableRow(step, question, *texts, adapter, ms, ok, tuple(citation_ids(answer)))
        self.rows.append(row)
        return ok

    def expect(
        self,
        step: str,
        question: str,
        expected: Sequence[str],
        edit_ids: Sequence[str],
        at_least: Sequence[Position] = (),
    ) -> bool:
        """Ask, and hold the text against `expected` and the citations against `edit_ids`."""
        answer, ms = self.ask(question, at_least=at_least)
        right = is_right(answer, expected) and set(edit_ids) <= set(citation_ids(answer))
        return self.check(step, question, answer, ms, right)


def is_right(answer: Json, expected: Sequence[str]) -> bool:
    """An aligned adapter answers with the value and nothing else; a base model may say it in a sentence."""
    return (matches if answer["adapter"] else contains)(answer["text"], expected)


def marks(positions: Sequence[Position]) -> list[Json]:
    """Positions as the client takes them."""
    return [
        {"topic_id": position.topic_id, "partition": position.partition, "offset": position.offset}
        for position in positions
    ]


def connect(stack: Stack) -> Client:
    at = stack.addresses
    return Client(f"unix:{at.socket}", admin_address=f"unix:{at.admin_socket}")


def citation_ids(answer: Json) -> list[str]:
    return [citation["edit_id"] for citation in answer["citations"]]


def cited(answer: Json) -> str:
    """The citations in short: ids, with their hop where there are several."""
    if len(answer["citations"]) == 1:
        return str(answer["citations"][0]["edit_id"])
    return ", ".join(f"{c['hop']}: {c['edit_id']}" for c in answer["citations"]) or "-"


def until(condition: Callable[[], bool], what: str, seconds: float = WAIT_S) -> float:
    """Try without a pause until it is so; returns the milliseconds that it took."""
    begin = time.perf_counter()
    while not condition():
        if time.perf_counter() - begin > seconds:
            raise DeadlineExceeded(f"{what}: not within {seconds:.0f} s")
    return (time.perf_counter() - begin) * 1e3
