"""The fused layers compute what peft's and transformers' compute, and go away again."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import PeftModel
from peft.tuners.lora import Linear
from transformers import Qwen2Config, Qwen2ForCausalLM

from lte_runtime.align.data.dataset import IGNORED, EncodedRow
from lte_runtime.align.job import fused, train
from lte_runtime.align.settings import TrainingSettings

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

SETTINGS = TrainingSettings(rank=4, alpha=8, threads=1)
ROWS = [
    EncodedRow((5, 6, 7, 8, 9, 3), (*([IGNORED] * 3), 8, 9, 3)),
    EncodedRow((20, 21, 22, 3), (*([IGNORED] * 2), 22, 3)),
]


def adapted() -> PeftModel:
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=50,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        intermediate_size=64,
    )
    model = train.with_adapter(Qwen2ForCausalLM(config).bfloat16(), SETTINGS)
    for name, value in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(value, std=0.1)
    return model


def lora_layers(model: PeftModel) -> list[Any]:
    return [module for module in model.modules() if type(module) is Linear]


def gradients(model: PeftModel) -> tuple[float, dict[str, torch.Tensor]]:
    model.zero_grad()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = train.weighted_loss(model, ROWS, 1.0)
    loss.backward()
    found = {name: value.grad for name, value in model.named_parameters() if value.grad is not None}
    return float(loss.detach()), found


def test_loss_and_gradients_are_those_of_the_usual_layers() -> None:
    model = adapted()
    usual_loss, usual = gradients(model)
    with fused.layers(model, lora_layers(model)):
        loss, made = gradients(model)
    assert loss == pytest.approx(usual_loss, rel=0.02)
    assert made.keys() == usual.keys()
    assert len(made) == 2 * 2 * 7
    for name, value in usual.items():
        assert made[name].dtype == torch.float32
        alike = torch.nn.functional.cosine_similarity(made[name].flatten(), value.flatten(), dim=0)
        assert alike > 0.99, name
        assert float(made[name].norm()) == pytest.approx(float(value.norm()), rel=0.1), name


def test_outside_of_training_the_usual_layers_answer() -> None:
    model = adapted()
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad(), model.disable_adapter():
        usual = model(ids).logits
        with fused.layers(model, lora_layers(model)):
            torch.testing.assert_close(model(ids).logits, usual, rtol=0.05, atol=0.02)
    assert not any("forward" in vars(module) for module in model.modules())
