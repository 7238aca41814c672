"""Muon for the matrices of the layers and AdamW for all other parameters, with one schedule.

Muon: Jordan et al., 2024 (momentum orthogonalised by a quintic Newton-Schulz iteration). Matrices of one
shape are orthogonalised together as one batch.
"""

from __future__ import annotations

from collections import defaultdict
from concurrent.futures import Executor
from typing import Any

import torch
from torch import Tensor


def orthogonalise(stack: Tensor, steps: int = 5) -> Tensor:
    """Nearest semi-orthogonal matrices, roughly, of a stack [n, rows, columns]."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = stack.bfloat16()
    turned = x.shape[1] > x.shape[2]
    if turned:
        x = x.mT
    x = x / (x.float().norm(dim=(1, 2), keepdim=True) + 1e-7).bfloat16()
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    orthogonal: Tensor = (x.mT if turned else x).float()
    return orthogonal


class Optimizer:
    """Updates named fp32 parameters in place from their gradients."""

    def __init__(self, parameters: dict[str, Tensor], momentum: float = 0.95) -> None:
        self._momentum = momentum
        self._matrices: dict[tuple[int, ...], list[tuple[str, Tensor]]] = defaultdict(list)
        adam_parameters = []
        for name, value in parameters.items():
            if ".layers." in name and value.dim() == 2:
                self._matrices[tuple(value.shape)].append((name, value))
            else:
                adam_parameters.append(value)
        self._buffers = {
            shape: torch.zeros(len(group), *shape, device=group[0][1].device)
            for shape, group in self._matrices.items()
        }
        self._adam = torch.optim.AdamW(
            adam_parameters, lr=1.0, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.0, fused=True
        )

    def step(self, matrix_rate: float, other_rate: float, pool: Executor) -> None:
        """One update, the groups in parallel in `pool`; gradients are consumed and cleared."""
        jobs = [pool.submit(self._step_matrices, shape, matrix_rate) for shape in self._matrices]
        for part in self._adam.param_groups:
            part["lr"] = other_rate
        self._adam.step()
        self._adam.zero_grad(set_to_none=True)
        for job in jobs:
            job.result()

    @torch.no_grad()
    def _step_matrices(self, shape: tuple[int, ...], matrix_rate: float) -> None:
        group, buffer = self._matrices[shape], self._buffers[shape]
        gradient = torch.stack([value.grad for _, value in group if value.grad is not None])
        buffer.lerp_(gradient, 1 - self._momentum)
        update = orthogonalise(gradient.lerp(buffer, self._momentum))
        scale = matrix_rate * max(1.0, shape[0] / shape[1]) ** 0.5
        for (_, value), change in zip(group, update, strict=True):
            value.sub_(change, alpha=scale)
            value.grad = None

    def state(self) -> dict[str, Any]:
        return {"momentum": {str(k): v for k, v in self._buffers.items()}, "adam": self._adam.state_dict()}

    def restore(self, state: dict[str, Any]) -> None:
        for shape, buffer in self._buffers.items():
            buffer.copy_(state["momentum"][str(shape)])
        self._adam.load_state_dict(state["adam"])


def rate(step: int, share: float, warm: int = 50, decay: float = 0.5) -> float:
    """Share of the full rate: warm-up, constant, then linear to zero over the last `decay` of the run.

    `share` is how much of the run is done.
    """
    return max(0.0, min(1.0, (step + 1) / warm, (1.0 - share) / decay if decay else 1.0))
