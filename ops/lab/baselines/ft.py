"""FT: plain fine-tuning on the edits, without any constraint (the baseline of Zhu et al., 2020)."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import nn

from ops.lab.baselines import base as reading
from ops.lab.baselines.base import BaselineModel, Sample
from ops.lab.baselines.network import blocks
from ops.lab.baselines.protocol import EditRequest
from ops.lab.baselines.weights import OriginalWeights


@dataclass(frozen=True, slots=True)
class Descent:
    """Adam until every edit of the batch has a mean loss below `enough` (nats per token), or `epochs`."""

    rate: float = 1e-3
    epochs: int = 30
    batch: int = 16
    enough: float = 0.02
    end: bool = True
    seed: int = 0


@dataclass(frozen=True, slots=True)
class FtParams:
    """`layers` are the blocks whose weights learn, all of them where it is None."""

    layers: tuple[int, ...] | None = None
    descent: Descent = field(default_factory=Descent)


class Ft:
    """Minimises -log P(target | prompt) over the weights of the chosen blocks."""

    def __init__(self, params: FtParams) -> None:
        self._params = params

    def __call__(
        self, base: BaselineModel, originals: OriginalWeights, requests: Sequence[EditRequest]
    ) -> None:
        learnt = block_weights(base, self._params.layers)
        originals.keep(learnt)
        descend(base, learnt, requests, self._params.descent)


def block_weights(base: BaselineModel, layers: Sequence[int] | None) -> list[nn.Parameter]:
    model_blocks = blocks(base.model)
    chosen = range(len(model_blocks)) if layers is None else layers
    return [parameter for layer in chosen for parameter in model_blocks[layer].parameters()]


def descend(
    base: BaselineModel,
    learnt: Sequence[nn.Parameter],
    requests: Sequence[EditRequest],
    descent: Descent,
    project: Callable[[], None] = lambda: None,
) -> None:
    """Fine-tunes `learnt` in place; `project` runs after each step (projected gradient descent)."""
    rows = [reading.sample(base, request.prompt, request.target, end=descent.end) for request in requests]
    optimizer = torch.optim.Adam(learnt, lr=descent.rate)
    rng = random.Random(descent.seed)
    _set_trainable(learnt, True)
    try:
        for _ in range(descent.epochs):
            worst = max(_step(base, chunk, optimizer, project) for chunk in _chunks(rows, descent.batch, rng))
            if worst < descent.enough:
                break
    finally:
        _set_trainable(learnt, False)


def _step(
    base: BaselineModel, rows: Sequence[Sample], optimizer: torch.optim.Optimizer, project: Callable[[], None]
) -> float:
    """One update; returns the largest loss of a row before it."""
    row_losses = reading.losses(reading.logits(base, [(*row.prompt, *row.target) for row in rows]), rows)
    optimizer.zero_grad(set_to_none=True)
    row_losses.mean().backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    with torch.no_grad():
        project()
    return float(row_losses.detach().max())


def _chunks(rows: Sequence[Sample], size: int, rng: random.Random) -> Iterator[list[Sample]]:
    order = list(rows)
    rng.shuffle(order)
    for start in range(0, len(order), size):
        yield order[start : start + size]


def _set_trainable(learnt: Sequence[nn.Parameter], requires_grad: bool) -> None:
    for parameter in learnt:
        parameter.grad = None
        parameter.requires_grad_(requires_grad)
