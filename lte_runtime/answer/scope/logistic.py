"""Ridge logistic regression by Newton's method, in numpy. Pure and deterministic."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def fit(x: Floats, y: Floats, weights: Floats, ridge: float, *, steps: int = 25) -> tuple[float, Floats]:
    """Bias and slopes [d] for rows `x` [n, d] and labels `y` [n] in {0, 1}; the bias is not penalised."""
    rows = np.column_stack([np.ones(len(y)), x])
    penalty = np.array([1e-6] + [ridge] * x.shape[1])
    beta = np.zeros(rows.shape[1])
    for _ in range(steps):
        p = 1.0 / (1.0 + np.exp(-np.clip(rows @ beta, -40, 40)))
        slope = rows.T @ (weights * (p - y)) + penalty * beta
        curve = (rows * (weights * p * (1 - p))[:, None]).T @ rows + np.diag(penalty)
        move = np.linalg.solve(curve, slope)
        beta = beta - move
        if np.abs(move).max() < 1e-6:
            break
    return float(beta[0]), beta[1:]
