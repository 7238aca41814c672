"""LoRA training of an alignment adapter on any Hugging Face causal model; the only module that knows peft."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from peft import LoraConfig, PeftModel, get_peft_model
from peft.utils import get_peft_model_state_dict
from torch import Tensor, nn

from lte_runtime.align.dataset import IGNORED, Encoded, by_length


@dataclass(frozen=True, slots=True)
class Settings:
    """How an adapter is trained: `batch` rows an update; `first` weighs an answer's first token."""

    rank: int = 16
    alpha: int = 32
    rate: float = 7e-4
    warm: int = 20
    batch: int = 64
    first: float = 2.0
    threads: int = 2
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Update:
    """One finished update."""

    number: int
    loss: float


def linear_names(model: Any) -> list[str]:
    """Names of the linear layers of the blocks: every linear weight but the vocabulary's head."""
    head = model.get_output_embeddings()
    found = {
        name.rsplit(".", 1)[-1]
        for name, module in model.named_modules()
        if (isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D") and module is not head
    }
    return sorted(found)


def with_adapter(model: Any, settings: Settings) -> PeftModel:
    """The model with a fresh LoRA adapter on every linear layer, its own weights frozen."""
    torch.manual_seed(settings.seed)
    turned = any(type(module).__name__ == "Conv1D" for module in model.modules())
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=0.0,
        target_modules=linear_names(model),
        fan_in_fan_out=turned,
    )
    return get_peft_model(model, config)


def train(adapted: PeftModel, rows: Sequence[Encoded], settings: Settings) -> Iterator[Update]:
    """One pass over the rows in seeded order; the rate warms up, then falls linearly to zero."""
    weights = [value for value in adapted.parameters() if value.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=settings.rate, betas=(0.9, 0.95), weight_decay=0.0)
    chunks = _chunks(len(rows), settings)
    adapted.train()
    with ThreadPoolExecutor(settings.threads) as pool:
        for number, chunk in enumerate(chunks):
            chosen = [rows[index] for index in chunk]
            share = min((number + 1) / settings.warm, (len(chunks) - number) / len(chunks))
            for part in optimizer.param_groups:
                part["lr"] = settings.rate * share
            loss = _accumulate(adapted, weights, chosen, settings, pool)
            torch.nn.utils.clip_grad_norm_(weights, 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            yield Update(number + 1, loss)


def _chunks(count: int, settings: Settings) -> list[list[int]]:
    order = list(range(count))
    random.Random(settings.seed).shuffle(order)
    return [order[start : start + settings.batch] for start in range(0, count, settings.batch)]


def _accumulate(
    adapted: PeftModel,
    weights: Sequence[Tensor],
    rows: Sequence[Encoded],
    settings: Settings,
    pool: ThreadPoolExecutor,
) -> float:
    """Sets the gradients of the rows' mean loss; groups of like length are computed side by side."""
    budget = sum(len(row.input_ids) for row in rows) // (2 * settings.threads) + 1
    groups = [[rows[index] for index in group] for group in by_length(rows, budget)]
    total = sum(row.answer_length + settings.first - 1 for row in rows)
    jobs = [pool.submit(_gradients, adapted, weights, group, settings.first, total) for group in groups]
    loss = 0.0
    for job in jobs:
        value, gradients = job.result()
        loss += value
        for weight, gradient in zip(weights, gradients, strict=True):
            weight.grad = gradient if weight.grad is None else weight.grad.add_(gradient)
    return loss


def _gradients(
    adapted: PeftModel, weights: Sequence[Tensor], rows: Sequence[Encoded], first: float, total: float
) -> tuple[float, tuple[Tensor, ...]]:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = weighted_loss(adapted, rows, first) / total
    return float(loss.detach()), torch.autograd.grad(loss, list(weights))


def weighted_loss(adapted: PeftModel, rows: Sequence[Encoded], first: float) -> Tensor:
    """Sum of the answers' cross-entropies, the first token of each answer weighted `first`.

    The vocabulary's scores are made only where an answer token is predicted.
    """
    ids, labels = _padded(rows)
    model = adapted.get_base_model()
    mask = (torch.arange(ids.shape[1]) < torch.tensor([[len(row.input_ids)] for row in rows])).long()
    states = model.base_model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state[:, :-1]
    targets = labels[:, 1:]
    answered = targets != IGNORED
    scores = model.get_output_embeddings()(states[answered]).float()
    begins = answered & ~F.pad(answered, (1, 0))[:, :-1]
    scale = torch.where(begins, first, 1.0)[answered]
    return (F.cross_entropy(scores, targets[answered], reduction="none") * scale).sum()


def _padded(rows: Sequence[Encoded]) -> tuple[Tensor, Tensor]:
    """Ids and labels [rows, length], padded on the right."""
    length = max(len(row.input_ids) for row in rows)
    ids = [[*row.input_ids, *([0] * (length - len(row.input_ids)))] for row in rows]
    labels = [[*row.labels, *([IGNORED] * (length - len(row.labels)))] for row in rows]
    return torch.tensor(ids), torch.tensor(labels)


@torch.no_grad()
def soften(adapted: PeftModel, share: float) -> None:
    """Go `share` of the way from the base to the trained model (Wortsman et al., 2022, arXiv 2109.01903).

    A small model forgets some of its reading for what it is taught; part of the way keeps most of both.
    """
    for name, value in adapted.named_parameters():
        if "lora_B" in name:
            value.mul_(share)


def save(adapted: PeftModel, folder: Path) -> None:
    """Writes `adapter_config.json` and `adapter_model.safetensors` (bf16)."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: value.bfloat16() for name, value in get_peft_model_state_dict(adapted).items()}
    adapted.save_pretrained(folder, state_dict=None, safe_serialization=True)
    config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    named = {**config, "base_model_name_or_path": ""}  # a path of the machine that trained it says nothing
    (folder / "adapter_config.json").write_text(json.dumps(named, indent=2) + "\n", encoding="utf-8")
    _save_weights(state, folder / "adapter_model.safetensors")
    (folder / "README.md").unlink(missing_ok=True)


def _save_weights(state: dict[str, Tensor], path: Path) -> None:
    from safetensors.torch import save_file

    save_file(
        {name: value.contiguous() for name, value in state.items()}, str(path), metadata={"format": "pt"}
    )
