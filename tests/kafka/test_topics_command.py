"""`lte topics create` on the development broker."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from kafka import KafkaAdminClient

from daemon.cli import exits
from daemon.cli.app import app
from daemon.kafka.topics import topic_configs
from ops.kafka.broker import Broker

pytestmark = pytest.mark.kafka


@pytest.fixture
def admin(broker: Broker) -> Iterator[Any]:
    client = KafkaAdminClient(bootstrap_servers=broker.bootstrap)
    yield client
    client.close()


def run(*arguments: str) -> int:
    try:
        return exits.guarded(lambda: app(args=["topics", "create", *arguments], prog_name="lte"))
    except SystemExit as end:
        return int(end.code or 0)


@pytest.fixture
def edits(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> str:
    """Names of its own for every topic; there is no audit topic."""
    name = f"topics-{uuid.uuid4().hex[:8]}"
    monkeypatch.setenv("LTE_KAFKA__BOOTSTRAP", broker.bootstrap)
    for field in ("TOPIC", "DLQ_TOPIC", "CONTROL_TOPIC", "ADAPTERS_TOPIC"):
        monkeypatch.setenv(f"LTE_KAFKA__{field}", f"{name}.{field.lower()}")
    monkeypatch.setenv("LTE_KAFKA__AUDIT_TOPIC", "off")
    return name


def test_missing_topics_are_made_once(edits: str, admin: Any, capsys: pytest.CaptureFixture[str]) -> None:
    names = {f"{edits}.{field}" for field in ("topic", "dlq_topic", "control_topic", "adapters_topic")}
    assert run("--partitions", "2", "--json") == exits.OK
    first = json.loads(capsys.readouterr().out)
    assert (set(first["created"]), first["existing"]) == (names, [])
    partitions = {topic["name"]: len(topic["partitions"]) for topic in admin.describe_topics(list(names))}
    assert partitions == {name: 2 if name.endswith(".topic") else 1 for name in names}
    assert topic_configs(admin, f"{edits}.topic")["message.timestamp.type"] == "LogAppendTime"
    assert topic_configs(admin, f"{edits}.adapters_topic")["cleanup.policy"] == "compact"
    assert run("--json") == exits.OK
    assert set(json.loads(capsys.readouterr().out)["existing"]) == names


@pytest.mark.usefixtures("edits")
def test_a_refusal_of_the_brokers_says_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--replication", "3") == exits.REFUSED
    assert "do not create a topic" in capsys.readouterr().err
    assert run("--replication", "0") == exits.USAGE
