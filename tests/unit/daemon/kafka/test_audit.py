"""The audit writes in order, waits for a broker, and is never in anybody's way."""

from __future__ import annotations

import json
import threading
import time
from typing import Any

from daemon.kafka.audit import Audit, AuditSettings
from lte_runtime.errors import Retry

GUARD_S = 30.0


class Sender:
    """A producer whose broker is away for the first `away` tries."""

    def __init__(self, away: int = 0) -> None:
        self.away, self.sent = away, list[dict[str, Any]]()

    def open(self, _: AuditSettings) -> Sender:
        if self.away:
            self.away -= 1
            raise Retry("no broker")
        return self

    def send(self, _topic: str, value: bytes, partition: int) -> Sender:
        assert partition == 0
        self.sent.append(json.loads(value))
        return self

    def get(self, timeout: float) -> None: ...

    def close(self, timeout: float) -> None: ...


def running(audit: Audit) -> threading.Thread:
    thread = threading.Thread(target=audit.run, daemon=True)
    thread.start()
    return thread


def test_records_are_sent_in_order_once_a_broker_is_there() -> None:
    sender = Sender(away=2)
    audit = Audit(AuditSettings("nowhere:1", instance="me", retry_s=0.01), sender.open)
    thread = running(audit)
    for number in range(3):
        audit.write("verdict", {"run": number})
    deadline = time.monotonic() + GUARD_S
    while len(sender.sent) < 3:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    audit.stop()
    thread.join(GUARD_S)
    assert [each["run"] for each in sender.sent] == [0, 1, 2]
    assert {(each["kind"], each["instance"]) for each in sender.sent} == {("verdict", "me")}


def test_the_oldest_are_dropped_where_no_broker_comes() -> None:
    audit = Audit(AuditSettings("nowhere:1", limit=2), Sender(away=10**9).open)
    for number in range(5):
        audit.write("realign", {"run": number})
    assert audit.dropped == 3


def test_a_stop_sends_what_waits() -> None:
    sender = Sender()
    audit = Audit(AuditSettings("nowhere:1"), sender.open)
    audit.write("realign", {"run": 1})
    audit.stop()
    running(audit).join(GUARD_S)
    assert [each["run"] for each in sender.sent] == [1]
