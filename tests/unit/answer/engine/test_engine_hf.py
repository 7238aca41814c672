"""The engine over real (tiny, random) Hugging Face models: exactness, adapters, architectures."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from lte_runtime.answer.engine import hf
from lte_runtime.answer.engine.hf import HfEngine
from lte_runtime.errors import BadRequest, Refused
from lte_runtime.types import GenerateRequest
from tests.unit.answer.engine import tiny

ARCHITECTURES = ["llama", "gpt2", "gpt_neox", "qwen2"]
Load = Callable[..., HfEngine]
NEW = 10


def prompts(count: int, seed: int = 0) -> list[tuple[int, ...]]:
    draw = random.Random(seed)
    return [tuple(draw.randrange(1, 400) for _ in range(draw.randrange(2, 60))) for _ in range(count)]


def reference(model: Any, prompt: Sequence[int]) -> tuple[int, ...]:
    """What `transformers.generate` makes of the prompt alone."""
    ids = torch.tensor([prompt])
    made = model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=NEW, do_sample=False, pad_token_id=0
    )
    return tuple(made[0, len(prompt) :].tolist())


def differing(engine: HfEngine, model: Any, count: int, seed: int) -> int:
    """Base rows, in batches mixed at random with adapter rows, whose tokens are not the model's own."""
    draw = random.Random(seed)
    asked = [(prompt, draw.random() < 0.5) for prompt in prompts(count, seed)]
    futures = [engine.submit(GenerateRequest(prompt, adapter, NEW)) for prompt, adapter in asked]
    made = [future.result(120).token_ids for future in futures]
    base = [(prompt, tokens) for (prompt, adapter), tokens in zip(asked, made, strict=True) if not adapter]
    assert base
    return sum(reference(model, prompt)[: len(tokens)] != tokens for prompt, tokens in base)


@pytest.mark.parametrize("mode", ["merged", "unmerged"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_base_rows_equal_the_base_model_alone(load: Load, model_dir: Path, dtype: str, mode: str) -> None:
    engine = load(dtype=dtype, adapter_mode=mode)
    alone = AutoModelForCausalLM.from_pretrained(model_dir, dtype=getattr(torch, dtype))
    assert differing(engine, alone, count=60, seed=7) == 0


@pytest.mark.parametrize("mode", ["merged", "unmerged"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_adapter_rows_equal_peft(tmp_path: Path, architecture: str, mode: str) -> None:
    from peft import PeftModel

    base = tiny.save_model(tmp_path / "base", architecture)
    adapter = tiny.save_adapter(tmp_path / "adapter", base, architecture)
    engine = HfEngine.load(base, adapter, device="cpu", dtype="float32", adapter_mode=mode, threads=1)
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


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_padded_adapter_batches_answer_as_single_rows(tmp_path: Path, architecture: str) -> None:
    base = tiny.save_model(tmp_path / "base", architecture)
    adapter = tiny.save_adapter(tmp_path / "adapter", base, architecture)
    engine = HfEngine.load(base, adapter, device="cpu", dtype="float32", threads=1)
    asked = [GenerateRequest(prompt, True, NEW) for prompt in prompts(24)]
    together = [future.result(120).token_ids for future in [engine.submit(request) for request in asked]]
    batches = engine.stats().batches
    alone = [engine.generate(request).token_ids for request in asked]
    assert batches < 20
    # float32: the padding moves the last bits only, and random models have few near ties.
    assert sum(one != other for one, other in zip(together, alone, strict=True)) <= 1
    engine.close()


def forwards(engine: HfEngine) -> tuple[Any, Any]:
    """What runs a base row and an adapter row."""
    return engine._versions.pin(adapter=False).model, engine._versions.pin(adapter=True).model


def test_the_merged_copy_shares_what_the_adapter_leaves_alone(load: Load) -> None:
    engine = load(adapter_mode="merged")
    base, merged = forwards(engine)
    assert merged.model.embed_tokens.weight is base.model.embed_tokens.weight
    assert merged.lm_head.weight is merged.model.embed_tokens.weight
    changed = merged.model.layers[0].self_attn.q_proj.weight
    assert not torch.equal(changed, base.model.layers[0].self_attn.q_proj.weight)
    assert merged.model.layers[0].self_attn.k_proj.weight is base.model.layers[0].self_attn.k_proj.weight


def test_merging_sums_in_float32(load: Load) -> None:
    coarse, fine = (
        forwards(load(dtype=dtype, adapter_mode="merged"))[1] for dtype in ("bfloat16", "float32")
    )
    for name, parameter in coarse.named_parameters():
        assert torch.equal(parameter, fine.get_parameter(name).to(torch.bfloat16)), name


def test_a_model_that_places_positions_itself_gets_rows_of_one_length(load: Load) -> None:
    engine = load()
    asked = [GenerateRequest(prompt, True, NEW) for prompt in prompts(16)]
    alone = [engine.generate(request).token_ids for request in asked]
    engine._pads = False
    together = [future.result(120).token_ids for future in [engine.submit(request) for request in asked]]
    assert together == alone


def test_without_an_adapter_facts_are_read_by_the_base(load: Load) -> None:
    engine = load(adapter_dir=None)
    generation = engine.generate(GenerateRequest((5, 6, 7), True, NEW))
    assert engine.adapter is None is generation.adapter
    assert generation.token_ids == engine.generate(GenerateRequest((5, 6, 7), False, NEW)).token_ids
    assert engine.describe()["adapter_mode"] == "none"


def test_context_is_respected(load: Load) -> None:
    engine = load()
    generation = engine.generate(GenerateRequest((5,) * 250, False, 100))
    assert len(generation.token_ids) <= 6
    with pytest.raises(BadRequest, match="context of 256"):
        engine.submit(GenerateRequest((5,) * 256, False, 1))


def test_prompts_come_from_the_chat_template_and_end_at_its_turn(tmp_path: Path) -> None:
    engine = HfEngine.load(tiny.save_model(tmp_path, chat=True), device="cpu", dtype="float32", threads=1)
    text = engine._decode(engine.prompt("Who runs the observatory?").token_ids)
    assert text.startswith("<|user|>")
    assert text.endswith("<|assistant|>")
    assert "Who runs the observatory?" in text
    engine.close()


def test_a_long_question_leaves_room_for_the_answer(load: Load) -> None:
    engine = load(max_prompt_tokens=10_000)
    with pytest.raises(BadRequest):
        engine.prompt("word " * 1000)
    assert engine._max_prompt == 256 - 64


def test_unknown_models_and_missing_devices_are_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="neither a directory nor"):
        HfEngine.load("no-such-owner/no-such-model")
    with pytest.raises(Refused, match="no safetensors"):
        HfEngine.load(tmp_path)
    if not torch.cuda.is_available():
        with pytest.raises(Refused, match="cuda"):
            hf.choose_device("cuda")


def test_automatic_choices(model_dir: Path) -> None:
    cpu = torch.device("cpu")
    assert hf.choose_dtype("float32", cpu) is torch.float32
    assert hf.choose_dtype("auto", cpu) in (torch.float32, torch.bfloat16)
    assert hf.choose_mode("auto", model_dir, cpu) == "merged"
    assert hf.choose_mode("unmerged", model_dir, cpu) == "unmerged"


def test_threads_are_for_large_batches_and_large_models() -> None:
    assert hf.choose_threads(7_000_000, 100, most=16) == 1
    assert hf.choose_threads(7_000_000, 8 * 100, most=16) == 16
    assert hf.choose_threads(1_000_000_000, 100, most=16) == 16


def test_auto_keeps_one_copy_when_memory_is_short(model_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hf, "_free_bytes", lambda device: 1000)  # noqa: ARG005
    assert hf.choose_mode("auto", model_dir, torch.device("cpu")) == "unmerged"


@pytest.mark.parametrize("chat", [True, False])
def test_only_a_chat_model_goes_on_behind_a_line_break(tmp_path: Path, chat: bool) -> None:
    """All tokens are worth a line break here: a row ends at the first text behind one, or at its limit."""
    engine = HfEngine.load(tiny.save_model(tmp_path, chat=chat), device="cpu", dtype="float32", threads=1)
    engine._decode = lambda tokens: "\n".join("a" for _ in tokens)  # type: ignore[method-assign]
    answers = {
        lines: engine.generate(GenerateRequest((5, 6, 7), False, 4, several_lines=lines))
        for lines in (True, False)
    }
    engine.close()
    assert (answers[False].text, answers[False].finish) == ("a", "stop")
    assert (answers[True].text, answers[True].finish) == (("a\na\na\na", "length") if chat else ("a", "stop"))
