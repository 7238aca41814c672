"""A tokenizer is what its directory says, whatever the architecture of the model beside it."""

from __future__ import annotations

from pathlib import Path

from lte_runtime.answer.engine.tokenizer import load_tokenizer
from lte_runtime.embedded import model_path
from tests.unit.answer.engine import tiny

TEXTS = ("What is the capital of France?", "The name\nof Łódź is 10:00", " x")


def test_both_embedded_models_cut_texts_alike() -> None:
    llama, qwen2 = (load_tokenizer(model_path(name)) for name in ("embedded", "embedded-qwen2"))
    assert [llama.encode(text) for text in TEXTS] == [qwen2.encode(text) for text in TEXTS]
    assert llama.encode("What")[0] == llama.encode("So What")[-1]


def test_other_directories_load_as_before(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(tiny.save_model(tmp_path / "model", "qwen2"))
    assert tokenizer.decode(tokenizer.encode("a lamp")).strip() == "a lamp"
