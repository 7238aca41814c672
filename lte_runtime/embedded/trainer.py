"""The training loop of the base: seeded batches by step number, checkpoints by rename, exact resume."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from lte_runtime.embedded import network
from lte_runtime.embedded.network import Batch, Shape
from lte_runtime.embedded.optimizer import Optimizer, rate


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run does: `steps` updates, rates falling over the last `decay` of them, saved every `every`."""

    steps: int
    matrix_rate: float = 0.02
    other_rate: float = 1.5e-3
    decay: float = 0.5
    every: int = 250
    threads: int = 2
    dtype: torch.dtype = torch.bfloat16


@dataclass(frozen=True, slots=True)
class Progress:
    """One finished step."""

    step: int
    loss: float
    right: float
    tokens: int
    seconds: float


@dataclass
class State:
    """Everything that a checkpoint keeps."""

    parameters: dict[str, Tensor]
    optimizer: Optimizer
    step: int = 0
    tokens: int = 0
    seconds: float = 0.0


def start(shape: Shape, seed: int) -> State:
    parameters = network.initial(shape, seed)
    return State(parameters, Optimizer(parameters))


def go_on(weights: Path, seed: int) -> State:
    """A new run from the weights of an exported base, its crowded embeddings spread."""
    parameters = {name: value.float() for name, value in load_file(weights).items()}
    network.spread(parameters["model.embed_tokens.weight"], seed)
    for value in parameters.values():
        value.requires_grad_()
    return State(parameters, Optimizer(parameters))


def save(state: State, path: Path) -> None:
    """Writes beside and renames, so that a kill at any moment leaves a whole checkpoint."""
    kept: dict[str, Any] = {
        "parameters": {name: value.detach() for name, value in state.parameters.items()},
        "optimizer": state.optimizer.state(),
        "step": state.step,
        "tokens": state.tokens,
        "seconds": state.seconds,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".part")
    with beside.open("wb") as file:
        torch.save(kept, file)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)


def resume(path: Path) -> State:
    """The state that `save` wrote."""
    kept = torch.load(path, weights_only=True)
    parameters = {name: value.requires_grad_() for name, value in kept["parameters"].items()}
    optimizer = Optimizer(parameters)
    optimizer.restore(kept["optimizer"])
    return State(parameters, optimizer, kept["step"], kept["tokens"], kept["seconds"])


def run(
    state: State,
    shape: Shape,
    plan: Plan,
    batch_of: Callable[[int], Sequence[Batch]],
    checkpoint: Path,
) -> Generator[Progress, None, None]:
    """Trains from `state.step` to the plan's end; `batch_of(step)` must depend on the step alone.

    Each part of a batch has a thread of its own: one meeting a step costs less than one an operation.
    """
    tables = network.rope(shape)
    with ThreadPoolExecutor(plan.threads) as pool, ThreadPoolExecutor(1) as ahead:
        coming = ahead.submit(batch_of, state.step)
        while state.step < plan.steps:
            began = time.monotonic()
            parts = coming.result()
            coming = ahead.submit(batch_of, state.step + 1)
            total = float(sum(part.weights.sum() for part in parts))
            jobs = [
                pool.submit(_gradients, state.parameters, shape, part, tables, plan.dtype) for part in parts
            ]
            results = [job.result() for job in jobs]
            _accumulate(state.parameters, [gradients for gradients, _, _ in results], total)
            share = rate(state.step, plan.steps, decay=plan.decay)
            state.optimizer.step(plan.matrix_rate * share, plan.other_rate * share, pool)
            state.step += 1
            state.tokens += sum(len(part.ids) for part in parts)
            state.seconds += time.monotonic() - began
            if state.step % plan.every == 0 or state.step == plan.steps:
                save(state, checkpoint)
            places = sum(int((part.weights > 0).sum()) for part in parts)
            mean, right = (
                sum(value for _, value, _ in results) / total,
                sum(hits for _, _, hits in results) / places,
            )
            yield Progress(state.step, mean, right, state.tokens, state.seconds)


def _gradients(
    parameters: dict[str, Tensor],
    shape: Shape,
    batch: Batch,
    tables: tuple[Tensor, Tensor],
    dtype: torch.dtype,
) -> tuple[tuple[Tensor, ...], float, int]:
    value, right = network.loss(parameters, shape, batch, tables, dtype)
    gradients = torch.autograd.grad(value, list(parameters.values()))
    return gradients, float(value.detach()), int(right)


@torch.no_grad()
def _accumulate(parameters: dict[str, Tensor], parts: Sequence[Sequence[Tensor]], total: float) -> None:
    for value, gradients in zip(parameters.values(), zip(*parts, strict=True), strict=True):
        summed = gradients[0]
        for other in gradients[1:]:
            summed += other
        value.grad = summed.div_(total)
