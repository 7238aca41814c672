"""Dry runs over a real memory with the stub engine: what an edit would change; nothing is written."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from daemon.dry_run import DryRun, DryRunner
from lte_runtime.answer.answerer import Answerer
from lte_runtime.answer.encoder import StubEncoder
from lte_runtime.answer.engine.stub import StubEngine
from lte_runtime.answer.scope.gate import lexical_calibration
from lte_runtime.errors import BadRequest, DeadlineExceeded, NotFound
from lte_runtime.facts import events
from lte_runtime.facts.events import EventLimits
from lte_runtime.memory.edit_memory import EditMemory
from lte_runtime.types import Fact, Position, RawRecord
from ops.lab.scratch import apply_events, memory_of

EVENTS = (
    {"id": "e1", "subject": "Ferry Osk", "relation": "captain", "target": "Mara Lind", "revision": 3},
    {"id": "e2", "subject": "Mara Lind", "relation": "home town", "target": "Vesby"},
    {"id": "e3", "subject": "Per Holm", "relation": "home town", "target": "Arlen"},
    {"id": "e4", "subject": "Ferry Osk", "relation": "harbour", "target": "Tarn"},
)


@pytest.fixture(scope="module")
def memory() -> Iterator[EditMemory]:
    with memory_of([{"op": "assert", **each} for each in EVENTS], StubEncoder()) as filled:
        yield filled


@pytest.fixture(scope="module")
def runner(memory: EditMemory) -> Iterator[DryRunner]:
    encoder, engine = StubEncoder(), StubEngine()
    calibration = lexical_calibration(encoder.fingerprint)
    yield DryRunner(memory, encoder, lambda over: Answerer(over, encoder, calibration, engine))
    engine.close()


def run(runner: DryRunner, **event: Any) -> DryRun:
    record = RawRecord("", Position("", 0, 0), None, json.dumps(event).encode())
    edit = events.decode(record, EventLimits())
    return runner.run(edit, max_probes=32, deadline=time.monotonic() + 60, cancelled=lambda: False)


def said(found: DryRun) -> dict[str, tuple[str, str]]:
    return {each.question: (each.before.text, each.after.text) for each in found.changes}


def test_an_update_changes_its_answers_and_those_behind_it(runner: DryRunner, memory: EditMemory) -> None:
    before = memory.state_hash()
    found = run(runner, id="n", subject="Ferry Osk", relation="captain", target="Per Holm", revision=4)
    assert found.applied
    asked = said(found)
    assert asked["What is the captain of Ferry Osk?"] == ("Mara Lind", "Per Holm")
    assert asked["What is the harbour of Ferry Osk?"] == ("Tarn", "Tarn")
    assert asked["What is the home town of the captain of Ferry Osk?"] == ("Vesby", "Arlen")
    changed = {each.question for each in found.changes if each.changed}
    assert "What is the captain of Ferry Osk?" in changed
    assert "What is the harbour of Ferry Osk?" not in changed
    assert found.changes[0].after.edit_ids == ("n",), "its own key comes first"
    assert memory.state_hash() == before


def test_a_lower_revision_changes_nothing_and_names_the_winner(runner: DryRunner) -> None:
    found = run(runner, subject="Ferry Osk", relation="captain", target="Per Holm", revision=1)
    assert (found.applied, found.winner_id) == (False, "e1")
    assert not [each for each in found.changes if each.changed]


def test_a_new_key_is_answered_from_then_on(runner: DryRunner) -> None:
    found = run(runner, id="n", subject="Tug Brine", relation="captain", target="Ola Vik")
    before, after = said(found)["What is the captain of Tug Brine?"]
    assert after == "Ola Vik"
    assert before != after


@pytest.mark.parametrize("event", [{"subject": "Ferry Osk", "relation": "captain"}, {"id": "e1"}])
def test_a_retraction_gives_the_base_answer_back(runner: DryRunner, event: dict[str, Any]) -> None:
    found = run(runner, op="retract", **event)
    assert found.applied
    before, after = said(found)["What is the captain of Ferry Osk?"]
    assert before == "Mara Lind"
    assert after != "Mara Lind"


def test_what_is_not_there_is_told(runner: DryRunner) -> None:
    with pytest.raises(NotFound):
        run(runner, op="retract", id="nobody")
    with pytest.raises(BadRequest, match="nothing to ask"):
        run(runner, op="retract", subject="Nobody", relation="captain", namespace="empty")


def test_a_retraction_by_id_looks_in_its_own_namespace(runner: DryRunner) -> None:
    with pytest.raises(NotFound, match="no edit 'e1'"):
        run(runner, op="retract", retracts="e1", namespace="another")


def test_a_subject_of_many_facts_is_looked_at_in_part(
    runner: DryRunner, memory: EditMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    apply_events(
        memory,
        [
            {
                "op": "assert",
                "id": f"w{n}",
                "subject": "Pier Wide",
                "relation": f"berth {n}",
                "target": f"Tug {n}",
            }
            for n in range(200)
        ],
    )
    looked_up: list[int] = []
    facts_of_subject = memory.facts_of_subject

    def counted(name: str, **options: Any) -> tuple[Fact, ...]:
        facts = facts_of_subject(name, **options)
        looked_up.append(len(facts))
        return facts

    monkeypatch.setattr(memory, "facts_of_subject", counted)
    record = RawRecord(
        "", Position("", 0, 0), None, b'{"subject":"Pier Wide","relation":"berth 7","target":"Tug Z"}'
    )
    edit = events.decode(record, EventLimits())
    with pytest.raises(DeadlineExceeded):
        runner.run(edit, max_probes=1, deadline=time.monotonic() - 1, cancelled=lambda: False)
    assert len(looked_up) <= 2, "the time is looked at before each further name"
    looked_up.clear()
    runner.run(edit, max_probes=1, deadline=time.monotonic() + 60, cancelled=lambda: False)
    assert len([count for count in looked_up if count == 200]) <= 2, (
        "its own key's facts alone are read in full"
    )
    assert len(looked_up) < 200, "not one look-up for each of its 200 targets"
