"""The meter of shift: first a window, then p-values; kept over a restart, void with another encoder."""

from __future__ import annotations

import numpy as np

from lte_runtime.drift.shift import ShiftMeter

DIMENSION = 8


def rows(n: int, seed: int, shift: float = 0.0) -> np.ndarray:
    drawn = np.random.default_rng(seed).normal(size=(n, DIMENSION)).astype(np.float32)
    drawn[:, 0] += shift
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


def test_the_first_rows_are_the_window_and_later_ones_are_compared() -> None:
    meter = ShiftMeter(DIMENSION, window=64, sample=16)
    assert meter.feed(rows(60, 1)) == []
    assert meter.filled == 60
    assert meter.feed(rows(10, 2)) == []
    assert meter.filled == 64
    (same,) = meter.feed(rows(10, 3))
    shifted = meter.feed(rows(32, 4, shift=6.0))
    assert same > 0.05
    assert len(shifted) == 2
    assert max(shifted) < 0.01


def test_a_restart_goes_on_from_what_was_kept() -> None:
    first = ShiftMeter(DIMENSION, window=32, sample=16)
    first.feed(rows(40, 1))
    second = ShiftMeter(DIMENSION, window=32, sample=16)
    second.restore(first.to_json())
    assert second.filled == 32
    new = rows(8, 2)
    assert np.allclose(first.feed(new), second.feed(new), atol=0.02)


def test_another_encoder_and_another_adapter_start_anew() -> None:
    meter = ShiftMeter(DIMENSION, window=32, sample=16)
    meter.feed(rows(40, 1))
    other = ShiftMeter(DIMENSION + 1, window=32, sample=16)
    other.restore(meter.to_json())
    assert other.filled == 0
    meter.clear()
    assert meter.filled == 0
    assert meter.feed(rows(32, 1)) == []
