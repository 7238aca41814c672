"""Adapters in the whole daemon, on a real broker: a small model swaps, and replicas follow."""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from daemon_house import House, fact, question, until
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer
from real_parts import QWEN2_ADAPTER, QWEN2_SETTINGS
from stub_adapters import save_adapter

from daemon.kafka.topics import ensure_topics, plans
from lte_runtime.errors import Refused, Retry
from ops.kafka.broker import Broker

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.timeout(1200)]

WEIGHTS, CONFIG, MANIFEST = "adapter_model.safetensors", "adapter_config.json", "manifest.json"


def softened(place: Path) -> Path:
    """Its adapter at half its strength: other weights, under a name of its own."""
    shutil.copytree(QWEN2_ADAPTER, place)
    config = json.loads((place / CONFIG).read_text())
    (place / CONFIG).write_text(json.dumps({**config, "lora_alpha": config["lora_alpha"] / 2}))
    manifest = json.loads((place / MANIFEST).read_text())
    files = {name: hashlib.sha256((place / name).read_bytes()).hexdigest() for name in (CONFIG, WEIGHTS)}
    about = {**manifest, "id": "align-000002", "files": files, "edit_ids": ["harbour"]}
    (place / MANIFEST).write_text(json.dumps(about))
    return place


@pytest.mark.model
def test_a_model_changes_its_adapter_and_goes_back(make_house: Callable[..., House], tmp_path: Path) -> None:
    house = make_house(**QWEN2_SETTINGS, LTE_REGISTRY__TAINT_INTERVAL_S="0.5").start()
    at = house.publish([{**fact("Port Arlen", "Ines Calder"), "id": "harbour"}])

    def adapter() -> Any:
        answer = house.ask(question("Port Arlen"), at)
        assert answer["scope"] == "edited"
        return answer["adapter"]["id"]

    assert adapter() == "align-000001"
    base = house.ask("What is the capital of France?", scope="base")["token_ids"]
    assert house.lte("adapters", "add", str(softened(tmp_path / "made")), "--note", "half").code == 0
    over, told, faults = threading.Event(), list[str](), list[BaseException]()

    def ask() -> None:
        try:
            while not over.is_set():
                told.append(adapter())
        except BaseException as error:  # noqa: BLE001 - told to the test
            faults.append(error)

    asking = [threading.Thread(target=ask) for _ in range(2)]
    for thread in asking:
        thread.start()
    moved = house.lte("adapters", "activate", "align-000002", "--reason", "trial", "--json")
    assert moved.code == 0, moved.err
    assert moved.json["adapter"] == "align-000002"
    assert adapter() == "align-000002"
    over.set()
    for thread in asking:
        thread.join()
    assert faults == []
    assert set(told) <= {"align-000001", "align-000002"}
    assert house.ask("What is the capital of France?", scope="base")["token_ids"] == base
    assert house.metrics()["lte_adapter_swaps_total", (("outcome", "done"),)] == 1
    check_shown(house)
    house.stack.kill_daemon()
    house.start()
    assert adapter() == "align-000002"
    assert house.lte("adapters", "rollback").code == 0
    assert adapter() == "align-000001"
    assert house.lte("adapters", "rollback").code == 5


def check_shown(house: House) -> None:
    """What people see of it; and that a retraction taints what was trained on the fact."""
    listed = house.lte("adapters", "list").out.splitlines()
    assert [line.split("\t")[0] for line in listed] == ["id", "align-000001", "align-000002"]
    assert listed[2].endswith("half\tserving")
    house.publish([{"op": "retract", "id": "r1", "retracts": "harbour"}])
    shown = until(lambda: tainted(house), "the taint")
    assert [(each["edit_id"], each["why"]) for each in shown["tainted"]] == [("harbour", "retracted")]
    assert shown["verdict"] == {"by": "operator", "note": "half"}
    assert "taint" in {reason["kind"] for reason in house.client.drift()["reasons"]}
    house.publish([{**fact("Port Arlen", "Ines Calder"), "id": "harbour-2", "revision": 2}])
    assert house.lte("adapters", "verify").out.splitlines() == ["id\tfound", "align-000002\tsound"]


def tainted(house: House) -> Any:
    shown = house.lte("adapters", "show", "align-000002", "--json").json
    return shown if shown["tainted"] else None


def replicas(make_house: Callable[..., House], broker: Broker, tmp_path: Path) -> list[House]:
    """Two daemons on topics of their own, three adapters in the registry that they share."""
    edits = make_house().topic
    adapters, control = f"{edits.topic}.adapters", f"{edits.topic}.control"
    admin = KafkaAdminClient(bootstrap_servers=broker.bootstrap)
    wanted = plans(adapters=adapters, control=control)
    ensure_topics(admin, [plan for plan in wanted if plan.name in (adapters, control)])
    admin.close()
    shared = {
        "LTE_REGISTRY__PATH": str(tmp_path / "shared"),
        "LTE_KAFKA__ADAPTERS_TOPIC": adapters,
        "LTE_KAFKA__CONTROL_TOPIC": control,
        "LTE_KAFKA__CONTROL_SESSION_S": "6",
    }
    houses = [make_house(topic=edits, **shared).start() for _ in range(2)]
    for number in (2, 3, 4):
        houses[0].client.add_adapter(save_adapter(tmp_path / f"made-{number}", number))
    return houses


def test_replicas_follow_and_a_restart_remembers(
    make_house: Callable[..., House], broker: Broker, tmp_path: Path
) -> None:
    houses = replicas(make_house, broker, tmp_path)

    def serving() -> list[str]:
        return [house.client.adapters()["serving"]["id"] for house in houses]

    one = moved(houses, "align-000002")
    (other,) = (house for house in houses if house is not one)
    until(lambda: serving() == ["align-000002"] * 2, "both on the new adapter")
    assert other.client.adapters()["active"]["reason"] == "announced: promoted"
    other.stack.kill_daemon()
    moved([one], "align-000003")
    other.start()
    until(lambda: serving() == ["align-000003"] * 2, "the restarted one follows")
    epoch = one.client.adapters()["epoch"]
    one.stack.kill_daemon()
    moved([other], "align-000004")
    assert other.client.adapters()["epoch"] > epoch
    one.start()
    until(lambda: serving() == ["align-000004"] * 2, "the owner of before follows")


def test_bad_records_on_the_adapters_topic_stop_nobody_and_are_not_followed(
    make_house: Callable[..., House], broker: Broker, tmp_path: Path
) -> None:
    """Among them an epoch that no column holds, and one that no claim will ever reach."""
    houses = replicas(make_house, broker, tmp_path)
    one = moved(houses, "align-000002")
    (other,) = (house for house in houses if house is not one)
    until(lambda: serving_id(other) == "align-000002", "the replica")
    topic = other.settings["LTE_KAFKA__ADAPTERS_TOPIC"]
    last = announced(other, topic)
    bad = {
        "2^70": {**last, "epoch": 2**70},
        "2^62": {**last, "epoch": 2**62},
        "true": {**last, "epoch": True},
    }
    values = [json.dumps({**word, "adapter": "none", "sha256": ""}).encode() for word in bad.values()]
    send(broker, topic, last["base_fingerprint"], [*values, b"\xff", b"[" * 100_000])
    for house in houses:
        until(lambda each=house: passed_over(each, topic) == 5, "the bad records, counted")
    other.stack.kill_daemon()
    other.start()
    assert serving_id(other) == "align-000002"
    moved([one], "align-000003")
    until(lambda: serving_id(other) == "align-000003", "the restarted one follows")
    assert one.client.adapters()["epoch"] < 2**32
    assert f"{topic}, partition 0, offset 2: epoch {2**62} is above" in one.log


def serving_id(house: House) -> str:
    return str(house.client.adapters()["serving"]["id"])


def announced(house: House, topic: str) -> Any:
    reader = KafkaConsumer(
        topic,
        bootstrap_servers=house.topic.bootstrap,
        auto_offset_reset="earliest",
        consumer_timeout_ms=5000,
    )
    words = [json.loads(record.value) for record in reader]
    reader.close()
    return words[-1]


def send(broker: Broker, topic: str, key: str, values: Sequence[bytes]) -> None:
    producer = KafkaProducer(bootstrap_servers=broker.bootstrap, acks="all")
    for value in values:
        producer.send(topic, value, key=key.encode(), partition=0).get(60)
    producer.close()


def passed_over(house: House, topic: str) -> float:
    name = "lte_topic_records_passed_over_total"
    return sum(
        value
        for (metric, labels), value in house.metrics().items()
        if metric == name and ("topic", topic) in labels
    )


def moved(houses: Sequence[House], adapter_id: str) -> House:
    """Whoever of them owns the control topic, sooner or later, activates an adapter."""
    found: House = until(
        lambda: next((house for house in houses if activates(house, adapter_id)), None), "an owner"
    )
    return found


def activates(house: House, adapter_id: str) -> bool:
    """Whether this daemon may; the owner of the control topic alone does."""
    try:
        house.client.activate_adapter(adapter_id, "promoted")
    except (Refused, Retry):
        return False
    return True
