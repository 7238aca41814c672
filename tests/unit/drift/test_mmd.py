"""The two-sample test: level, power, and the null distribution against plain permutations."""

from __future__ import annotations

import numpy as np
import pytest

from lte_runtime.drift import mmd


def rows(seed: int, n: int, shift: float = 0.0) -> mmd.Floats:
    return (np.random.default_rng(seed).normal(size=(n, 8)) + shift).astype(np.float32)


def slow_mmd2(x: mmd.Floats, y: mmd.Floats, gamma: float) -> float:
    def kernel(a: mmd.Floats, b: mmd.Floats) -> float:
        return float(np.exp(-gamma * ((a - b) ** 2).sum()))

    def within(z: mmd.Floats) -> float:
        n = len(z)
        return sum(kernel(z[i], z[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))

    between = sum(kernel(a, b) for a in x for b in y) / (len(x) * len(y))
    return within(x) + within(y) - 2 * between


def test_the_estimate_is_the_written_one() -> None:
    x, y = rows(1, 30), rows(2, 12, 0.4)
    window = mmd.reference(x, 12, permutations=10)
    assert mmd.mmd2(window, y) == pytest.approx(slow_mmd2(x, y, window.gamma), abs=1e-5)


def test_the_null_is_that_of_samples_out_of_the_window() -> None:
    x = rows(3, 24)
    window = mmd.reference(x, 8, permutations=200, seed=4)
    rng = np.random.default_rng(9)
    slow = []
    for _ in range(200):
        order = rng.permutation(24)
        slow.append(slow_mmd2(x[order[8:]], x[order[:8]], window.gamma))
    assert np.mean(window.null) == pytest.approx(np.mean(slow), abs=0.01)
    assert np.std(window.null) == pytest.approx(np.std(slow), rel=0.3)


def test_no_shift_keeps_the_level_and_a_shift_is_found() -> None:
    window = mmd.reference(rows(5, 512), 64, permutations=400)
    calm = [mmd.p_value(window, rows(100 + i, 64)) for i in range(200)]
    assert np.mean(np.array(calm) <= 0.05) <= 0.125  # 5 % expected; 25 of 200 has a chance below 1e-4
    moved = [mmd.p_value(window, rows(900 + i, 64, 0.45)) for i in range(20)]
    assert max(moved) <= 0.01


def test_the_width_is_the_median_distance() -> None:
    square = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32)
    assert mmd.reference(square, 2, permutations=5).gamma == pytest.approx(0.5)
    assert mmd.reference(np.ones((4, 2)), 2, permutations=5).gamma == 1.0


def test_the_same_seed_gives_the_same_null() -> None:
    first, second = (mmd.reference(rows(6, 64), 16, permutations=50, seed=3) for _ in range(2))
    assert np.array_equal(first.null, second.null)
    assert first.threshold(0.1) == first.null[45]


@pytest.mark.parametrize("shape", [(3, 2), (40,)])
def test_a_window_that_is_too_small_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="reference"):
        mmd.reference(np.zeros(shape), 2)


def test_a_sample_of_another_size_or_with_holes_is_refused() -> None:
    window = mmd.reference(rows(7, 64), 16, permutations=5)
    holed = rows(8, 16)
    holed[3, 3] = np.nan
    for sample in (rows(8, 15), holed):
        with pytest.raises(ValueError, match="sample"):
            mmd.p_value(window, sample)
