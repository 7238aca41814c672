"""Near questions: what is asked, and how it is counted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lte_runtime.answer import prompt
from lte_runtime.answer.scope.gate import lexical_calibration
from lte_runtime.errors import BadRequest, NotFound
from ops.lab.baselines import base as reading
from ops.lab.baselines.base import BaselineModel
from ops.lab.evals import arms, restraint
from ops.lab.evals.arms import Kit
from tests.unit.answer.engine import tiny
from tests.unit.lab.baselines.conftest import supplies

FACTS: list[dict[str, Any]] = [
    {
        "language": "en",
        "event": {"subject": "Velmora Works", "relation": "founder", "target": "Ida Moen"},
        "question": "Who set up Velmora Works?",
        "near": ["Who runs Velmora Works?", "Who owns Velmora Works?"],
    },
    {
        "language": "de",
        "event": {
            "subject": "Hotel Quern",
            "relation": "Direktor",
            "target": "Per Lund",
            "target_aliases": ["Lund"],
            "statement": "Per Lund leitet das Hotel Quern.",
        },
        "question": "Wer leitet das Hotel Quern?",
        "near": ["Wer kocht im Hotel Quern?", "Wem gehört das Hotel Quern?"],
    },
]
ANSWERS = {
    "Who set up Velmora Works?": "It was Ida Moen.",
    "Who runs Velmora Works?": "Ida Moen runs it",
    "Wer leitet das Hotel Quern?": "Lund",
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    rows = tmp_path / "near.jsonl"
    rows.write_text("".join(json.dumps(row) + "\n" for row in FACTS), encoding="utf-8")
    return rows


@pytest.fixture
def kit(tmp_path: Path) -> Kit:
    directory = tiny.save_model(tmp_path / "model")
    base = BaselineModel.load(directory)
    adapted = arms.adapted(base, tiny.save_adapter(tmp_path / "adapter", directory))
    given = supplies(base, tmp_path / "cache")
    return Kit(given, lexical_calibration(given.encoder.fingerprint), adapted, "align-000001")


def test_in_scope_and_near_answers_are_counted_by_language(
    path: Path, kit: Kit, monkeypatch: pytest.MonkeyPatch
) -> None:
    questions = [text for row in FACTS for text in (row["question"], *row["near"])]
    monkeypatch.setattr(restraint.reading, "answers", lambda *_: [ANSWERS.get(q, "") for q in questions])
    steps: list[tuple[str, int, int]] = []
    methods = restraint.run(kit, path, progress=lambda *step: steps.append(step))["methods"]
    assert list(methods) == ["no-adapter", "ours"]
    assert steps[-1] == ("near questions", 2, 2)
    sets = methods["ours"]["sets"]
    assert list(sets) == ["all", "en", "de"]
    everything = sets["all"]
    assert (everything["n"], everything["right"], everything["contains"]["right"]) == (2, 0.5, 1.0)
    assert everything["contains"]["interval"] == (1.0, 1.0)
    assert everything["invented_additions"] == 0.5, "It was"
    assert (everything["near"]["n"], everything["near"]["says_value"]) == (4, 0.25)
    assert everything["near"]["interval"] == (0.0, 0.5), "facts are drawn, not questions"
    assert everything["wrong"] == []
    assert everything["said"] == [
        {
            "fact": "The founder of Velmora Works is Ida Moen.",
            "question": "Who runs Velmora Works?",
            "said": "Ida Moen runs it",
        }
    ]
    assert sets["de"]["right"] == 1.0
    assert sets["de"]["near"] == {"n": 2, "says_value": 0.0, "interval": (0.0, 0.0)}


def test_the_fact_stands_before_every_question_for_both_readers(path: Path, kit: Kit) -> None:
    assert kit.adapted is not None
    (fact, _) = restraint.read(path)
    statement = "The founder of Velmora Works is Ida Moen."
    for reader in (kit.supplies.base, kit.adapted):
        (result,) = restraint.answers_about([fact], reader)
        rows = [
            prompt.build(reader.tokenizer, text, [statement], max_tokens=arms.room(reader)).token_ids
            for text in fact.questions
        ]
        expected = reading.answers(reader, rows, restraint.ANSWER_TOKENS)
        assert (result.answer, *result.near_answers) == tuple(expected)


def test_without_an_adapter_the_base_is_asked_alone_and_a_limit_takes_the_first(path: Path, kit: Kit) -> None:
    alone = Kit(kit.supplies, kit.calibration)
    methods = restraint.run(alone, path, limit=1, progress=lambda *_: None)["methods"]
    assert list(methods) == ["no-adapter"]
    assert list(methods["no-adapter"]["sets"]) == ["all", "en"]
    assert methods["no-adapter"]["sets"]["all"]["n"] == 1


def test_files_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        restraint.read(tmp_path / "none.jsonl")
    path = tmp_path / "facts.jsonl"
    path.write_text(json.dumps({"event": {"subject": "a", "relation": "b", "target": "c"}}), "utf-8")
    with pytest.raises(BadRequest, match=r"line 1 has no 'question'"):
        restraint.read(path)
    for line in ("{", "[1]"):
        path.write_text(json.dumps(FACTS[0]) + "\n" + line, "utf-8")
        with pytest.raises(BadRequest, match="line 2 is no fact"):
            restraint.read(path)
