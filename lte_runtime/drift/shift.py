"""Shift of embeddings over time: the first rows are the reference window, later ones are compared with it.

Holds arrays and no clock. One meter for questions, one for events; a new adapter starts a new window.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from lte_runtime.drift import mmd

Floats = npt.NDArray[np.float32]

# Rows of the reference, whose vectors are kept, and rows that are compared with it at a time. A sample must
# fit twice into the window, since the distribution without a shift is drawn from the window alone.
WINDOW, SAMPLE = 256, 64


class ShiftMeter:
    """Takes rows [n, dimension] as they come. `window` rows make the reference, then each `sample` rows a
    p-value. Not for several threads at once."""

    def __init__(self, dimension: int, window: int = WINDOW, sample: int = SAMPLE) -> None:
        self._dimension, self._window, self._sample = dimension, window, sample
        self.clear()

    def clear(self) -> None:
        """Forget the window: the next rows make a new one."""
        self._rows: Floats = np.empty((0, self._dimension), np.float32)
        self._waiting: Floats = np.empty((0, self._dimension), np.float32)
        self._reference: mmd.ReferenceWindow | None = None

    @property
    def filled(self) -> int:
        """Rows in the reference window; complete at `window`."""
        return len(self._rows)

    def feed(self, rows: npt.ArrayLike) -> list[float]:
        """The p-values that these rows complete; few of them means that the distribution has moved."""
        new = np.asarray(rows, np.float32).reshape(-1, self._dimension)
        missing = self._window - len(self._rows)
        if missing > 0:
            self._rows, new = np.concatenate([self._rows, new[:missing]]), new[missing:]
        self._waiting = np.concatenate([self._waiting, new])
        return list(self._completed()) if len(self._waiting) >= self._sample else []

    def _completed(self) -> Sequence[float]:
        p_values = []
        # The null distribution is made once for a window; samples cost one kernel each.
        self._reference = self._reference or mmd.reference(self._rows, self._sample)
        while len(self._waiting) >= self._sample:
            part, self._waiting = self._waiting[: self._sample], self._waiting[self._sample :]
            p_values.append(mmd.p_value(self._reference, part))
        return p_values

    def to_json(self) -> dict[str, Any]:
        """The meter as JSON values."""
        return {"rows": _text(self._rows), "waiting": _text(self._waiting), "dimension": self._dimension}

    def restore(self, value: Mapping[str, Any]) -> None:
        """Go on from `to_json`'s value; another dimension (another encoder) starts from nothing."""
        if value.get("dimension") == self._dimension:
            rows, waiting = (_rows(value[name], self._dimension) for name in ("rows", "waiting"))
            self._rows, self._waiting = rows[: self._window], waiting


def _text(rows: Floats) -> str:
    return base64.b64encode(rows.astype("<f2").tobytes()).decode("ascii")


def _rows(text: str, dimension: int) -> Floats:
    return np.frombuffer(base64.b64decode(text), "<f2").reshape(-1, dimension).astype(np.float32)
