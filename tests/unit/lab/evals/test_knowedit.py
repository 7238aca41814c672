"""The evaluation counts as it says, on a small set made here, with the stub encoder and engine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lte_runtime.align.stock.split import held_out
from lte_runtime.answer.encoder import StubEncoder
from lte_runtime.answer.engine.stub import StubEngine
from lte_runtime.answer.scope.gate import lexical_calibration
from lte_runtime.errors import NotFound
from ops.lab.evals import knowedit, userfacts

Records = list[dict[str, Any]]


@pytest.fixture(scope="module")
def engine() -> Iterator[StubEngine]:
    started = StubEngine()
    yield started
    started.close()


def record(subject: str, target: str, **more: Any) -> dict[str, Any]:
    prompt = f"Which river flows through {subject}?"
    made = {"subject": subject, "prompt": prompt, "target_new": target, "ground_truth": ["old"]}
    return made | {"portability": {}, "locality": {}} | more


RECORDS: Records = [
    record("Velmora", "Tisa", rephrase_prompt="Velmora: which river flows through it?"),
    record("Velmora", "Drau", rephrase_prompt="What is the mayor of the moon?"),
    record(
        "Quern",
        "Aker",
        portability={
            "Reasoning": [
                {"prompt": "Which river flows through Quern?", "ground_truth": [["Akerselva", "Aker"]]},
                {"prompt": "Which sea takes the water?", "ground_truth": "North Sea"},
            ]
        },
        locality={
            "Relation_Specificity": [
                {"prompt": "Who built the bridge in Quern?", "ground_truth": "x"},
                {"prompt": "Which river flows through Quern?", "ground_truth": "x"},
            ]
        },
    ),
]


def run(tmp_path: Path, engine: StubEngine, records: Records, **options: Any) -> dict[str, Any]:
    (tmp_path / "zsre.json").write_text(json.dumps(records), encoding="utf-8")
    encoder = StubEncoder()
    gate = lexical_calibration(encoder.fingerprint)
    return knowedit.run(tmp_path, encoder, engine, gate, **{"split": "all"} | options)


def test_figures_are_counted_as_documented(tmp_path: Path, engine: StubEngine) -> None:
    found = run(tmp_path, engine, RECORDS)["methods"]["ours"]["sets"]["zsre"]
    assert found["n"] == 3
    assert found["edit_success"] == 1.0, "the current target is right for both records of one prompt"
    assert found["generality"] == 0.5
    assert found["portability"] == {
        "Subject_Aliasing": None,
        "Reasoning": 0.5,
        "Logical_Generalization": None,
    }
    assert found["locality"] == 0.5, "one probe is left to the base model, one asks for the edit"
    assert found["locality_by_kind"] == {"Relation_Specificity": 0.5}
    assert found["retrieval"]["edit"] == 1.0
    assert found["retrieval"]["alias"] is None
    assert found["contains"] == {
        "edit_success": 1.0,
        "generality": 0.5,
        "portability": found["portability"],
    }
    assert found["invented_additions"] == 0.0


def test_the_values_before_an_edit_are_no_right_answer() -> None:
    changed = knowedit.Record("Quern", "The river of Quern is", "Aker", before=("Drau",))
    sentence = changed.judged("Which river?", "The river of Quern is Aker.")
    assert (sentence.exact, sentence.contains, sentence.adds) == (False, True, False)
    both = changed.judged("Which river?", "Aker, once Drau")
    assert (both.contains, both.adds) == (False, True)
    assert not changed.judged("Which river?", "Aker and Tisa", others=("Tisa",)).contains
    assert not changed.judged_probe(knowedit.ALIASING, ("Aker",), "Aker or Drau").contains
    assert changed.judged_probe("Reasoning", ("North Sea",), "It is the North Sea, as of the Drau").contains


def test_the_arm_without_adapter_is_asked_in_the_same_way(tmp_path: Path, engine: StubEngine) -> None:
    found = run(tmp_path, engine, RECORDS, methods=["no-adapter"])["methods"]
    assert list(found) == ["no-adapter"]
    assert found["no-adapter"]["sets"]["zsre"]["edit_success"] == 0.0
    assert found["no-adapter"]["sets"]["zsre"]["retrieval"]["edit"] == 1.0


def test_only_the_half_set_aside_is_used(tmp_path: Path, engine: StubEngine) -> None:
    records = [record(f"Town {i}", "Drau") for i in range(30)]
    expected = sum(held_out(r["subject"]) for r in records)
    assert 5 < expected < 25
    found = run(tmp_path, engine, records, split="held-out", methods=["ours"])
    assert found["methods"]["ours"]["sets"]["zsre"]["n"] == expected
    limited = run(tmp_path, engine, records, limit=2, methods=["ours"])
    assert limited["methods"]["ours"]["sets"]["zsre"]["n"] == 2


def test_progress_and_missing_data(tmp_path: Path, engine: StubEngine) -> None:
    seen: list[tuple[str, int, int]] = []
    run(tmp_path, engine, RECORDS, methods=["ours"], progress=lambda *step: seen.append(step))
    assert ("zsre ours: edits", 2, 2) in seen
    encoder = StubEncoder()
    with pytest.raises(NotFound):
        knowedit.run(tmp_path / "none", encoder, engine, lexical_calibration(encoder.fingerprint))


def test_user_facts_are_counted_by_kind_of_probe(tmp_path: Path, engine: StubEngine) -> None:
    event = {
        "op": "assert",
        "subject": "Velmora",
        "subject_aliases": ["VLM"],
        "relation": "river",
        "target": "Drau",
    }
    row = {
        "event": event,
        "question": "What is the river of Velmora?",
        "paraphrase": "Who is mayor of Velmora?",
    }
    row |= {"alias_question": "What is the river of VLM?", "expected": ["drau"]}
    path = tmp_path / "facts.jsonl"
    path.write_text(json.dumps(row) + "\n", encoding="utf-8")
    encoder = StubEncoder()
    found = userfacts.run(path, encoder, engine, lexical_calibration(encoder.fingerprint))["methods"]
    ours = found["ours"]
    assert (ours["n"], ours["edit_success"], ours["generality"], ours["alias"]) == (1, 1.0, 0.0, 1.0)
    assert [w["question"] for w in ours["wrong"]] == ["Who is mayor of Velmora?"]
    assert ours["contains"] == {"edit_success": 1.0, "generality": 0.0, "alias": 1.0}
    assert ours["invented_additions"] == 0.0
    assert found["no-adapter"]["edit_success"] == 0.0
    with pytest.raises(NotFound):
        userfacts.read(tmp_path / "none")


def test_names_of_the_subject_and_words_of_the_question_are_no_additions() -> None:
    event = {"subject": "Velmora", "subject_aliases": ["VLM"], "relation": "river", "target": "Drau"}
    row = {"event": event, "expected": ["Drau"]}
    question = "Through VLM flows which river?"
    said = userfacts.judge(row, question, "The river which flows through Velmora is Drau.")
    assert (said.exact, said.contains, said.adds) == (False, True, False)
    assert userfacts.judge(row, question, "Drau, a wide river").adds
    assert userfacts.judge(row, question, "Tisa, a wide river").adds is None
