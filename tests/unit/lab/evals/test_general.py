"""Perplexity on running text, before and after alignment."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from lte_runtime.answer import prompt
from lte_runtime.answer.scope.gate import lexical_calibration
from lte_runtime.errors import NotFound
from ops.lab.baselines.base import BaselineModel
from ops.lab.evals import arms, general
from ops.lab.evals.arms import Kit
from tests.unit.answer.engine import tiny
from tests.unit.lab.baselines.conftest import supplies

TOLD = ["The lamp stands on the table.", "A second line of running text, somewhat longer than the first."]


def test_it_is_what_the_models_own_loss_says(tmp_path: Path) -> None:
    base = BaselineModel.load(tiny.save_model(tmp_path / "model", "llama"))
    found = general.perplexity(base, TOLD)
    losses, tokens = 0.0, 0
    for text in TOLD:
        ids = torch.tensor([prompt.untrusted(base.tokenizer, text)])
        losses += float(base.model(input_ids=ids, labels=ids).loss) * (ids.shape[1] - 1)
        tokens += ids.shape[1] - 1
    assert found["tokens"] == tokens
    assert found["perplexity"] == pytest.approx(math.exp(losses / tokens), rel=1e-5)


@pytest.mark.parametrize("architecture", ["llama", "qwen2"])
def test_the_adapter_stands_beside_the_base(architecture: str, tmp_path: Path) -> None:
    directory = tiny.save_model(tmp_path / "model", architecture)
    base = BaselineModel.load(directory)
    adapted = arms.adapted(base, tiny.save_adapter(tmp_path / "adapter", directory, architecture))
    given = supplies(base, tmp_path / "cache")
    kit = Kit(given, lexical_calibration(given.encoder.fingerprint), adapted, "align-000001")
    lines = tmp_path / "text.txt"
    lines.write_text("\n".join(TOLD), encoding="utf-8")
    methods = general.run(kit, lines, limit=1, progress=lambda *_: None)["methods"]
    assert list(methods) == ["no-adapter", "ours"]
    figures = [one["sets"]["running text"] for one in methods.values()]
    assert [one["n"] for one in figures] == [1, 1]
    assert figures[0]["perplexity"] != figures[1]["perplexity"]


def test_without_text_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        general.texts(tmp_path)
