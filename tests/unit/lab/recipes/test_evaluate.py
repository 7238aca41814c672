"""Probes; the folder of the small model."""

from __future__ import annotations

import json
import random

import pytest
from real_parts import QWEN2, QWEN2_ADAPTER
from safetensors.torch import load_file

from lte_runtime.disk import sha256_file
from ops.lab.recipes import evaluate
from ops.lab.recipes.export import WEIGHTS


@pytest.mark.parametrize("count", [2, 3])
def test_choosing_probes_hold_the_answer_once_among_near_facts(count: int) -> None:
    for number in range(50):
        probe = evaluate.choosing(random.Random(number), count)
        assert len(probe.facts) == count
        assert sum(probe.answers[0] in fact for fact in probe.facts) >= 1


def test_the_manifest_names_the_files_beside_it() -> None:
    manifest = json.loads((QWEN2_ADAPTER / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["id"] == "align-000001"
    assert manifest["base_fingerprint"] == sha256_file(QWEN2 / WEIGHTS)
    assert manifest["files"] == {name: sha256_file(QWEN2_ADAPTER / name) for name in manifest["files"]}


def test_it_is_another_architecture_than_the_default_with_biases_of_its_own() -> None:
    config = json.loads((QWEN2 / "config.json").read_text(encoding="utf-8"))
    assert config["model_type"] == "qwen2"
    weights = load_file(QWEN2 / WEIGHTS)
    biases = [value for name, value in weights.items() if name.endswith("proj.bias")]
    assert len(biases) == 3 * config["num_hidden_layers"]
    assert all(value.abs().max() > 0 for value in biases)
