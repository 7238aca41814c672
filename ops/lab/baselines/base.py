"""The model under edit, its rows of token ids, and reading it: greedy answers and teacher forcing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM
from transformers.utils import logging as transformers_logging

from lte_runtime.align.data.dataset import closing
from lte_runtime.answer import prompt
from lte_runtime.answer.engine import greedy
from lte_runtime.answer.engine.files import base_fingerprint
from lte_runtime.answer.engine.rows import GenerationRow
from lte_runtime.answer.engine.tokenizer import load_tokenizer
from lte_runtime.answer.engine.torch_session import TorchSession, takes_padding
from lte_runtime.types import GenerateRequest
from ops.lab.baselines.protocol import Forced

# Rows that one forward pass takes when nothing else says how many.
ROWS = 32
ANSWER_ROOM = 64


@dataclass(frozen=True, slots=True)
class BaselineModel:
    """A causal model in float32 evaluation mode, its tokenizer, and the hash that names its weights."""

    model: Any
    tokenizer: Any
    fingerprint: str

    @classmethod
    def load(cls, directory: Path) -> BaselineModel:
        """From a directory in the Hugging Face layout; `Refused` where it holds no safetensors."""
        fingerprint = base_fingerprint(directory)
        transformers_logging.disable_progress_bar()
        model = AutoModelForCausalLM.from_pretrained(
            directory, dtype=torch.float32, local_files_only=True, use_safetensors=True
        )
        return cls(model.requires_grad_(False).eval(), load_tokenizer(directory), fingerprint)

    @property
    def context(self) -> int:
        """Tokens that the model can see."""
        return int(getattr(self.model.config, "max_position_embeddings", 0) or 1 << 20)

    @property
    def device(self) -> torch.device:
        return torch.device(self.model.device)


@dataclass(frozen=True, slots=True)
class Sample:
    """Ids of a prompt and of the target behind it."""

    prompt: tuple[int, ...]
    target: tuple[int, ...]


def question(base: BaselineModel, text: str) -> tuple[int, ...]:
    """Ids of a question as the product asks it without facts."""
    room = base.context - min(ANSWER_ROOM, base.context // 4)
    return prompt.build(base.tokenizer, text, max_tokens=room).token_ids


def target_ids(base: BaselineModel, text: str) -> tuple[int, ...]:
    """Ids of an answer as it follows a prompt: behind a blank where no chat template sets it apart."""
    blank = "" if base.tokenizer.chat_template else " "
    return tuple(prompt.untrusted(base.tokenizer, blank + prompt.one_line(text)))


def sample(base: BaselineModel, text: str, target: str, *, end: bool) -> Sample:
    """One row; with `end` the target is closed by the token that ends an answer."""
    close = (closing(base.tokenizer),) if end else ()
    return Sample(question(base, text), (*target_ids(base, target), *close))


def padded(base: BaselineModel, rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Ids and mask, both [rows, longest], padded on the right, so that positions stay as they are."""
    longest = max(map(len, rows))
    ids = [[*row, *([0] * (longest - len(row)))] for row in rows]
    mask = [[1] * len(row) + [0] * (longest - len(row)) for row in rows]
    return torch.tensor(ids, device=base.device), torch.tensor(mask, device=base.device)


def logits(base: BaselineModel, rows: Sequence[Sequence[int]]) -> Tensor:
    """Next-token logits [rows, longest, vocabulary]."""
    ids, mask = padded(base, rows)
    out: Tensor = base.model(input_ids=ids, attention_mask=mask, use_cache=False).logits
    return out


def target_logits(scores: Tensor, samples: Sequence[Sample]) -> list[Tensor]:
    """Of logits [rows, longest, vocabulary], those that predict each row's target: [target, vocabulary]."""
    starts = [len(row.prompt) - 1 for row in samples]
    return [
        scores[index, start : start + len(row.target)]
        for index, (start, row) in enumerate(zip(starts, samples, strict=True))
    ]


def target_places(samples: Sequence[Sample]) -> tuple[Tensor, Tensor]:
    """Rows and columns of the logits that predict the targets, one after the other, each [tokens]."""
    places = [
        (row, len(sample.prompt) - 1 + at)
        for row, sample in enumerate(samples)
        for at in range(len(sample.target))
    ]
    rows, columns = torch.tensor(places).T
    return rows, columns


def losses(scores: Tensor, samples: Sequence[Sample]) -> Tensor:
    """Mean negative log likelihood of the target's tokens, in nats, [rows], from all `logits`."""
    # One gather for all rows: the gradient of a slice is as large as all scores, and a row would have one.
    return placed_losses(scores[target_places(samples)], samples)


def placed_losses(scores: Tensor, samples: Sequence[Sample]) -> Tensor:
    """`losses` from the logits at `target_places` alone, [tokens, vocabulary]."""
    expected = torch.tensor([token for row in samples for token in row.target], device=scores.device)
    token_losses = torch.nn.functional.cross_entropy(scores, expected, reduction="none")
    lengths = torch.tensor([len(row.target) for row in samples], device=scores.device)
    owners = torch.arange(len(samples), device=scores.device).repeat_interleave(lengths)
    return torch.zeros(len(samples), device=scores.device).index_add(0, owners, token_losses) / lengths


@torch.no_grad()
def forced(base: BaselineModel, samples: Sequence[Sample]) -> list[Forced]:
    """Each target under teacher forcing."""
    results: list[Forced] = []
    for start in range(0, len(samples), ROWS):
        chunk = samples[start : start + ROWS]
        scores = logits(base, [(*row.prompt, *row.target) for row in chunk])
        parts = target_logits(scores, chunk)
        results += [_read(part, row.target) for part, row in zip(parts, chunk, strict=True)]
    return results


def _read(scores: Tensor, target: Sequence[int]) -> Forced:
    """`scores` [target, vocabulary]."""
    expected = torch.tensor(target, device=scores.device)
    chosen = scores.log_softmax(-1).gather(-1, expected[:, None])
    return Forced(tuple((scores.argmax(-1) == expected).tolist()), float(chosen.sum()))


@torch.no_grad()
def answers(base: BaselineModel, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> list[str]:
    """The first line of the greedy continuation of each prompt, decoded as the product decodes."""
    last = base.model.config.eos_token_id
    ends = prompt.ends(base.tokenizer) | set(last if isinstance(last, list) else [last]) - {None}

    def decode(tokens: Sequence[int]) -> str:
        return str(base.tokenizer.decode(tokens, skip_special_tokens=True))

    requests = [GenerateRequest(tuple(ids), adapter=False, max_new_tokens=max_new_tokens) for ids in prompts]
    rows = [GenerationRow(request, decode, ends) for request in requests]
    pads = takes_padding(base.model)
    for group in _chunks(rows) if pads else greedy.by_length(rows):
        greedy.generate(TorchSession(base.model, base.model.config, base.device), group, _ignore)
    return [row.text for row in rows]


def _ignore(_: GenerationRow) -> None:
    """Nobody waits for a single row."""


def _chunks(rows: Sequence[GenerationRow]) -> list[Sequence[GenerationRow]]:
    """Rows of like length together."""
    order = sorted(rows, key=lambda row: len(row.request.token_ids))
    return [order[start : start + ROWS] for start in range(0, len(order), ROWS)]
