"""The OpenVINO engine beside transformers and peft on tiny random models, and what it refuses."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from lte_runtime.answer.engine.openvino_engine import OpenVinoEngine, OpenVinoSession
from lte_runtime.errors import BadRequest, Damaged, Refused
from lte_runtime.types import GenerateRequest
from tests.unit.answer.engine import tiny
from tests.unit.answer.engine.test_engine_hf import NEW, prompts, reference

ARCHITECTURES = ["llama", "qwen2"]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_float32_gives_the_tokens_of_transformers_and_peft(tmp_path: Path, architecture: str) -> None:
    from peft import PeftModel

    base = tiny.save_model(tmp_path / "base", architecture)
    adapter = tiny.save_adapter(tmp_path / "adapter", base, architecture)
    engine = OpenVinoEngine.load(base, adapter, weights="float32", threads=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), str(adapter))
    alone = AutoModelForCausalLM.from_pretrained(base)
    for prompt in prompts(6):
        edited = engine.generate(GenerateRequest(prompt, True, NEW)).token_ids
        assert reference(model, prompt)[: len(edited)] == edited
        plain = engine.generate(GenerateRequest(prompt, False, NEW)).token_ids
        assert reference(alone, prompt)[: len(plain)] == plain
    engine.close()


# int8 computes in bfloat16 where the processor does: sums of another order then decide near ties, of which a
# random model has many.
@pytest.mark.parametrize(("weights", "most_different"), [("float32", 1), ("int8", 8)])
def test_padded_batches_answer_as_single_rows(
    model_dir: Path, adapter_dir: Path, weights: str, most_different: int
) -> None:
    engine = OpenVinoEngine.load(model_dir, adapter_dir, weights=weights, threads=1)
    requests = [GenerateRequest(prompt, True, NEW) for prompt in prompts(24)]
    together = [future.result(120).token_ids for future in [engine.submit(request) for request in requests]]
    batches = engine.stats().batches
    alone = [engine.generate(request).token_ids for request in requests]
    assert batches < 20
    assert sum(row != single for row, single in zip(together, alone, strict=True)) <= most_different
    engine.close()


def test_an_untied_output_layer_is_read_and_adapted(tmp_path: Path) -> None:
    base = tiny.save_model(tmp_path / "base")
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": False}))
    tensors = load_file(base / "model.safetensors")
    head = tensors["model.embed_tokens.weight"].flip(0).contiguous()
    save_file({**tensors, "lm_head.weight": head}, base / "model.safetensors", {"format": "pt"})
    engine = OpenVinoEngine.load(base, weights="float32", threads=1)
    alone = AutoModelForCausalLM.from_pretrained(base)
    for prompt in prompts(3):
        plain = engine.generate(GenerateRequest(prompt, False, NEW)).token_ids
        assert reference(alone, prompt)[: len(plain)] == plain
    engine.close()


def test_int8_stays_near_float32(model_dir: Path) -> None:
    logits = {}
    for weights in ("float32", "int8"):
        engine = OpenVinoEngine.load(model_dir, weights=weights, threads=1)
        model: Any = engine._model
        logits[weights] = OpenVinoSession(model.base, model.shape).extend([[5, 6, 7, 8]])
        engine.close()
    spread = float(np.ptp(logits["float32"]))
    assert float(np.abs(logits["int8"] - logits["float32"]).max()) < 0.02 * spread


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"model_type": "gpt2"}, "model_type gpt2"),
        ({"hidden_act": "gelu"}, "hidden_act gelu"),
        ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4}}, "rope_type yarn"),
        ({"use_sliding_window": True}, "sliding windows"),
        ({"quantization_config": {"bits": 4}}, "quantized weights"),
    ],
)
def test_a_shape_that_it_does_not_compute_is_refused(
    tmp_path: Path, change: dict[str, Any], reason: str
) -> None:
    base = tiny.save_model(tmp_path)
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(Refused, match=f"{reason}.*model.engine = 'transformers'"):
        OpenVinoEngine.load(base)


@pytest.mark.parametrize(
    ("name", "reason"),
    [("model.layers.0.self_attn.q_norm.weight", "not part of"), ("model.norm.weight", "missing")],
)
def test_unknown_or_missing_tensors_are_refused(tmp_path: Path, name: str, reason: str) -> None:
    base = tiny.save_model(tmp_path)
    tensors = load_file(base / "model.safetensors")
    tensors[name] = tensors["model.norm.weight"].clone()
    if reason == "missing":
        del tensors[name]
    save_file(tensors, base / "model.safetensors", {"format": "pt"})
    with pytest.raises(Refused, match=f"tensor {name} is {reason}"):
        OpenVinoEngine.load(base)


def test_weights_are_in_int8_or_float32(model_dir: Path) -> None:
    with pytest.raises(Refused, match="int8 or float32"):
        OpenVinoEngine.load(model_dir, weights="bfloat16")


def test_a_torn_file_is_damaged(tmp_path: Path) -> None:
    base = tiny.save_model(tmp_path)
    path = base / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(Damaged, match="tensor"):
        OpenVinoEngine.load(base)
    path.write_bytes(b"\x00" * 100)
    with pytest.raises(Damaged, match="no valid header"):
        OpenVinoEngine.load(base)


def test_the_context_is_respected(model_dir: Path) -> None:
    engine = OpenVinoEngine.load(model_dir, threads=1)
    assert len(engine.generate(GenerateRequest((5,) * 250, False, 100)).token_ids) <= 6
    with pytest.raises(BadRequest, match="context of 256"):
        engine.submit(GenerateRequest((5,) * 256, False, 1))
    engine.close()
