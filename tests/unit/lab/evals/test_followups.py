"""The evaluation of follow-ups: how one is judged, and a run over the stub's encoder and engine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lte_runtime.answer.encoder import StubEncoder
from lte_runtime.answer.engine.stub import StubEngine
from lte_runtime.answer.scope.gate import lexical_calibration
from lte_runtime.errors import NotFound
from lte_runtime.types import TurnRole
from ops.lab.evals import followups

CEO = {"op": "assert", "id": "f1", "subject": "Tarn Robotics", "relation": "chief executive", "target": "Ola"}
ROW: dict[str, Any] = {"kind": "pronoun", "events": [CEO], "expected": ["Ola"]}
ROWS = (
    ROW | {"turns": ["What is the size of Tarn Robotics?", "Large.", "And its chief executive?"]},
    ROW | {"kind": "wrong", "events": [], "turns": ["Hello!", "Hello.", "And its chief executive?"]},
    {"kind": "else", "events": [], "turns": ["Hello!", "Hello.", "Why?"], "expected": []},
)


def run(path: Path, **more: Any) -> Any:
    encoder, engine = StubEncoder(), StubEngine()
    try:
        return followups.run(path, encoder, engine, lexical_calibration(encoder.fingerprint), **more)
    finally:
        engine.close()


def test_right_answers_are_counted_by_kind(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    ours = run(path)["methods"]["ours"]
    right, wrong = ({"exact": s, "facts": s, "gate": s, "contains": {"exact": s}} for s in (1.0, 0.0))
    sets = ours["sets"]
    assert (sets["pronoun"], sets["wrong"], sets["else"]) == (
        {"n": 1} | right,
        {"n": 1} | wrong,
        {"n": 1} | right,
    )
    assert sets["all"]["exact"] == pytest.approx(2 / 3, abs=1e-3)
    assert [row["read_as"] for row in ours["answers"]] == ["And its chief executive? (Tarn Robotics)", "", ""]
    assert run(path, limit=1)["methods"]["ours"]["sets"]["all"]["n"] == 1


def test_the_turns_before_are_the_users_and_the_assistants_in_turn() -> None:
    q = followups.question_of(["a", "b", "c"])
    assert (q.text, [turn.role for turn in q.earlier]) == ("c", [TurnRole.USER, TurnRole.ASSISTANT])


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no follow-ups at"):
        run(tmp_path / "none.jsonl")
