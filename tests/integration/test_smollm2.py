"""SmolLM2 from its package: the conversion, the chat prompt, and the base model's answers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from lte_runtime.answer.engine.files import base_fingerprint
from lte_runtime.answer.engine.hf import HfEngine
from lte_runtime.answer.engine.openvino_engine import OpenVinoEngine
from lte_runtime.models.cache import ModelCache
from lte_runtime.models.catalogue import SMOLLM2
from lte_runtime.models.locate import sound_gguf, source_of
from lte_runtime.models.resolve import base_model
from lte_runtime.types import GenerateRequest

pytestmark = [pytest.mark.model, pytest.mark.slow, pytest.mark.timeout(1200)]

QUESTION = "What is the capital of France?"
QUESTIONS = (QUESTION, "Who wrote Hamlet?", "Name three colours.", "Which river flows through Cairo?")


@pytest.fixture(scope="module")
def engine(smollm2_cache: Path) -> Iterator[HfEngine]:
    loaded = HfEngine.load(base_model("smollm2", smollm2_cache), device="cpu", threads=1)
    yield loaded
    loaded.close()


def test_the_weights_are_those_that_adapters_name(smollm2_cache: Path) -> None:
    folder = Path(base_model("smollm2", smollm2_cache))
    assert base_fingerprint(folder) == SMOLLM2.weights_sha256
    assert folder == ModelCache(smollm2_cache).folder(source_of(SMOLLM2))
    config = json.loads((folder / "config.json").read_text("utf-8"))
    assert (config["model_type"], config["dtype"]) == ("llama", "bfloat16")
    assert "quantization_config" not in config


def test_its_file_by_path_is_the_same_model(smollm2_cache: Path) -> None:
    file = sound_gguf(SMOLLM2, ModelCache(smollm2_cache))
    assert base_model(str(file), smollm2_cache) == base_model("smollm2", smollm2_cache)


def test_a_question_is_one_user_turn_of_its_chat_template(engine: HfEngine) -> None:
    prompt = engine._tokenizer.decode(engine.prompt(QUESTION).token_ids)
    assert prompt == (
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
        f"<|im_start|>user\n{QUESTION}<|im_end|>\n<|im_start|>assistant\n"
    )


def test_it_answers_in_a_whole_sentence_and_ends_its_turn(engine: HfEngine) -> None:
    request = GenerateRequest(engine.prompt(QUESTION).token_ids, False, 128, several_lines=True)
    answer = engine.generate(request)
    assert (answer.text, answer.finish) == ("The capital of France is Paris.", "stop")
    assert engine._tokenizer.convert_ids_to_tokens(answer.token_ids[-1]) == "<|im_end|>"


def test_its_tokens_are_those_of_the_model_alone(engine: HfEngine, smollm2_cache: Path) -> None:
    folder = base_model("smollm2", smollm2_cache)
    alone = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, engine.describe()["dtype"]))
    ids = engine.prompt(QUESTION).token_ids
    answer = engine.generate(GenerateRequest(ids, False, 128, several_lines=True))
    inputs = torch.tensor([ids])
    generated = alone.generate(
        inputs, attention_mask=torch.ones_like(inputs), max_new_tokens=128, do_sample=False
    )
    assert tuple(generated[0, len(ids) :].tolist()) == answer.token_ids


def test_a_chinese_answer_that_the_limit_cuts_ends_with_a_whole_character(engine: HfEngine) -> None:
    ids = engine.prompt("请把这句话重复一遍：东京和北京是亚洲的大城市。").token_ids
    whole = engine.generate(GenerateRequest(ids, False, 12, several_lines=True))
    halves = 0
    for limit in range(1, len(whole.token_ids)):
        pieces: list[str] = []
        request = GenerateRequest(ids, False, limit, on_text=pieces.append, several_lines=True)
        cut = engine.generate(request)
        halves += engine._decode(cut.token_ids).endswith("\ufffd")
        assert whole.text.startswith(cut.text)
        assert "".join(pieces) == cut.text
        assert cut.finish == "length"
    assert halves > 0


def test_openvino_in_float32_gives_the_same_tokens(smollm2_cache: Path) -> None:
    folder = base_model("smollm2", smollm2_cache)
    engines = (
        OpenVinoEngine.load(folder, weights="float32"),
        HfEngine.load(folder, device="cpu", dtype="float32"),
    )
    for question in QUESTIONS:
        request = GenerateRequest(engines[0].prompt(question).token_ids, False, 32, several_lines=True)
        ours, reference = (engine.generate(request) for engine in engines)
        assert ours.token_ids == reference.token_ids
        assert ours.finish == reference.finish
    for engine in engines:
        engine.close()


def test_openvino_in_int8_knows_what_the_model_knows(smollm2_cache: Path) -> None:
    engine = OpenVinoEngine.load(base_model("smollm2", smollm2_cache))
    request = GenerateRequest(engine.prompt(QUESTION).token_ids, False, 128, several_lines=True)
    assert engine.generate(request).text == "The capital of France is Paris."
    assert engine.runtime == "openvino/int8"
    engine.close()
