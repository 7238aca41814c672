"""The closed forms of ROME and MEMIT on one matrix. Pure."""

from __future__ import annotations

import torch
from torch import Tensor


def factor(moment: Tensor, damping: float) -> Tensor:
    """Cholesky factor, in float64, of C + damping * mean(diag C) * I.

    C = E[k k'] [width, width] is singular when it was estimated from fewer tokens than a key is long; a small
    part of its mean eigenvalue on the diagonal makes it regular and leaves its large directions as they are.
    """
    exact = moment.double()
    ridge = damping * exact.diagonal().mean()
    root: Tensor = torch.linalg.cholesky(exact + ridge * torch.eye(len(exact), dtype=torch.float64))
    return root


def rank_one(solved: Tensor, key: Tensor, residual: Tensor) -> Tensor:
    """ROME's update [out, width] (Meng et al., 2022, equation 2).

    W + Lambda (C^-1 k*)' with Lambda = (v* - W k*) / ((C^-1 k*)' k*). `solved` is C^-1 k*, `residual` is
    v* - W k* (a bias of the layer is part of W k*).
    """
    return torch.outer(residual / (solved @ key), solved)


def least_squares(root: Tensor, keys: Tensor, residuals: Tensor, strength: float) -> Tensor:
    """MEMIT's update [out, width] (Meng et al., 2023, equation 14), `keys` [n, width], `residuals` [n, out].

    R K' (lambda C + K K')^-1, where the columns of K are keys and those of R are residuals, in the equal form
    R (lambda I + K' C^-1 K)^-1 (C^-1 K)', which solves a system of n edits instead of one of the width.
    """
    columns = keys.double().T
    solved = torch.cholesky_solve(columns, root)
    inner = columns.T @ solved + strength * torch.eye(len(keys), dtype=torch.float64)
    change: Tensor = residuals.double().T @ torch.linalg.solve(inner, solved.T)
    return change
