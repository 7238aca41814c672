"""A few small networks on the gate's features, whose mean log-odds is the score.

One hidden layer each: what likeness of wording is enough depends on whether the name was found and on how
the fact was published, which a weighted sum cannot say. Fitted with torch, used with numpy alone.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Committee:
    """Weights of m members on d features: `inner` [m, d, h], `shift` [m, h], `outer` [m, h], `offset` [m]."""

    inner: Floats
    shift: Floats
    outer: Floats
    offset: Floats

    def log_odds(self, x: Floats) -> float:
        """Mean over the members for one row of features [d]."""
        hidden = np.maximum(np.einsum("d,mdh->mh", x, self.inner) + self.shift, 0.0)
        return float(((hidden * self.outer).sum(axis=1) + self.offset).mean())

    @property
    def packed(self) -> Mapping[str, Any]:
        """For JSON: shape and float32 in base64."""
        parts = {"inner": self.inner, "shift": self.shift, "outer": self.outer, "offset": self.offset}
        return {"shape": list(self.inner.shape)} | {
            name: base64.b64encode(part.astype("<f4").tobytes()).decode("ascii")
            for name, part in parts.items()
        }


def unpacked(packed: Mapping[str, Any]) -> Committee:
    """Raises `ValueError` or `KeyError` when the arrays do not have the shape that is told."""
    m, d, h = packed["shape"]
    return Committee(
        _array(packed["inner"], (m, d, h)),
        _array(packed["shift"], (m, h)),
        _array(packed["outer"], (m, h)),
        _array(packed["offset"], (m,)),
    )


def _array(text: str, shape: tuple[int, ...]) -> Floats:
    flat = np.frombuffer(base64.b64decode(text, validate=True), dtype="<f4")
    return flat.reshape(shape).astype(np.float32)


def fit(
    x: npt.NDArray[np.float64],
    y: npt.NDArray[np.float64],
    weights: npt.NDArray[np.float64],
    *,
    members: int = 3,
    hidden: int = 24,
    decay: float = 1.5e-3,
    steps: int = 5000,
    seed: int = 0,
) -> Committee:
    """A committee for rows `x` [n, d] with labels `y` [n] in {0, 1}; equal arguments give equal weights.

    Rows are standardised for fitting, and the standardisation is folded into the weights.
    """
    mean, spread = x.mean(axis=0), x.std(axis=0)
    scale = np.where(spread < 1e-9, np.inf, spread)
    nets = [
        _member((x - mean) / scale, y, weights, hidden, decay, steps, seed + number)
        for number in range(members)
    ]
    inner, shift, outer, offset = (np.stack(parts) for parts in zip(*nets, strict=True))
    inner = inner / scale[None, :, None]
    shift = shift - np.einsum("d,mdh->mh", mean, inner)
    return Committee(*(part.astype(np.float32) for part in (inner, shift, outer, offset)))


def _member(
    x: npt.NDArray[np.float64],
    y: npt.NDArray[np.float64],
    weights: npt.NDArray[np.float64],
    hidden: int,
    decay: float,
    steps: int,
    seed: int,
) -> tuple[npt.NDArray[np.float64], ...]:
    """Weights of one network, by Adam on the weighted logistic loss."""
    import torch
    import torch.nn.functional as F

    draw = torch.Generator().manual_seed(seed)
    rows, labels, share = (torch.from_numpy(a).float() for a in (x, y, weights / weights.mean()))
    inner = (torch.randn(x.shape[1], hidden, generator=draw) * x.shape[1] ** -0.5).requires_grad_()
    outer = (torch.randn(hidden, generator=draw) * hidden**-0.5).requires_grad_()
    shift, offset = torch.zeros(hidden, requires_grad=True), torch.zeros(1, requires_grad=True)
    groups = [
        {"params": [inner, outer], "weight_decay": decay},
        {"params": [shift, offset], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.Adam(groups, lr=1e-3)
    for _ in range(steps):
        part = torch.randint(len(rows), (256,), generator=draw)
        scores = torch.relu(rows[part] @ inner + shift) @ outer + offset
        each = F.binary_cross_entropy_with_logits(scores, labels[part], reduction="none")
        optimizer.zero_grad()
        (each * share[part]).mean().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    found = (inner, shift, outer, offset[0])
    return tuple(value.detach().double().numpy() for value in found)
