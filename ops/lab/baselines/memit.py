"""MEMIT: a batch of facts spread over the MLP projections of several layers.

Meng et al., 2023 (arXiv 2210.07229), algorithm 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lte_runtime.progress import Progress, silent
from ops.lab.baselines.base import BaselineModel
from ops.lab.baselines.closed_form import factor, least_squares
from ops.lab.baselines.moments import Moments
from ops.lab.baselines.network import hidden_at, matrix, weight
from ops.lab.baselines.protocol import EditRequest
from ops.lab.baselines.rome import mean_key
from ops.lab.baselines.subject import Views, sampled_prefixes, views
from ops.lab.baselines.value import LocateParams, find_deltas
from ops.lab.baselines.weights import OriginalWeights


@dataclass(frozen=True, slots=True)
class MemitParams(LocateParams):
    """`layers` in rising order; `strength` is lambda, the weight of what the layers knew (C)."""

    layers: tuple[int, ...] = (1, 2)
    strength: float = 0.01


class Memit:
    """Edits a batch at once. C is that of the unedited model; a sequence of batches starts from the last."""

    def __init__(self, params: MemitParams, moments: Moments, progress: Progress = silent) -> None:
        self._params = params
        self._moments = moments
        self._progress = progress
        self._roots: dict[int, Tensor] = {}

    def __call__(
        self, base: BaselineModel, originals: OriginalWeights, requests: Sequence[EditRequest]
    ) -> None:
        params = self._params
        originals.keep([weight(base.model, layer) for layer in params.layers])
        self._factor()
        prefixes = sampled_prefixes(base, params.prefixes, params.prefix_tokens, params.seed)
        seen = [views(base, request, prefixes, end=params.end, place=params.place) for request in requests]
        targets = target_hidden(base, seen, params, self._progress)
        for layer in params.layers:
            self._spread(base, layer, seen, targets)

    def _factor(self) -> None:
        if not self._roots:
            moments = self._moments.get(self._params.layers)
            self._roots = {layer: factor(moment, self._params.damping) for layer, moment in moments.items()}

    @torch.no_grad()
    def _spread(self, base: BaselineModel, layer: int, seen: Sequence[Views], targets: Tensor) -> None:
        """Lines 9 to 17: r = (z - h) / (layers that remain), keys as the layers below now make them."""
        last = self._params.layers[-1]
        remaining = len(self._params.layers) - self._params.layers.index(layer)
        keys = torch.stack([mean_key(base, view, layer) for view in seen])
        residuals = (targets - plain_hidden(base, seen, last)) / remaining
        change = least_squares(self._roots[layer], keys, residuals, self._params.strength)
        matrix(base.model, layer).add_(change.float())


def target_hidden(
    base: BaselineModel, seen: Sequence[Views], params: MemitParams, progress: Progress = silent
) -> Tensor:
    """z [n, hidden]: the last layer's output at the subject, plus the delta that says the target.

    Adding delta to the MLP's output of a residual block is adding it to the block's output (equation 16).
    """
    last = params.layers[-1]
    return plain_hidden(base, seen, last) + find_deltas(base, last, seen, params.search, progress)


def plain_hidden(base: BaselineModel, seen: Sequence[Views], layer: int) -> Tensor:
    """Output of the block at the subject's last token of the plain prompts, [n, hidden]."""
    hidden = [hidden_at(base, [view.samples[0].prompt], view.places[:1], layer) for view in seen]
    return torch.cat(hidden)
