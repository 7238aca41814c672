"""Probes and their scoring; the shipped folder where it is."""

from __future__ import annotations

import json
import random

import pytest

from lte_runtime.disk import sha256_file
from lte_runtime.embedded import adapter_path, evaluate, model_path
from lte_runtime.embedded.evaluate import Probe
from lte_runtime.embedded.export import WEIGHTS


@pytest.mark.parametrize(
    ("answer", "target", "good"),
    [
        ("the Tolmin.", "Tolmin", True),
        ("tolmin", "Tolmin", True),
        ("$12.50", "12.50", True),
        ("Tolmin Ada", "Tolmin", False),
        ("Łódź", "Łódź", True),
        ("", "Tolmin", False),
    ],
)
def test_exact_match_after_normalising(answer: str, target: str, good: bool) -> None:
    assert evaluate.right(answer, Probe("?", (), (target,))) is good


@pytest.mark.parametrize("count", [2, 3])
def test_choosing_probes_hold_the_answer_once_among_near_facts(count: int) -> None:
    for number in range(50):
        probe = evaluate.choosing(random.Random(number), count)
        assert len(probe.facts) == count
        assert sum(probe.answers[0] in fact for fact in probe.facts) >= 1


def test_the_manifest_names_what_is_shipped() -> None:
    manifest = json.loads((adapter_path() / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["id"] == "align-000001"
    assert manifest["base_fingerprint"] == sha256_file(model_path() / WEIGHTS)
    assert manifest["files"] == {name: sha256_file(adapter_path() / name) for name in manifest["files"]}


def test_base_and_adapter_take_at_most_twenty_megabytes() -> None:
    files = [path for path in model_path().rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 20_000_000
    assert (model_path() / WEIGHTS).stat().st_size <= 15 * 2**20
