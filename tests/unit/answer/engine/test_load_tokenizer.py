"""A tokenizer is what its directory says, whatever the architecture of the model beside it."""

from __future__ import annotations

from pathlib import Path

from real_parts import QWEN2
from transformers import PreTrainedTokenizerFast

from lte_runtime.answer.engine.tokenizer import load_tokenizer
from tests.unit.answer.engine import tiny

TEXTS = ("What is the capital of France?", "The name\nof Łódź is 10:00", " x")


def test_a_qwen2_with_a_plain_tokenizer_cuts_texts_as_its_file_says() -> None:
    plain = PreTrainedTokenizerFast(tokenizer_file=str(QWEN2 / "tokenizer.json"))
    tokenizer = load_tokenizer(QWEN2)
    assert [tokenizer.encode(text) for text in TEXTS] == [plain.encode(text) for text in TEXTS]
    assert tokenizer.encode("What")[0] == tokenizer.encode("So What")[-1]


def test_other_directories_load_as_before(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(tiny.save_model(tmp_path / "model", "qwen2"))
    assert tokenizer.decode(tokenizer.encode("a lamp")).strip() == "a lamp"
