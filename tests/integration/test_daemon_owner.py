"""Several daemons on one Kafka: one writes the dead letters, and one that was stopped and wakes is fenced."""

from __future__ import annotations

import os
import shutil
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from daemon_house import House, fact, question, until
from kafka import KafkaConsumer
from kafka_topic import KafkaTopic

from ops.kafka.broker import Broker

FACTS = 80
SESSION_S = 6


@pytest.fixture
def shared(broker: Broker) -> Iterator[dict[str, str]]:
    """Topics and settings that the daemons of a test have in common."""
    control, adapters = KafkaTopic(broker.bootstrap, 1), KafkaTopic(broker.bootstrap, 1)
    yield {
        "LTE_KAFKA__CONTROL_TOPIC": control.topic,
        "LTE_KAFKA__ADAPTERS_TOPIC": adapters.topic,
        "LTE_KAFKA__CONTROL_SESSION_S": str(SESSION_S),
        "LTE_KAFKA__GROUP_ID": control.topic,
        "LTE_REALIGN__MIN_FACT_AGE_S": "0",
        "LTE_REALIGN__PRESET": "stub:slow",
    }
    control.close()
    adapters.close()


def owns(house: House) -> bool:
    return "owner" not in {block["name"] for block in house.client.drift()["blocks"]}


def pair(make_house: Callable[..., House], shared: dict[str, str], directory: Path) -> tuple[House, House]:
    """The owner and another one, both READY. The second one's joining shares the group out anew."""
    one = make_house(directory=directory / "a", **shared).start()
    other = make_house(directory=directory / "b", topic=one.topic, **shared).start()
    group = f"{shared['LTE_KAFKA__GROUP_ID']}.control"
    until(lambda: settled(one.topic.admin.describe_groups([group])[group], members=2), "both in the group")
    until(lambda: owns(one) != owns(other), "one owner")
    return (one, other) if owns(one) else (other, one)


def settled(group: dict[str, Any], members: int) -> bool:
    return group["group_state"] == "Stable" and len(group["members"]) == members


def letters(house: House) -> list[tuple[int, int]]:
    """Partition and offset of the record of every dead letter, in the order of the topic."""
    reader = KafkaConsumer(
        f"{house.topic.topic}.dlq",
        bootstrap_servers=house.topic.bootstrap,
        auto_offset_reset="earliest",
        consumer_timeout_ms=2000,
    )
    found = [dict(record.headers)["lte-original-position"].decode().split("/") for record in reader]
    reader.close()
    return [(int(partition), int(offset)) for _, partition, offset, _ in found]


def pending(house: House) -> float:
    return house.metrics().get(("lte_dead_letters_pending", ()), -1.0)


def bad(house: House, count: int) -> set[tuple[int, int]]:
    sent = house.send((None, b"no event %d" % number) for number in range(count))
    return {(each["partition"], each["offset"]) for each in sent}


@contextmanager
def asleep(house: House) -> Iterator[None]:
    """The daemon's process stopped, and woken again at the end."""
    pid = house.stack.daemon_pid
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def test_each_dead_letter_is_written_once_by_the_owner_and_by_its_heir(
    make_house: Callable[..., House], shared: dict[str, str], tmp_path: Path
) -> None:
    one, other = pair(make_house, shared, tmp_path)
    first = bad(one, 40)
    until(lambda: pending(one) == 0 and pending(other) == 0, "the owner's letters, seen by both")
    assert Counter(letters(one)) == Counter(first)
    one.stack.kill_daemon()
    second = bad(one, 40)
    until(lambda: owns(other), "an heir")
    until(lambda: pending(other) == 0, "the heir's letters")
    assert Counter(letters(one)) == Counter(first | second)
    one.start()
    until(lambda: pending(one) == 0, "the old owner knows what the heir sent")
    assert Counter(letters(one)) == Counter(first | second)


def test_an_owner_that_slept_through_its_successor_promotes_and_writes_nothing(
    make_house: Callable[..., House], shared: dict[str, str], tmp_path: Path
) -> None:
    zombie, heir = pair(make_house, shared, tmp_path)
    zombie.publish([fact(f"Quay {number}", f"Owner {number}") for number in range(FACTS)])
    for house in (zombie, heir):
        until(lambda each=house: each.status()["memory"]["current_facts"] == FACTS, "the facts")
    old = zombie.client.trigger_realignment("before it slept")
    job = zombie.state_dir / "realign" / old["id"]
    until(lambda: (job / "progress.json").exists(), "a job under way")
    with asleep(zombie):
        # Its training ends well while it sleeps: all that is left to do is to promote.
        (job / "go").touch()
        until(lambda: (job / "result.json").exists(), "the result of the job")
        until(lambda: owns(heir), "an heir")
        first = heir.client.trigger_realignment("what the sleeper cannot do")
        assert first["epoch"] > old["epoch"]
        job_of_heir = heir.state_dir / "realign" / first["id"]
        until(job_of_heir.exists, "the heir's job")
        (job_of_heir / "go").touch()
        done = until(lambda: ended(heir, first["id"]), "the heir's run")
        assert done["state"] == "done"
        refused = bad(heir, 20)
        until(lambda: pending(heir) == 0, "the heir's letters")
    woken = until(lambda: ended(zombie, old["id"]), "the sleeper's run")
    assert woken["state"] == "failed"
    assert "another daemon owns" in woken["message"]
    assert not zombie.client.adapters()["history"]
    assert [each["origin"] for each in zombie.client.adapters()["adapters"]] == ["configured"]
    until(lambda: pending(zombie) == 0, "what the heir sent, seen by the sleeper")
    assert Counter(letters(heir)) == Counter(refused)
    # Joining again it makes the group share out anew: either may own the partition then, but only one.
    until(lambda: owns(zombie) != owns(heir), "one owner")


def test_a_replica_brings_what_the_owner_made_from_the_store(
    make_house: Callable[..., House], shared: dict[str, str], tmp_path: Path
) -> None:
    shared |= {"LTE_REGISTRY__URL": f"file://{tmp_path}/store", "LTE_REALIGN__PRESET": "stub"}
    one, other = pair(make_house, shared, tmp_path)
    one.publish([fact(f"Quay {number}", f"Owner {number}") for number in range(FACTS)])
    until(lambda: one.status()["memory"]["current_facts"] == FACTS, "the facts")
    run = one.client.trigger_realignment("for both")
    done = until(lambda: ended(one, run["id"]), "the run")
    assert done["state"] == "done", done["message"]
    made = {"id": done["adapter"], "sha256": done["adapter_sha256"]}
    until(lambda: other.client.adapters()["serving"] == made, "the replica's swap")
    assert other.ask(question("Quay 3"))["adapter"] == made
    copies = [house.state_dir / "adapters" / made["sha256"] for house in (one, other)]
    assert all((copy / "record.json").is_file() for copy in copies)
    # A machine that lost its copy brings it again before it serves.
    other.stack.stop_daemon()
    shutil.rmtree(copies[1])
    other.start()
    assert other.ask(question("Quay 3"))["adapter"] == made


def ended(house: House, run_id: str) -> Any:
    found = house.client.realignment(run_id)
    return found if found["ended"] else None
