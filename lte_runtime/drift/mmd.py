"""Shift of a distribution of embeddings: maximum mean discrepancy with an RBF kernel. Pure.

Gretton, Borgwardt, Rasch, Schölkopf and Smola, "A Kernel Two-Sample Test", JMLR 13 (2012): the unbiased
estimate of MMD squared (their equation 3), the kernel's width from the median distance, and the null
distribution by permutation. The null distribution comes from the reference window alone, by drawing samples
out of it, so that it is made once for each reference window and a cycle costs one kernel with the sample.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class ReferenceWindow:
    """A reference window, ready to be compared with samples of `sample` rows.

    `rows` [m, d]; `gamma` of exp(-gamma |x - y|^2); `within` the mean kernel between different rows;
    `null` [permutations] ascending, MMD squared of samples drawn from the window against its rest.
    """

    rows: Floats
    gamma: float
    within: float
    sample: int
    null: npt.NDArray[np.float64]

    def threshold(self, alpha: float) -> float:
        """MMD squared that a sample without a shift exceeds with probability `alpha`."""
        return float(np.quantile(self.null, 1.0 - alpha, method="higher"))


def reference(
    rows: npt.ArrayLike, sample: int, *, permutations: int = 1000, seed: int = 0
) -> ReferenceWindow:
    """The window `rows` [m, d] for samples of `sample` rows; `ValueError` unless 2 <= sample <= m / 2."""
    window = np.asarray(rows, np.float32)
    if window.ndim != 2 or not 2 <= sample <= len(window) // 2 or not np.isfinite(window).all():
        raise ValueError(f"a reference of shape {window.shape} for samples of {sample}")
    gamma = _median_gamma(window)
    kernel = _kernel(window, window, gamma)
    np.fill_diagonal(kernel, 0.0)
    within = _off_diagonal_mean(float(kernel.sum()), len(window))
    return ReferenceWindow(window, gamma, within, sample, _null(kernel, sample, permutations, seed))


def mmd2(window: ReferenceWindow, rows: npt.ArrayLike) -> float:
    """Unbiased MMD squared between the window and `rows` [sample, d]; about 0 without a shift.

    Raises `ValueError` for rows of another shape than the window was made for.
    """
    drawn = np.asarray(rows, np.float32)
    if drawn.shape != (window.sample, window.rows.shape[1]) or not np.isfinite(drawn).all():
        raise ValueError(f"a sample of shape {drawn.shape}, made for {window.sample} rows")
    own = float(_kernel(drawn, drawn, window.gamma).sum()) - len(drawn)
    between = float(_kernel(drawn, window.rows, window.gamma).mean())
    return window.within + _off_diagonal_mean(own, len(drawn)) - 2.0 * between


def p_value(window: ReferenceWindow, rows: npt.ArrayLike) -> float:
    """The share of draws from the window at least as far away, the sample counted as one of them."""
    distance = mmd2(window, rows)
    at_least = len(window.null) - int(np.searchsorted(window.null, distance, side="left"))
    return (1 + at_least) / (1 + len(window.null))


def _null(kernel: Floats, sample: int, permutations: int, seed: int) -> npt.NDArray[np.float64]:
    """MMD squared of `sample` random rows of the window against its rest; the kernel has a zero diagonal."""
    m = len(kernel)
    rng = np.random.default_rng(seed)
    chosen = np.argpartition(rng.random((permutations, m)), sample, axis=1)[:, :sample]
    picked = np.zeros((permutations, m), np.float32)
    np.put_along_axis(picked, chosen, 1.0, axis=1)
    to_picked = picked @ kernel
    own = np.einsum("bm,bm->b", to_picked, picked, dtype=np.float64)
    cross = to_picked.sum(axis=1, dtype=np.float64) - own
    within_rest = float(kernel.sum(dtype=np.float64)) - own - 2.0 * cross
    rest_size = m - sample
    null = (
        own / (sample * (sample - 1))
        + within_rest / (rest_size * (rest_size - 1))
        - 2.0 * cross / (sample * rest_size)
    )
    return np.sort(null)


def _off_diagonal_mean(total: float, n: int) -> float:
    return total / (n * (n - 1))


def _median_gamma(rows: Floats) -> float:
    """1 / (2 median squared distance) of different rows; 1 where all are alike."""
    distances = _squared(rows, rows)[np.triu_indices(len(rows), 1)]
    median = float(np.median(distances))
    return 1.0 / (2.0 * median) if median > 0 else 1.0


def _kernel(a: Floats, b: Floats, gamma: float) -> Floats:
    return np.asarray(np.exp(np.float32(-gamma) * _squared(a, b)), np.float32)


def _squared(a: Floats, b: Floats) -> Floats:
    squares = (a * a).sum(axis=1)[:, None] + (b * b).sum(axis=1)[None, :] - 2.0 * (a @ b.T)
    return np.asarray(np.maximum(squares, 0.0), np.float32)
