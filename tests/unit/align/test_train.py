"""LoRA on any architecture: targets found, labels on answers alone, the adapter written and read again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from peft import PeftModel
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from lte_runtime.align.data.dataset import IGNORED, EncodedRow, by_length
from lte_runtime.align.job import train
from lte_runtime.align.settings import TrainingSettings

# peft still asks transformers for a property's old name.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

SIZE = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}


def tiny(kind: str) -> Any:
    """A random model of one architecture."""
    torch.manual_seed(0)
    if kind == "gpt2":
        return GPT2LMHeadModel(GPT2Config(vocab_size=50, n_embd=16, n_layer=2, n_head=2, n_positions=64))
    if kind == "neox":
        return GPTNeoXForCausalLM(GPTNeoXConfig(**SIZE, intermediate_size=32, max_position_embeddings=64))
    if kind == "qwen2":
        return Qwen2ForCausalLM(Qwen2Config(**SIZE, intermediate_size=32, num_key_value_heads=1))
    return LlamaForCausalLM(LlamaConfig(**SIZE, intermediate_size=32, num_key_value_heads=2))


ARCHITECTURES = {
    "gpt2": {"c_attn", "c_proj", "c_fc"},
    "neox": {"query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"},
    "qwen2": {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"},
    "llama": {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"},
}


def row(prompt: Sequence[int], answer: Sequence[int]) -> EncodedRow:
    return EncodedRow((*prompt, *answer), (*([IGNORED] * len(prompt)), *answer))


ROWS = [row((5, 6, 7), (8, 9, 3)), row((5, 11, 12, 13, 14), (15, 3)), row((20, 21), (22, 23, 24, 3))]
SETTINGS = TrainingSettings(rank=4, alpha=8, batch=3, rate=5e-3, warm=1)


def run(adapted: PeftModel, rows: Sequence[EncodedRow], folder: Path, **options: Any) -> list[float]:
    """Trains and returns the loss of each update."""
    losses: list[float] = []
    settings = options.pop("settings", SETTINGS)
    train.train(
        adapted, rows, settings, folder=folder, watch=lambda done: losses.append(done.loss), **options
    )
    return losses


@pytest.mark.parametrize("kind", sorted(ARCHITECTURES))
def test_targets_are_every_linear_of_the_blocks(kind: str) -> None:
    assert set(train.linear_names(tiny(kind))) == ARCHITECTURES[kind]


@pytest.mark.parametrize("kind", sorted(ARCHITECTURES))
def test_only_the_adapter_is_trained_and_the_loss_falls(kind: str, tmp_path: Path) -> None:
    model = tiny(kind)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    adapted = train.with_adapter(model, SETTINGS)
    losses = run(adapted, ROWS * 30, tmp_path)
    assert losses[-1] < losses[0]
    after = {
        name.replace(".base_layer", ""): value
        for name, value in adapted.get_base_model().state_dict().items()
    }
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_the_loss_is_that_of_the_answers_alone() -> None:
    adapted = train.with_adapter(tiny("llama"), SETTINGS)
    expected = torch.tensor(0.0)
    with torch.no_grad():
        for one in ROWS:
            scores = adapted(input_ids=torch.tensor([one.input_ids])).logits[0, :-1]
            labels = torch.tensor(one.labels[1:])
            each = F.cross_entropy(scores, labels, ignore_index=IGNORED, reduction="none")
            first = int((labels != IGNORED).nonzero()[0])
            expected = expected + each.sum() + 2.0 * each[first]
        measured = train.weighted_loss(adapted, ROWS, 3.0)
    torch.testing.assert_close(measured, expected, rtol=1e-4, atol=1e-4)


def test_equal_seeds_train_equal_adapters(tmp_path: Path) -> None:
    made = []
    for name in "ab":
        made.append(run(train.with_adapter(tiny("llama"), SETTINGS), ROWS * 4, tmp_path / name))
    assert made[0] == pytest.approx(made[1], rel=1e-5)


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_a_saved_adapter_answers_as_the_trained_one(kind: str, tmp_path: Path) -> None:
    adapted = train.with_adapter(tiny(kind), SETTINGS)
    run(adapted, ROWS * 10, tmp_path / "run")
    folder = tmp_path / "adapter"
    train.save(adapted, folder)
    assert {path.name for path in folder.iterdir()} == {"adapter_config.json", "adapter_model.safetensors"}
    loaded = PeftModel.from_pretrained(tiny(kind), folder).eval()
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        torch.testing.assert_close(loaded(ids).logits, adapted.eval()(ids).logits, rtol=0.05, atol=0.02)


def test_a_softened_adapter_goes_part_of_the_way(tmp_path: Path) -> None:
    adapted = train.with_adapter(tiny("llama"), SETTINGS)
    run(adapted, ROWS * 10, tmp_path)
    layers = [module for module in adapted.modules() if hasattr(module, "get_delta_weight")]
    before = [layer.get_delta_weight("default").clone() for layer in layers]
    assert any(change.abs().max() > 0 for change in before)
    train.soften(adapted, 0.25)
    for layer, change in zip(layers, before, strict=True):
        torch.testing.assert_close(layer.get_delta_weight("default"), 0.25 * change)


def test_batches_by_length_hold_every_row_once_within_the_budget() -> None:
    rows = [row(range(1, 2 + n % 7), (3,)) for n in range(20)]
    made = by_length(rows, 24)
    assert sorted(index for batch in made for index in batch) == list(range(20))
    assert all(len(batch) * max(len(rows[index].input_ids) for index in batch) <= 24 for batch in made)


def test_training_ends_when_the_held_out_loss_gains_no_more_and_the_best_is_kept(tmp_path: Path) -> None:
    """Held-out rows contradict the others: the longer it trains, the worse they fare."""
    settings = replace(SETTINGS, every=1, patience=2, rate=2e-2, epochs=20)
    held = [row(one.input_ids[: -one.answer_length], (40, 41, 3)) for one in ROWS]
    adapted = train.with_adapter(tiny("llama"), settings)
    losses: list[float] = []
    done = train.train(
        adapted,
        ROWS * 2,
        settings,
        folder=tmp_path,
        held=held,
        watch=lambda update: losses.append(update.loss),
    )
    assert len(losses) < 40
    assert done.best is not None
    with torch.no_grad():
        weight = sum(one.answer_length + settings.first - 1 for one in held)
        now = float(train.weighted_loss(adapted, held, settings.first)) / weight
    assert now == pytest.approx(done.best, rel=0.02)


def test_smaller_groups_sum_to_the_same_update(tmp_path: Path) -> None:
    settings = replace(SETTINGS, threads=1, bf16=False)
    made = [
        run(train.with_adapter(tiny("llama"), settings), ROWS * 2, tmp_path / str(budget), settings=changed)
        for budget in (0, 8)
        if (changed := replace(settings, budget=budget))
    ]
    assert made[0] == pytest.approx(made[1], rel=1e-4)


def test_threads_compute_the_same_update(tmp_path: Path) -> None:
    settings = replace(SETTINGS, bf16=False)
    made = [
        run(train.with_adapter(tiny("llama"), settings), ROWS * 2, tmp_path / str(threads), settings=changed)
        for threads in (1, 2)
        if (changed := replace(settings, threads=threads))
    ]
    assert made[0] == pytest.approx(made[1], rel=1e-4)


def test_chance_in_the_bases_layers_is_off(tmp_path: Path) -> None:
    """GPT-2's configuration has dropout; with it no run could be resumed to the same loss."""
    made = [run(train.with_adapter(tiny("gpt2"), SETTINGS), ROWS * 2, tmp_path / name) for name in "ab"]
    assert made[0] == pytest.approx(made[1], rel=1e-6)


@pytest.mark.parametrize("kind", ["llama", "gpt2", "neox"])
def test_activations_computed_again_give_the_same_loss(kind: str, tmp_path: Path) -> None:
    settings = replace(SETTINGS, bf16=False, threads=1)
    made = [
        run(train.with_adapter(tiny(kind), settings), ROWS * 2, tmp_path / str(recompute), settings=changed)
        for recompute in (False, True)
        if (changed := replace(settings, recompute=recompute))
    ]
    assert made[0] == pytest.approx(made[1], rel=1e-4)


def test_a_start_goes_on_from_its_adapter(tmp_path: Path) -> None:
    adapted = train.with_adapter(tiny("llama"), SETTINGS)
    run(adapted, ROWS * 10, tmp_path / "first")
    train.save(adapted, tmp_path / "adapter")
    again = train.with_start(tiny("llama"), tmp_path / "adapter")
    with torch.no_grad():
        before = float(train.weighted_loss(adapted, ROWS, 1.0))
        after = float(train.weighted_loss(again, ROWS, 1.0))
    assert after == pytest.approx(before, rel=0.02)
    assert [value for value in again.parameters() if value.requires_grad]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"), True),
        (MemoryError(), True),
        (RuntimeError("shapes differ"), False),
    ],
)
def test_out_of_memory_is_told_from_other_errors(error: BaseException, said: bool) -> None:
    assert train.out_of_memory(error) is said


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_a_base_in_bf16_trains_an_adapter_in_float32(kind: str, tmp_path: Path) -> None:
    """As large bases are kept on a GPU."""
    settings = replace(SETTINGS, threads=1, recompute=True)
    adapted = train.with_adapter(tiny(kind).bfloat16(), settings)
    losses = run(adapted, ROWS * 30, tmp_path, settings=settings)
    assert losses[-1] < losses[0]
    trained = [value for value in adapted.parameters() if value.requires_grad]
    assert {value.dtype for value in trained} == {torch.float32}


def test_the_precision_of_a_training_is_measured_once_and_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cpu = torch.device("cpu")
    assert train.trains_in_bf16(torch.bfloat16, torch.device("cuda"), tmp_path)
    assert not train.trains_in_bf16(torch.float32, cpu, tmp_path)
    assert not list(tmp_path.iterdir())
    seconds = {torch.bfloat16: 2.0, torch.float32: 1.0}
    monkeypatch.setattr(train, "_product_seconds", seconds.__getitem__)
    assert not train.trains_in_bf16(torch.bfloat16, cpu, tmp_path)
    seconds[torch.bfloat16] = 0.5
    # A resumed run goes on in the same numbers.
    assert not train.trains_in_bf16(torch.bfloat16, cpu, tmp_path)
    assert train.trains_in_bf16(torch.bfloat16, cpu, tmp_path / "another")
