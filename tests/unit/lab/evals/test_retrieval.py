"""Retrieval is counted as it says, on a small set made here, with the stub encoder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lte_runtime.answer.encoder import StubEncoder
from lte_runtime.answer.scope.gate import lexical_calibration
from lte_runtime.errors import NotFound
from ops.lab.evals import retrieval

STUB = StubEncoder()
GATE = lexical_calibration(STUB.fingerprint)


def record(subject: str, target: str, rephrase: str, *, probe: str) -> dict[str, Any]:
    return {
        "subject": subject,
        "prompt": f"Which river flows through {subject}?",
        "target_new": target,
        "rephrase_prompt": rephrase,
        "portability": {},
        "locality": {"Relation_Specificity": [{"prompt": probe, "ground_truth": "x"}]},
    }


def test_what_is_found_closed_and_contested(tmp_path: Path) -> None:
    quern, velmora = "Quern: which river flows through?", "Velmora: which river flows through?"
    records = [
        record("Velmora", "Tisa", velmora, probe="Who built the bridge?"),
        record("Velmora", "Drau", "What is the mayor of the moon?", probe="What is Peru?"),
        record("Quern", "Aker", quern, probe=quern),
    ]
    (tmp_path / "zsre.json").write_text(json.dumps(records), "utf-8")
    figures = retrieval.run(tmp_path, STUB, GATE, sets=("zsre",), split="all")
    measured = figures["methods"]["retrieval"]["sets"]["zsre"]
    # The second record is the memory's current one for the prompt that the first two share.
    assert measured["found"] == {"edit": 1.0, "rephrase": 0.6667, "alias": None}
    assert measured["closed"] == measured["contested"] == 0.6667


def test_user_facts_name_what_was_missed(tmp_path: Path) -> None:
    event = {"op": "assert", "id": "a", "subject": "Velmora Systems", "relation": "chief"}
    row = {
        "event": event | {"target": "Ina Torvald", "subject_aliases": ["VS-9"]},
        "question": "Who is the chief of Velmora Systems?",
        "paraphrase": "Whom do they all follow?",
        "alias_question": "Who is the chief of VS-9?",
        "expected": ["Ina Torvald"],
    }
    file = tmp_path / "facts.jsonl"
    file.write_text(json.dumps(row) + "\n", "utf-8")
    figures = retrieval.run(file, STUB, GATE)["methods"]["retrieval"]["sets"]["facts"]
    assert figures["found"] == {"edit_success": 1.0, "generality": 0.0, "alias": 1.0}
    assert [missed["question"] for missed in figures["missed"]] == ["Whom do they all follow?"]


def test_absent_data_are_named(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        retrieval.run(tmp_path, STUB, GATE)
