"""A daemon as a process with a topic of its own on the broker, and the ways to reach and disturb it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from kafka import KafkaProducer
from kafka.errors import KafkaError
from kafka_topic import KafkaTopic

from daemon.client import Client
from ops.kafka.broker import Broker
from ops.stack import Stack

# Against hanging only: on a quiet machine everything here takes a hundredth of it.
GUARD_S = 300.0
STUBS = {"LTE_ENCODER__MODEL": "stub", "LTE_MODEL__PATH": "stub", "LTE_KAFKA__REFRESH_S": "0.5"}
Json = dict[str, Any]
Read = dict[tuple[str, tuple[tuple[str, str], ...]], float]
_SAMPLE = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)$", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="([^"]*)"')


def until(condition: Callable[[], Any], what: str, guard_s: float = GUARD_S) -> Any:
    """Wait for a condition and return its value."""
    deadline = time.monotonic() + guard_s
    while not (found := condition()):
        assert time.monotonic() < deadline, f"waited {guard_s:.0f} s for: {what}"
        time.sleep(0.02)
    return found


class Ran(NamedTuple):
    """A finished command."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class House:
    """`settings` are environment variables of the daemon. Close it at the end."""

    def __init__(
        self, broker: Broker, directory: Path, *, topic: KafkaTopic | None = None, **settings: str
    ) -> None:
        self.topic = topic or KafkaTopic(broker.bootstrap, 3)
        self._own_topic = topic is None
        names = {
            "LTE_KAFKA__GROUP_ID": f"lte-{self.topic.topic}",
            # Thousands of edits are a reason to train again; here only who asks for it gets that.
            "LTE_REALIGN__AUTOMATIC": "false",
            "LTE_KAFKA__CONTROL_TOPIC": "off",
            "LTE_KAFKA__AUDIT_TOPIC": "off",
            # The broker is shared: one daemon's adapters are no business of another's.
            "LTE_KAFKA__ADAPTERS_TOPIC": "off",
        }
        self.settings = {**STUBS, **names, **settings}
        self.stack = Stack(directory, settings=self.settings, broker=broker, topic=self.topic.topic)
        self.stack.start_broker()
        self.client = Client(
            self.stack.addresses.socket, admin_address=self.stack.addresses.admin_socket, timeout_s=GUARD_S
        )
        self._producer: Any = None
        self._topic_id = ""

    @property
    def state_dir(self) -> Path:
        return self.stack.directory / "state"

    @property
    def log(self) -> str:
        return self.stack.daemon_log.read_text("utf-8", "replace")

    def start(self) -> House:
        self.stack.start_daemon()
        return self

    def close(self) -> None:
        self.client.close()
        self._close_producer()
        self.stack.close()
        if self._own_topic:
            self.topic.close()

    # -- facts in ------------------------------------------------------------------------------------------

    def send(self, records: Iterable[tuple[bytes | None, bytes | None]]) -> list[Json]:
        """Keys and values through a plain producer; returns their positions once acknowledged by all."""
        self._producer = self._producer or KafkaProducer(bootstrap_servers=self.topic.bootstrap, acks="all")
        futures = [self._producer.send(self.topic.topic, value, key=key) for key, value in records]
        done = [future.get(60) for future in futures]
        name = self.topic_id
        return [{"topic_id": name, "partition": each.partition, "offset": each.offset} for each in done]

    def publish(self, events: Sequence[Mapping[str, Any]]) -> list[Json]:
        """Events as plain JSON, one key in one partition."""
        key = [f"{event.get('subject')}/{event.get('relation')}".encode() for event in events]
        return self.send(zip(key, (json.dumps(event).encode() for event in events), strict=True))

    def _close_producer(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.close()

    @property
    def topic_id(self) -> str:
        self._topic_id = self._topic_id or until(self._found_topic_id, "the topic's id")
        return self._topic_id

    def _found_topic_id(self) -> str:
        try:
            return self.topic.topic_id
        except KafkaError:  # a broker that has just come back
            return ""

    def topic_is_new(self) -> None:
        """The topic was made anew: forget what is known of it."""
        self._topic_id = ""
        self._close_producer()

    # -- what the daemon says ------------------------------------------------------------------------------

    def ask(self, question: str, at_least: Sequence[Json] = (), **more: Any) -> Json:
        return self.client.answer(question, at_least=at_least, **more)

    def status(self) -> Json:
        return self.client.status()

    def lag(self) -> int:
        return sum(each["lag"] for each in self.status()["ingest"]["partitions"])

    def pages(self, call: Callable[..., Json], name: str) -> Iterator[Json]:
        """All items of a paged call."""
        token = ""
        while True:
            page = call(page_size=1000, page_token=token)
            yield from page[name]
            token = page["next_page_token"]
            if not token:
                return

    def metrics(self) -> Read:
        """Samples by name and sorted labels; empty while nobody listens."""
        try:
            with urllib.request.urlopen(f"http://{self.stack.addresses.metrics}/metrics", timeout=10) as page:
                text = page.read().decode()
        except OSError:
            return {}
        found = _SAMPLE.finditer(text)
        return {(m[1], tuple(sorted(_LABEL.findall(m[2] or "")))): float(m[3]) for m in found}

    def lte(self, *arguments: str, stdin: str = "", **environment: str) -> Ran:
        """`lte` as a person would call it, told of this daemon by the environment."""
        places = self.stack.addresses
        told = {
            "LTE_RPC__SOCKET": places.socket,
            "LTE_RPC__ADMIN_SOCKET": places.admin_socket,
            "LTE_KAFKA__BOOTSTRAP": places.kafka,
            "LTE_KAFKA__TOPIC": places.topic,
        }
        return run_lte(*arguments, stdin=stdin, **{**told, **environment})


def run_lte(*arguments: str, stdin: str = "", **environment: str) -> Ran:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("LTE_")}
    done = subprocess.run(
        [sys.executable, "-m", "daemon", *arguments],
        env={**kept, **environment},
        input=stdin,
        capture_output=True,
        text=True,
        timeout=GUARD_S,
        check=False,
    )
    return Ran(done.returncode, done.stdout, done.stderr)


def fact(subject: str, target: str, relation: str = "owner", **more: Any) -> Json:
    return {"subject": subject, "relation": relation, "target": target, **more}


def question(subject: str, relation: str = "owner") -> str:
    return f"What is the {relation} of {subject}?"


def targets(answer: Json) -> list[str]:
    return [each["target"] for each in answer["citations"]]
