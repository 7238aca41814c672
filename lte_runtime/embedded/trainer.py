"""The training loop of the base: seeded batches by step number, checkpoints by rename, exact resume."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from lte_runtime.embedded import network
from lte_runtime.embedded.network import Shape, TokenBatch
from lte_runtime.embedded.optimizer import Optimizer, rate

CPU = torch.device("cpu")


@dataclass(frozen=True, slots=True)
class TrainingPlan:
    """What a run does: `steps` updates, rates falling over the last `decay` of them, saved every `every`.

    `workers` processes make the batches, or a thread does; progress is told every `told` steps. With
    `seconds` the run ends after that time, if `steps` do not end it before, and the rates fall by the clock.
    """

    steps: int
    matrix_rate: float = 0.02
    other_rate: float = 1.5e-3
    decay: float = 0.5
    every: int = 250
    threads: int = 2
    dtype: torch.dtype = torch.bfloat16
    device: torch.device = CPU
    workers: int = 0
    told: int = 1
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class TrainerProgress:
    """Steps that were finished: loss and share of right tokens are means since the last telling."""

    step: int
    loss: float
    right: float
    tokens: int
    seconds: float


@dataclass
class CheckpointState:
    """Everything that a checkpoint keeps."""

    parameters: dict[str, Tensor]
    optimizer: Optimizer
    step: int = 0
    tokens: int = 0
    seconds: float = 0.0


def start(shape: Shape, seed: int, device: torch.device = CPU) -> CheckpointState:
    return _state(network.initial(shape, seed), device)


def go_on(weights: Path, seed: int, device: torch.device = CPU) -> CheckpointState:
    """A new run from the weights of an exported base, its crowded embeddings spread."""
    parameters = {name: value.float() for name, value in load_file(weights).items()}
    network.spread(parameters["model.embed_tokens.weight"], seed)
    return _state(parameters, device)


def _state(parameters: dict[str, Tensor], device: torch.device) -> CheckpointState:
    there = {name: value.detach().to(device).requires_grad_() for name, value in parameters.items()}
    return CheckpointState(there, Optimizer(there))


def save(state: CheckpointState, path: Path) -> None:
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


def resume(path: Path, device: torch.device = CPU) -> CheckpointState:
    """The state that `save` wrote."""
    kept = torch.load(path, weights_only=True, map_location=device)
    parameters = {name: value.requires_grad_() for name, value in kept["parameters"].items()}
    optimizer = Optimizer(parameters)
    optimizer.restore(kept["optimizer"])
    return CheckpointState(parameters, optimizer, kept["step"], kept["tokens"], kept["seconds"])


def run(
    state: CheckpointState,
    shape: Shape,
    plan: TrainingPlan,
    batch_of: Callable[[int], Sequence[TokenBatch]],
    checkpoint: Path,
) -> Generator[TrainerProgress, None, None]:
    """Trains from `state.step` to the plan's end; `batch_of(step)` must depend on the step alone.

    Each part of a batch has a thread of its own: one meeting a step costs less than one an operation.
    """
    tables = network.rope(shape)
    tables = (tables[0].to(plan.device), tables[1].to(plan.device))
    since: list[Tensor] = []
    began = started = time.monotonic()
    with ThreadPoolExecutor(plan.threads) as pool, closing(coming(state.step, plan, batch_of)) as stream:
        for made in stream:
            parts = [part.to(plan.device) for part in made]
            total = torch.stack([part.weights.sum() for part in parts]).sum()
            gradients = functools.partial(_gradients, state.parameters, shape, tables, plan.dtype)
            results = list((pool.map if len(parts) > 1 else map)(gradients, parts))
            _accumulate(state.parameters, [each for each, _, _ in results], total)
            done = max(state.step / plan.steps, plan.seconds and (time.monotonic() - started) / plan.seconds)
            share = rate(state.step, done, decay=plan.decay)
            state.optimizer.step(plan.matrix_rate * share, plan.other_rate * share, pool)
            state.step += 1
            state.tokens += sum(len(part.ids) for part in parts)
            places = torch.stack([(part.weights > 0).sum() for part in parts]).sum()
            loss = torch.stack([value for _, value, _ in results]).sum() / total
            right = torch.stack([hits for _, _, hits in results]).sum() / places
            since.append(torch.stack([loss, right]))
            last = state.step == plan.steps or done >= 1.0
            if state.step % plan.told and state.step % plan.every and not last:
                continue
            # Read seldom: a GPU must be waited for.
            means = torch.stack(since).mean(0).tolist()
            since.clear()
            state.seconds += time.monotonic() - began
            began = time.monotonic()
            if state.step % plan.every == 0 or last:
                save(state, checkpoint)
            yield TrainerProgress(state.step, means[0], means[1], state.tokens, state.seconds)
            if last:
                return


def coming(
    step: int, plan: TrainingPlan, batch_of: Callable[[int], Sequence[TokenBatch]]
) -> Generator[Sequence[TokenBatch], None, None]:
    """The batches from `step` to the plan's end, made ahead by processes or by a thread."""
    if plan.workers:
        steps = _Steps(step, plan.steps, batch_of)
        yield from DataLoader(
            steps,
            batch_size=None,
            num_workers=plan.workers,
            prefetch_factor=4,
            multiprocessing_context="fork",
        )
        return
    with ThreadPoolExecutor(1) as ahead:
        awaited = ahead.submit(batch_of, step)
        while step < plan.steps:
            made, step = awaited.result(), step + 1
            if step < plan.steps:
                awaited = ahead.submit(batch_of, step)
            yield made


@dataclass(frozen=True)
class _Steps(Dataset[Sequence[TokenBatch]]):
    """The batches of a run as torch's loader asks for them."""

    first: int
    steps: int
    batch_of: Callable[[int], Sequence[TokenBatch]]

    def __len__(self) -> int:
        return self.steps - self.first

    def __getitem__(self, index: int) -> Sequence[TokenBatch]:
        return self.batch_of(self.first + index)


def _gradients(
    parameters: dict[str, Tensor],
    shape: Shape,
    tables: tuple[Tensor, Tensor],
    dtype: torch.dtype,
    batch: TokenBatch,
) -> tuple[tuple[Tensor, ...], Tensor, Tensor]:
    value, right = network.loss(parameters, shape, batch, tables, dtype)
    gradients = torch.autograd.grad(value, list(parameters.values()))
    return gradients, value.detach(), right


@torch.no_grad()
def _accumulate(parameters: dict[str, Tensor], parts: Sequence[Sequence[Tensor]], total: Tensor) -> None:
    for value, gradients in zip(parameters.values(), zip(*parts, strict=True), strict=True):
        summed = gradients[0]
        for other in gradients[1:]:
            summed += other
        value.grad = summed.div_(total)
