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

from ops.lab.recipes import network
from ops.lab.recipes.network import Shape, TokenBatch
from ops.lab.recipes.optimizer import Optimizer, rate

CPU = torch.device("cpu")


@dataclass(frozen=True, slots=True)
class TrainingPlan:
    """What a run does: `steps` updates, rates falling over the last `decay` of them, saved every `every`.

    `workers` processes make the batches, or a thread if 0; progress is reported every `report_every` steps.
    With `seconds` the run ends after that time or after `steps`, whichever comes first, and the rates fall
    with the elapsed time.
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
    report_every: int = 1
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class TrainerProgress:
    """Steps that were finished: loss and share of right tokens are means since the last report."""

    step: int
    loss: float
    right: float
    tokens: int
    seconds: float


@dataclass
class CheckpointState:
    """Everything that a checkpoint holds."""

    parameters: dict[str, Tensor]
    optimizer: Optimizer
    step: int = 0
    tokens: int = 0
    seconds: float = 0.0


def start(shape: Shape, seed: int, device: torch.device = CPU) -> CheckpointState:
    return _state(network.initial(shape, seed), device)


def start_from_weights(weights: Path, seed: int, device: torch.device = CPU) -> CheckpointState:
    """A new run from the weights of an exported base, its crowded embeddings spread."""
    parameters = {name: value.float() for name, value in load_file(weights).items()}
    network.spread(parameters["model.embed_tokens.weight"], seed)
    return _state(parameters, device)


def _state(parameters: dict[str, Tensor], device: torch.device) -> CheckpointState:
    leaves = {name: value.detach().to(device).requires_grad_() for name, value in parameters.items()}
    return CheckpointState(leaves, Optimizer(leaves))


def save(state: CheckpointState, path: Path) -> None:
    """Writes a `.part` file and renames it, so that a kill at any moment leaves a complete checkpoint."""
    contents: dict[str, Any] = {
        "parameters": {name: value.detach() for name, value in state.parameters.items()},
        "optimizer": state.optimizer.state(),
        "step": state.step,
        "tokens": state.tokens,
        "seconds": state.seconds,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    part_path = path.with_suffix(".part")
    with part_path.open("wb") as file:
        torch.save(contents, file)
        file.flush()
        os.fsync(file.fileno())
    part_path.replace(path)


def resume(path: Path, device: torch.device = CPU) -> CheckpointState:
    """The state that `save` wrote."""
    contents = torch.load(path, weights_only=True, map_location=device)
    parameters = {name: value.requires_grad_() for name, value in contents["parameters"].items()}
    optimizer = Optimizer(parameters)
    optimizer.restore(contents["optimizer"])
    return CheckpointState(parameters, optimizer, contents["step"], contents["tokens"], contents["seconds"])


def run(
    state: CheckpointState,
    shape: Shape,
    plan: TrainingPlan,
    batch_of: Callable[[int], Sequence[TokenBatch]],
    checkpoint: Path,
) -> Generator[TrainerProgress, None, None]:
    """Trains from `state.step` to the plan's end; `batch_of(step)` must depend on the step alone.

    Each part of a batch has its own thread: threads then meet once per step, not once per operation.
    """
    tables = network.rope(shape)
    tables = (tables[0].to(plan.device), tables[1].to(plan.device))
    unreported: list[Tensor] = []
    interval_start = run_start = time.monotonic()
    with ThreadPoolExecutor(plan.threads) as pool, closing(prefetch(state.step, plan, batch_of)) as stream:
        for step_batches in stream:
            parts = [part.to(plan.device) for part in step_batches]
            total = torch.stack([part.weights.sum() for part in parts]).sum()
            gradients_of = functools.partial(_gradients, state.parameters, shape, tables, plan.dtype)
            results = list((pool.map if len(parts) > 1 else map)(gradients_of, parts))
            _accumulate(state.parameters, [gradients for gradients, _, _ in results], total)
            share_done = max(
                state.step / plan.steps, plan.seconds and (time.monotonic() - run_start) / plan.seconds
            )
            rate_factor = rate(state.step, share_done, decay=plan.decay)
            state.optimizer.step(plan.matrix_rate * rate_factor, plan.other_rate * rate_factor, pool)
            state.step += 1
            state.tokens += sum(len(part.ids) for part in parts)
            places = torch.stack([(part.weights > 0).sum() for part in parts]).sum()
            loss = torch.stack([value for _, value, _ in results]).sum() / total
            right = torch.stack([hits for _, _, hits in results]).sum() / places
            unreported.append(torch.stack([loss, right]))
            last = state.step == plan.steps or share_done >= 1.0
            if state.step % plan.report_every and state.step % plan.every and not last:
                continue
            # Reading the values waits for the GPU, so it is done seldom.
            means = torch.stack(unreported).mean(0).tolist()
            unreported.clear()
            state.seconds += time.monotonic() - interval_start
            interval_start = time.monotonic()
            if state.step % plan.every == 0 or last:
                save(state, checkpoint)
            yield TrainerProgress(state.step, means[0], means[1], state.tokens, state.seconds)
            if last:
                return


def prefetch(
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
    with ThreadPoolExecutor(1) as pool:
        pending = pool.submit(batch_of, step)
        while step < plan.steps:
            step_batches, step = pending.result(), step + 1
            if step < plan.steps:
                pending = pool.submit(batch_of, step)
            yield step_batches


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
