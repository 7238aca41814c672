"""Probes; the shipped folder where it is."""

from __future__ import annotations

import json
import random

import pytest
from safetensors.torch import load_file

from lte_runtime.disk import sha256_file
from lte_runtime.embedded import SHIPPED, adapter_path, model_path
from ops.lab.recipes import evaluate
from ops.lab.recipes.export import WEIGHTS


@pytest.mark.parametrize("count", [2, 3])
def test_choosing_probes_hold_the_answer_once_among_near_facts(count: int) -> None:
    for number in range(50):
        probe = evaluate.choosing(random.Random(number), count)
        assert len(probe.facts) == count
        assert sum(probe.answers[0] in fact for fact in probe.facts) >= 1


@pytest.mark.parametrize("model", SHIPPED)
def test_the_manifest_names_what_is_shipped(model: str) -> None:
    adapter = adapter_path(model)
    manifest = json.loads((adapter / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["id"] == "align-000001"
    assert manifest["base_fingerprint"] == sha256_file(model_path(model) / WEIGHTS)
    assert manifest["files"] == {name: sha256_file(adapter / name) for name in manifest["files"]}


def test_the_models_keep_to_their_sizes() -> None:
    sizes = {
        name: sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        for name, folder in SHIPPED.items()
    }
    assert sizes["embedded"] <= 20_000_000
    assert sum(sizes.values()) <= 36_000_000
    assert all((folder / WEIGHTS).stat().st_size <= 15 * 2**20 for folder in SHIPPED.values())


def test_the_second_model_is_another_architecture_with_biases_of_its_own() -> None:
    config = json.loads((model_path("embedded-qwen2") / "config.json").read_text(encoding="utf-8"))
    assert config["model_type"] == "qwen2"
    weights = load_file(model_path("embedded-qwen2") / WEIGHTS)
    biases = [value for name, value in weights.items() if name.endswith("proj.bias")]
    assert len(biases) == 3 * config["num_hidden_layers"]
    assert all(value.abs().max() > 0 for value in biases)
