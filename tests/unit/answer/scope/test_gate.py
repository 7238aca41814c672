"""The gate: its decisions, a deterministic fit that separates, foreign files refused."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from lte_runtime.answer.scope import gate
from lte_runtime.errors import Damaged
from lte_runtime.types import Scope, ScopeMode

CALIBRATION = gate.GateCalibration(
    "enc", 0.5, {"likeness": 10.0, "inside": -10.0, "mentioned": -10.0}, bias=-5.0
)


def rows(seed: int, n: int = 400) -> tuple[list[Mapping[str, float]], list[bool]]:
    rng = random.Random(seed)
    labels = [rng.random() < 0.5 for _ in range(n)]
    found = [
        {
            "likeness": rng.gauss(0.7 if inside else 0.3, 0.1),
            "name": float(rng.random() < (0.95 if inside else 0.5)),
        }
        for inside in labels
    ]
    return found, labels


def test_the_fit_separates_unseen_rows_and_repeats_itself() -> None:
    found = gate.fit(*rows(1), "enc")
    assert not found.weights["codes"], "what never varied weighs nothing"
    assert found.to_json() == gate.fit(*rows(1), "enc").to_json()
    unseen, labels = rows(2)
    right = sum((found.probability(row) >= 0.5) == label for row, label in zip(unseen, labels, strict=True))
    assert right / len(labels) > 0.9


def test_facts_published_as_prompts_have_a_threshold_of_their_own() -> None:
    shifted = replace(CALIBRATION, prompted_shift=2.0)
    row = {"likeness": 0.4}
    assert shifted.probability(row) == CALIBRATION.probability(row)
    assert shifted.probability({**row, "prompted": 1.0}) > CALIBRATION.probability(row)


def test_the_threshold_keeps_the_promised_share_closed() -> None:
    scores = [i / 100 for i in range(100)]
    labels = [False] * 100
    threshold = gate.threshold_for(scores, labels, closed_at_least=0.97)
    assert sum(s < threshold for s in scores) == 97
    assert gate.threshold_for([0.9], [True], closed_at_least=0.97) == 0.5


def test_roc_goes_from_nothing_open_to_all_open() -> None:
    points = gate.roc([0.1, 0.4, 0.6, 0.9], [False, True, False, True])
    assert points[0] == (0.0, 0.5)
    assert points[-1] == (1.0, 1.0)
    assert list(points) == sorted(points)


@pytest.mark.parametrize(
    ("features", "mode", "scope", "reason"),
    [
        ({"likeness": 0.9}, ScopeMode.AUTO, Scope.EDITED, "asks for a stored fact"),
        ({"likeness": 0.9, "inside": 1.0, "name": 1.0}, ScopeMode.AUTO, Scope.BASE, "a longer one"),
        ({"likeness": 0.9, "mentioned": 1.0, "name": 1.0}, ScopeMode.AUTO, Scope.BASE, "already names"),
        ({"likeness": 0.1, "name": 1.0}, ScopeMode.AUTO, Scope.BASE, "something else"),
        ({"likeness": 0.1}, ScopeMode.AUTO, Scope.BASE, "not named"),
        ({"likeness": 0.1}, ScopeMode.EDITED, Scope.EDITED, "asked for edits"),
        ({"likeness": 0.9}, ScopeMode.BASE, Scope.BASE, "asked for the base model"),
        (None, ScopeMode.EDITED, Scope.BASE, "no fact found"),
    ],
)
def test_decisions_with_their_reasons(
    features: Mapping[str, float] | None, mode: ScopeMode, scope: Scope, reason: str
) -> None:
    decision = gate.decide(features, CALIBRATION, mode)
    assert decision.scope is scope
    assert reason in decision.reason
    assert 0.0 <= decision.score <= 1.0


def test_a_calibration_survives_its_file(tmp_path: Path) -> None:
    path = tmp_path / "gate.json"
    kept = replace(CALIBRATION, roc=((0.0, 0.5), (1.0, 1.0)), report={"open": 0.9}, prompted_shift=1.5)
    path.write_text(kept.to_json(), encoding="utf-8")
    assert gate.load(path) == kept


def test_the_model_stands_beside_the_calibration_or_ships(tmp_path: Path) -> None:
    path = tmp_path / "gate.json"
    path.write_text(replace(CALIBRATION, model="elsewhere/cross_encoder.safetensors").to_json(), "utf-8")
    assert gate.load(path).model == gate.default_calibration().model
    beside = tmp_path / "cross_encoder.safetensors"
    beside.write_bytes(b"")
    assert gate.load(path).model == str(beside)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"roc": [], "encoder": "e"}', CALIBRATION.to_json().replace("likeness", "luck")]
)
def test_a_foreign_file_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "gate.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(Damaged):
        gate.load(path)
