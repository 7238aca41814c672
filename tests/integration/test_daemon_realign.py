"""Re-alignment in the whole daemon: by hand, by drift, on the control topic; kills in training."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from daemon_house import House, fact, question, until
from kafka import KafkaConsumer
from kafka_topic import KafkaTopic

from lte_runtime.errors import Refused
from ops.kafka.broker import Broker

# Facts may be trained on at once; everything else is as shipped.
QUICK = {
    "LTE_REALIGN__MIN_FACT_AGE_S": "0",
    "LTE_REALIGN__KILL_AFTER_S": "0.5",
    "LTE_DRIFT__LOOK_S": "0.2",
}
FACTS = 80


@pytest.fixture
def topics(broker: Broker) -> Iterator[dict[str, str]]:
    """A control and an audit topic of this test, as settings."""
    made = [KafkaTopic(broker.bootstrap, 1), KafkaTopic(broker.bootstrap, 1)]
    yield {
        "LTE_KAFKA__CONTROL_TOPIC": made[0].topic,
        "LTE_KAFKA__AUDIT_TOPIC": made[1].topic,
        "LTE_KAFKA__CONTROL_SESSION_S": "6",
    }
    for topic in made:
        topic.close()


def told(house: House) -> House:
    house.publish([fact(f"Quay {number}", f"Owner {number}") for number in range(FACTS)])
    until(lambda: house.status()["memory"]["current_facts"] == FACTS, "the facts")
    return house


def ended(house: House, run_id: str) -> Any:
    def run() -> Any:
        found = house.client.realignment(run_id)
        return found if found["ended"] else None

    return until(run, "the end of the run")


def child_of(house: House, run_id: str = "run-*") -> int:
    """The pid of the job under way."""

    def pid() -> int:
        for path in house.state_dir.glob(f"realign/{run_id}/child.json"):
            if (path.parent / "progress.json").exists():
                return int(json.loads(path.read_text())["pid"])
        return 0

    return int(until(pid, "a job under way"))


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_by_hand_from_trigger_to_the_served_adapter(
    make_house: Callable[..., House], topics: dict[str, str]
) -> None:
    house = told(make_house(**QUICK, **topics).start())
    before = house.ask(question("Quay 1"))["adapter"]["id"]
    until(lambda: "owner" not in {b["name"] for b in house.client.drift()["blocks"]}, "ownership")
    shown = house.lte("realign", "--wait", "--json", "--reason", "a trial")
    assert shown.code == 0, shown.err
    run = shown.json
    assert (run["state"], run["reasons"], run["verdict"]["outcome"]) == ("done", ["a trial"], "promote")
    answer = house.ask(question("Quay 1"))
    assert answer["text"] == "Owner 1"
    assert answer["adapter"] == {"id": run["adapter"], "sha256": run["adapter_sha256"]}
    assert run["adapter"] != before
    listed = house.lte("realign", "list").out.splitlines()
    assert listed[1].startswith(f"{run['id']}\t")
    assert house.client.drift()["new_edits"] == 0
    assert house.metrics()["lte_realign_runs_total", (("state", "done"), ("trigger", "operator"))] == 1
    reader = KafkaConsumer(
        topics["LTE_KAFKA__AUDIT_TOPIC"],
        bootstrap_servers=house.topic.bootstrap,
        auto_offset_reset="earliest",
        consumer_timeout_ms=5000,
    )
    kinds = [json.loads(record.value)["kind"] for record in reader]
    reader.close()
    assert kinds.count("verdict") == 1
    assert kinds.count("realign") >= 5


def test_an_erased_fact_stands_in_no_file_of_the_state_directory(
    make_house: Callable[..., House], topics: dict[str, str]
) -> None:
    """It was learned from, it was refused once in another form, and a job that reads it is at work."""
    house = told(make_house(**QUICK, **topics, LTE_REALIGN__PRESET="stub:promote").start())
    canary = {"subject": "Zanzibarrow Quay", "relation": "owner", "target": "Quixenholt Thrumm"}
    statement = "Zanzibarrow Quay belongs to Quixenholt Thrumm of Old Wexcombe."
    house.ask(question("Zanzibarrow Quay"), house.publish([{**canary, "statement": statement}]))
    house.topic.append(json.dumps({**canary, "target": ["Quixenholt Thrumm"]}).encode())
    until(lambda: house.client.drift() and "owner" not in blocks(house), "ownership")
    run = house.lte("realign", "--wait", "--json", "--reason", "a trial").json
    assert run["state"] == "done"
    house.client.take_snapshot()
    words = (b"zanzibarrow", b"quixenholt", b"wexcombe")
    assert any("realign" in str(path) for path in holding(house.state_dir, words))
    receipt = house.lte("erase", "-s", "Zanzibarrow Quay", "-r", "owner", "--yes", "--json")
    assert receipt.code == 0, receipt.err
    assert (receipt.json["edits"], receipt.json["quarantined"]) == (1, 1)
    assert any(name.startswith("realign/run-") for name in receipt.json["files"])
    assert holding(house.state_dir, words) == []
    house.stack.stop_daemon()
    assert holding(house.state_dir, words) == []


def blocks(house: House) -> set[str]:
    return {block["name"] for block in house.client.drift()["blocks"]}


def holding(directory: Path, words: Sequence[bytes]) -> list[Path]:
    """Files below a directory that hold one of the words, in whatever case."""
    files = (path for path in directory.rglob("*") if path.is_file())
    return [path for path in files if any(word in path.read_bytes().lower() for word in words)]


def test_by_drift_with_its_reason(make_house: Callable[..., House]) -> None:
    more = {"LTE_REALIGN__AUTOMATIC": "true", "LTE_REALIGN__MIN_NEW_EDITS": "1"}
    house = told(make_house(**QUICK, **more).start())
    for _ in range(64):
        house.client.report_feedback("bad")
    run = until(lambda: next(iter(house.client.realignments()), None), "a run by drift")
    assert run["trigger"] == "drift"
    assert run["reasons"][0].startswith("negative_feedback")
    assert ended(house, run["id"])["state"] == "done"
    reply = house.client.drift()
    assert not reply["would_start"]
    assert "cool_down" in {block["name"] for block in reply["blocks"]}


def test_a_daemon_killed_in_training_leaves_no_orphan_and_a_failed_run(
    make_house: Callable[..., House],
) -> None:
    house = told(make_house(**QUICK, LTE_REALIGN__PRESET="stub:deaf").start())
    run_id = house.client.trigger_realignment("a trial")["id"]
    child = child_of(house)
    assert house.ask(question("Quay 2"))["text"] == "Owner 2", "answers go on"
    house.stack.kill_daemon()
    until(lambda: not alive(child), "the end of the child")
    house.start()
    run = house.client.realignment(run_id)
    assert run["state"] == "failed"
    assert "the daemon ended while training" in run["message"]
    assert house.ask(question("Quay 2"))["text"] == "Owner 2"
    cancelled = house.client.trigger_realignment("to be cancelled")["id"]
    child = child_of(house, cancelled)
    assert house.lte("realign", "cancel", cancelled).code == 0
    assert ended(house, cancelled)["state"] == "cancelled"
    assert not alive(child)
    # A stop in training ends within its grace, and the run is cancelled.
    second = house.client.trigger_realignment("again")["id"]
    child = child_of(house, second)
    house.stack.stop_daemon()
    assert not alive(child)
    house.start()
    assert house.client.realignment(second)["state"] == "cancelled"


def test_of_three_daemons_the_owner_realigns_and_another_one_after_it(
    make_house: Callable[..., House], topics: dict[str, str], tmp_path: Path
) -> None:
    shared = {**QUICK, **topics, "LTE_REALIGN__PRESET": "stub:slow", "LTE_KAFKA__GROUP_ID": "three"}
    first = make_house(directory=tmp_path / "a", **shared)
    others = [make_house(directory=tmp_path / name, topic=first.topic, **shared) for name in ("b", "c")]
    houses = [first, *others]
    told(first.start())
    for house in others:
        house.start()

    def owner() -> House | None:
        """The one without the block of those that do not own."""
        running = [house for house in houses if house.stack.daemon_exit() is None]
        free = [h for h in running if "owner" not in {b["name"] for b in h.client.drift()["blocks"]}]
        return free[0] if len(free) == 1 else None

    def begun() -> tuple[House, dict[str, Any]] | None:
        one = owner()
        try:
            return (one, one.client.trigger_realignment("a trial")) if one else None
        except Refused:
            return None  # The partition went to one that joined later.

    one, run = until(begun, "a run of the owner")
    child = child_of(one)
    one.stack.kill_daemon()
    houses.remove(one)
    until(lambda: not alive(child), "the end of the child")
    heir = until(owner, "an heir")
    (loser,) = (house for house in houses if house is not heir)
    refused = loser.lte("realign")
    assert refused.code == 5
    assert "another daemon owns" in refused.err
    asked = heir.lte(
        "realign",
        "--by-topic",
        "--json",
        "--reason",
        "what the dead one began",
        LTE_KAFKA__CONTROL_TOPIC=topics["LTE_KAFKA__CONTROL_TOPIC"],
        LTE_KAFKA__GROUP_ID="three",
    )
    assert asked.code == 0, asked.err
    second = until(lambda: next(iter(heir.client.realignments()), None), "the run that was asked for")
    assert (second["trigger"], second["reasons"]) == ("control", ["what the dead one began"])
    assert second["epoch"] > run["epoch"]
    job = heir.state_dir / "realign" / second["id"]
    until(job.exists, "the job")
    (job / "go").touch()
    assert ended(heir, second["id"])["state"] == "done"
