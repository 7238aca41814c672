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

_RATE = 3e-3


@dataclass(frozen=True, eq=False)
class Committee:
    """Weights of m members on d features: `inner` [m, d, h], `shift` [m, h], `outer` [m, h], `offset` [m]."""

    inner: Floats
    shift: Floats
    outer: Floats
    offset: Floats

    def log_odds(self, x: Floats) -> Floats:
        """Mean over the members for each row of features [n, d]."""
        hidden = np.maximum(np.einsum("nd,mdh->nmh", x, self.inner) + self.shift, 0.0)
        scores: Floats = ((hidden * self.outer).sum(axis=2) + self.offset).mean(axis=1)
        return scores

    @property
    def packed(self) -> Mapping[str, Any]:
        """For JSON: shape and float32 in base64."""
        parts = {"inner": self.inner, "shift": self.shift, "outer": self.outer, "offset": self.offset}
        return {"shape": list(self.inner.shape)} | {
            name: base64.b64encode(part.astype("<f4").tobytes()).decode("ascii")
            for name, part in parts.items()
        }


def unpacked(packed: Mapping[str, Any]) -> Committee:
    """Raises `ValueError` or `KeyError` when the arrays do not have the declared shape."""
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
    steps: int = 3000,
    seed: int = 0,
) -> Committee:
    """A committee for rows `x` [n, d] with labels `y` [n] in {0, 1}; equal arguments give equal weights.

    Rows are standardised for fitting, and the standardisation is folded into the weights.
    """
    mean, spread = x.mean(axis=0), x.std(axis=0)
    scale = np.where(spread < 1e-9, np.inf, spread)
    shape = (members, x.shape[1], hidden)
    inner, shift, outer, offset = _networks((x - mean) / scale, y, weights, shape, decay, steps, seed)
    inner = inner / scale[None, :, None]
    shift = shift - np.einsum("d,mdh->mh", mean, inner)
    return Committee(*(part.astype(np.float32) for part in (inner, shift, outer, offset)))


def _networks(
    x: npt.NDArray[np.float64],
    y: npt.NDArray[np.float64],
    weights: npt.NDArray[np.float64],
    shape: tuple[int, int, int],
    decay: float,
    steps: int,
    seed: int,
) -> tuple[npt.NDArray[np.float64], ...]:
    """Weights of all members, each on batches of its own, by Adam on the weighted logistic loss."""
    import torch
    import torch.nn.functional as F

    draw = torch.Generator().manual_seed(seed)
    members, size, hidden = shape
    rows, labels, share = (torch.from_numpy(a).float() for a in (x, y, weights / weights.mean()))
    inner = (torch.randn(*shape, generator=draw) * size**-0.5).requires_grad_()
    outer = (torch.randn(members, hidden, 1, generator=draw) * hidden**-0.5).requires_grad_()
    shift = torch.zeros(members, 1, hidden, requires_grad=True)
    offset = torch.zeros(members, 1, 1, requires_grad=True)
    groups = [
        {"params": [inner, outer], "weight_decay": decay},
        {"params": [shift, offset], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.Adam(groups, lr=_RATE)
    for step in range(steps):
        part = torch.randint(len(rows), (members, 256), generator=draw)
        scores = torch.relu(torch.baddbmm(shift, rows[part], inner)) @ outer + offset
        losses = F.binary_cross_entropy_with_logits(scores[..., 0], labels[part], reduction="none")
        for group in optimizer.param_groups:
            group["lr"] = _RATE * (1.0 - step / steps)
        optimizer.zero_grad()
        (losses * share[part]).mean(dim=1).sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    weight_tensors = (inner, shift[:, 0], outer[..., 0], offset[:, 0, 0])
    return tuple(value.detach().double().numpy() for value in weight_tensors)
