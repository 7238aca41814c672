"""The watch on drift over real memory and stub engine: what it asks, reads, keeps and yields to."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

from daemon.drift_store import STATE, DriftStateStore
from daemon.drift_watch import DriftWatch, WatchSettings
from lte_runtime.answer.answerer import Answerer
from lte_runtime.answer.encoder import StubEncoder
from lte_runtime.answer.engine.stub import STUB_ADAPTER, StubEngine
from lte_runtime.answer.scope import gate
from lte_runtime.drift import readings as r
from lte_runtime.drift.decide import DecisionSettings, Situation
from lte_runtime.drift.past import MOST_PAST
from lte_runtime.drift.watched import LEARNED_FROM
from lte_runtime.facts import events
from lte_runtime.facts.events import EventLimits
from lte_runtime.memory.edit_memory import EditMemory
from lte_runtime.types import AdapterRef, Answer, Batch, Position, Question, RawRecord, TopicPartition

NOW_MS = 1_750_000_000_000
TP = TopicPartition("t", 0)
SETTINGS = WatchSettings(probes=8, window=8, sample=4, decision=DecisionSettings(min_new_edits=1))


class House:
    """Memory, answerer and engine of one directory, with watches made on demand."""

    def __init__(self, directory: Path) -> None:
        self.encoder, self.engine = StubEncoder(), StubEngine()
        self.memory = EditMemory.open(directory, self.encoder)
        self.answerer = Answerer(
            self.memory, self.encoder, gate.lexical_calibration(self.encoder.fingerprint), self.engine
        )
        self.outcomes: list[tuple[str, str]] = []
        self.offset = 0

    def tell(self, *told: dict[str, Any]) -> None:
        edits = []
        for event in told:
            position = Position("t", 0, self.offset)
            value = json.dumps(event).encode()
            record = RawRecord("lte.edits", position, None, value, timestamp_ms=NOW_MS + self.offset)
            edits.append(events.decode(record, EventLimits()))
            self.offset += 1
        self.memory.apply(Batch(tuple(edits), (), {TP: self.offset}))

    def watch(self, settings: WatchSettings = SETTINGS, **more: Any) -> DriftWatch:
        given = {"answers": self.answerer, "engine": self.engine, "clock": lambda: NOW_MS, **more}
        given.setdefault("store", DriftStateStore(self.memory))
        return DriftWatch(
            self.memory,
            given.pop("answers"),
            self.encoder,
            given.pop("engine"),
            given.pop("store"),
            settings,
            on_probe=lambda kind, outcome: self.outcomes.append((kind, outcome)),
            now=given.pop("clock"),
            **given,
        )


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    made = House(tmp_path / "state")
    yield made
    made.engine.close()
    made.memory.close()


def fact(number: int, relation: str = "owner") -> dict[str, Any]:
    return {"subject": f"Harbour {number}", "relation": relation, "target": f"Keeper {number}"}


def value(watch: DriftWatch, name: str) -> float:
    return next(each.value for each in watch.report().readings if each.name == name)


def test_a_cycle_asks_probes_through_the_users_path(house: House) -> None:
    house.tell(*(fact(number) for number in range(12)))
    watch = house.watch()
    watch.ask()
    assert value(watch, r.EDIT_SUCCESS) == 1.0
    assert value(watch, r.RETRIEVAL_HITS) == 1.0
    assert value(watch, r.RECALL) == 1.0
    assert value(watch, r.GATE_MARGIN) > 0
    assert value(watch, r.LOCALITY) == 1.0
    assert ("verbatim", "right") in house.outcomes
    assert watch.report().cycles == 1


def test_wrong_answers_show_in_the_reading_and_become_a_reason(house: House) -> None:
    class Wrong:
        def answer(self, q: Question, *, cancelled: Callable[[], bool]) -> Answer:
            return replace(house.answerer.answer(q, cancelled=cancelled), text="somebody else")

    house.tell(*(fact(number) for number in range(12)))
    watch = house.watch(answers=Wrong())
    for _ in range(40):
        watch.ask()
    assert value(watch, r.EDIT_SUCCESS) == 0.0
    decision = watch.report().decision
    assert r.EDIT_SUCCESS in {reason.name for reason in decision.reasons}
    assert decision.start


def test_probes_yield_to_users(house: House) -> None:
    """Somebody waits for the engine all the time: no probe is asked, and nothing is made of it."""

    class Busy:
        adapter, fingerprint, runtime, queue_depth = STUB_ADAPTER, "f", "stub", 1

    house.tell(fact(1))
    watch = house.watch(replace(SETTINGS, budget_s=0.05), engine=Busy())
    watch.ask()
    assert {outcome for _, outcome in house.outcomes} == {"skipped"}
    assert r.EDIT_SUCCESS not in {each.name for each in watch.report().readings}


def test_a_probe_under_way_is_given_up_when_somebody_comes(house: House) -> None:
    class Comes:
        adapter, fingerprint, runtime, queue_depth = STUB_ADAPTER, "f", "stub", 0

    engine = Comes()
    seen: list[bool] = []

    class Answers:
        def answer(self, q: Question, *, cancelled: Callable[[], bool]) -> Answer:
            seen.append(cancelled())
            engine.queue_depth = 1
            seen.append(cancelled())
            engine.queue_depth = 0
            return house.answerer.answer(q)

    house.tell(fact(1))
    house.watch(answers=Answers(), engine=engine).ask()
    assert seen[:2] == [False, True]


def test_general_questions_are_left_out_once_an_edit_is_about_them(house: House) -> None:
    house.tell(fact(1), {"subject": "Portugal", "relation": "capital", "target": "Porto"})
    watch = house.watch()
    watch.ask()
    state = json.loads(house.memory.meta_get(STATE) or "")
    assert "What is the capital of Mongolia?" in state["base"]
    assert "What is the capital of Portugal?" not in state["base"]


def test_unseen_relations_are_found_within_two_hundred_edits(house: House) -> None:
    watch = house.watch()
    house.tell(*(fact(number) for number in range(LEARNED_FROM)))
    watch.look()
    assert not watch.report().decision.reasons
    house.tell(*(fact(number, "mooring fee") for number in range(200)))
    watch.look()
    assert r.UNSEEN_RELATIONS in {reason.name for reason in watch.report().decision.reasons}
    assert watch.report().new_edits == 400


def test_a_burst_is_learned_from_once_it_has_settled(house: House) -> None:
    """Started at once, a run would leave out as too young what it was started for."""
    settling = replace(SETTINGS, decision=replace(SETTINGS.decision, settle_ms=60_000))
    now = NOW_MS
    watch = house.watch(settling, clock=lambda: now)
    house.tell(*(fact(number) for number in range(LEARNED_FROM)))
    watch.look()
    assert not watch.report().decision.reasons
    house.tell(*(fact(number, "sponsor") for number in range(LEARNED_FROM)))
    watch.look()
    first = watch.report().decision
    assert r.UNSEEN_RELATIONS in {reason.name for reason in first.reasons}
    assert [block.name for block in first.blocks] == ["settling"]
    now += 59_999
    watch.look()
    again = house.watch(settling, clock=lambda: now)
    assert [block.name for block in again.report().decision.blocks] == ["settling"], "kept over a restart"
    now += 1
    assert again.report().decision.start


def test_an_adapter_that_tells_its_relations_needs_no_learning(house: House) -> None:
    watch = house.watch(relations=lambda _: ["Owner"])
    house.tell(*(fact(number) for number in range(8)), *(fact(number, "fee") for number in range(8)))
    watch.look()
    assert value(watch, r.UNSEEN_RELATIONS) == 0.5


def test_a_shift_of_questions_is_measured(house: House) -> None:
    watch = house.watch()
    for number in range(8):
        watch.note_question(f"Who owns harbour {number}?")
    watch.look()
    for _ in range(4):
        watch.note_question("zymurgy")
    watch.look()
    assert value(watch, r.QUESTION_SHIFT) < 0.05


def test_feedback_on_another_adapters_answer_does_not_count(house: House) -> None:
    watch = house.watch()
    assert watch.feedback(good=False, adapter_id=STUB_ADAPTER.id)
    assert watch.feedback(good=True)
    assert not watch.feedback(good=False, adapter_id="align-000099")
    watch.look()
    reading = next(each for each in watch.report().readings if each.name == r.NEGATIVE_FEEDBACK)
    assert (reading.value, reading.n) == (0.5, 2)


def test_a_restart_forgets_nothing(house: House) -> None:
    first = house.watch()
    house.tell(*(fact(number) for number in range(12)))
    first.look()
    first.ask()
    for number in range(9):
        first.note_question(f"Who owns harbour {number}?")
    first.look()
    first.stop()
    second = house.watch()
    assert second.report(MOST_PAST) == first.report(MOST_PAST)
    assert {r.EDIT_SUCCESS, r.EDITS_SINCE} <= {reading.name for reading in second.report(1).past}
    assert second._meters.keys() == first._meters.keys()
    for name, meter in second._meters.items():
        before = first._meters[name]._rows.astype(np.float16)
        np.testing.assert_array_equal(meter._rows.astype(np.float16), before)
    second.look()
    assert second.report() == first.report()


def test_another_adapter_starts_the_references_anew(house: House) -> None:
    class Swapped:
        adapter: AdapterRef | None = STUB_ADAPTER
        fingerprint, runtime, queue_depth = "f", "stub", 0

    engine = Swapped()
    store = DriftStateStore(house.memory)
    watch = house.watch(engine=engine, store=store)
    house.tell(*(fact(number) for number in range(10)))
    watch.look()
    assert watch.report().new_edits == 10
    store.note_building()
    house.tell(fact(99))
    engine.adapter = AdapterRef("align-000002", "0" * 64)
    watch.look()
    report = watch.report()
    assert report.new_edits == 1, "what came while it was trained is new to it"
    assert all(each.n <= 1 for each in report.margins)


def test_limits_come_from_the_situation(house: House) -> None:
    watch = house.watch(situation=lambda: Situation(running=True, tainted=2))
    decision = watch.report().decision
    assert [reason.kind for reason in decision.reasons] == ["taint"]
    assert [block.name for block in decision.blocks] == ["running"]


def test_a_stop_ends_a_cycle(house: House) -> None:
    house.tell(*(fact(number) for number in range(12)))
    watch = house.watch()
    watch.stop()
    watch.ask()
    assert {outcome for _, outcome in house.outcomes} <= {"skipped"}


def test_the_sample_is_seeded(house: House) -> None:
    house.tell(*(fact(number) for number in range(40)))
    drawn = [house.memory.sample_facts(5, Random(seed)) for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1]
    assert drawn[0] != drawn[2]
    assert len(house.memory.sample_facts(100, Random(1))) == 40
