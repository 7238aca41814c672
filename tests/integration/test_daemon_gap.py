"""Missing history: the daemon says so, answers flagged, and applies nothing until an operator accepts."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from daemon_house import House, Json, fact, question, targets, until
from kafka_topic import KafkaTopic

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.timeout(1200)]
# How long a daemon that would wrongly go on gets to do it; it needs some milliseconds.
LONG_ENOUGH_S = 1.5


@pytest.fixture
def house(make_house: Callable[..., House], make_topic: Callable[..., KafkaTopic]) -> House:
    """One partition, with a fact from before."""
    made = make_house(topic=make_topic(partitions=1)).start()
    made.ask(question("Quay"), made.publish([fact("Quay", "Old Owner")]))
    return made


def applied_nothing(house: House, edits: int) -> None:
    time.sleep(LONG_ENOUGH_S)
    answer = house.ask(question("Quay"))
    assert targets(answer) == ["Old Owner"]
    assert answer["gap"] is True
    status = house.status()
    assert (status["state"], status["memory"]["edits"]) == ("GAP", edits)
    assert house.client.retrieve(question("Quay"))["gap"] is True


def accepted(house: House, edits: int) -> None:
    """The CLI accepts, what is there is applied, the flag is gone."""
    told = house.lte("accept-gap", "--yes", "--json")
    assert told.code == 0, told.err
    assert told.json["resumed_at"]
    until(lambda: house.status()["memory"]["edits"] == edits, "what lies behind the gap")
    until(lambda: house.status()["state"] == "READY", "READY")
    answer = house.ask(question("Quay"))
    assert (targets(answer), answer["gap"]) == (["New Owner"], False)
    again = house.lte("accept-gap", "--yes", "--json")
    assert again.code == 5, "there is no gap any more"


def test_history_trimmed_past_the_position(house: House) -> None:
    """Trimmed while the daemon was down: found at its start, and not forgotten by another restart."""
    house.stack.stop_daemon()
    house.publish([fact(f"Quay {n}", f"Owner {n}") for n in range(5)] + [fact("Quay", "New Owner")])
    house.topic.trim(0, 4)
    house.start()
    assert house.status()["state"] == "GAP"
    applied_nothing(house, edits=1)
    house.stack.kill_daemon()
    house.start()
    applied_nothing(house, edits=1)
    accepted(house, edits=4)
    assert targets(house.ask(question("Quay 4"))) == ["Owner 4"]


def test_topic_made_anew_under_a_running_daemon(house: House) -> None:
    """Same name, another id, offsets that look right: only the id tells."""
    before: Json = house.status()["memory"]["watermarks"][0]
    house.topic.create(1)
    house.topic_is_new()
    house.publish([fact("Quay", "Wrong Owner"), fact("Quay", "New Owner")])
    until(lambda: house.status()["state"] == "GAP", "the gap")
    applied_nothing(house, edits=1)
    accepted(house, edits=3)
    marks = house.status()["memory"]["watermarks"]
    assert before in marks
    new = {mark["topic_id"]: mark["next_offset"] for mark in marks if mark != before}
    assert new == {house.topic.topic_id: 2}
