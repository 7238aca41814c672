"""ROME: one fact as a rank-one change of one MLP projection (Meng et al., 2022, arXiv 2202.05262)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lte_runtime.progress import Progress, silent
from ops.lab.baselines.base import BaselineModel
from ops.lab.baselines.closed_form import factor, rank_one
from ops.lab.baselines.moments import Moments
from ops.lab.baselines.network import key_at, matrix, weight
from ops.lab.baselines.protocol import EditRequest
from ops.lab.baselines.subject import Views, sampled_prefixes, views
from ops.lab.baselines.value import LocateParams, find_delta
from ops.lab.baselines.weights import OriginalWeights


@dataclass(frozen=True, slots=True)
class RomeParams(LocateParams):
    """`layer` is the block whose MLP projection is edited."""

    layer: int = 2


@dataclass(frozen=True, slots=True)
class Association:
    """k* [width] and v* - W k* [hidden] of one edit."""

    key: Tensor
    residual: Tensor


class Rome:
    """Edits one request after the other, each on the weights that the earlier ones left."""

    def __init__(self, params: RomeParams, moments: Moments, progress: Progress = silent) -> None:
        self._params = params
        self._moments = moments
        self._progress = progress
        self._root: Tensor | None = None

    def __call__(
        self, base: BaselineModel, originals: OriginalWeights, requests: Sequence[EditRequest]
    ) -> None:
        params = self._params
        originals.keep([weight(base.model, params.layer)])
        root = self._factor()
        prefixes = sampled_prefixes(base, params.prefixes, params.prefix_tokens, params.seed)
        for done, request in enumerate(requests, start=1):
            insert(base, params.layer, associate(base, request, prefixes, params), root)
            if len(requests) > 1:
                self._progress("edits by ROME", done, len(requests))

    def _factor(self) -> Tensor:
        """Of the C of the unedited model: it is read once, before the first edit."""
        if self._root is None:
            moment = self._moments.get([self._params.layer])[self._params.layer]
            self._root = factor(moment, self._params.damping)
        return self._root


def associate(
    base: BaselineModel, request: EditRequest, prefixes: Sequence[str], params: RomeParams
) -> Association:
    """k* by equation 3 of the paper, v* by equation 4."""
    seen = views(base, request, prefixes, end=params.end, place=params.place)
    residual = find_delta(base, params.layer, seen, params.search)
    return Association(mean_key(base, seen, params.layer), residual)


def mean_key(base: BaselineModel, seen: Views, layer: int) -> Tensor:
    """Equation 3: the mean over contexts of the key at the subject's last token, [width]."""
    rows = [row.prompt for row in seen.samples]
    return key_at(base, rows, seen.places, [layer])[layer].mean(0)


@torch.no_grad()
def insert(base: BaselineModel, layer: int, association: Association, root: Tensor) -> None:
    """Equation 2, worked out in float64."""
    key = association.key.double()
    solved = torch.cholesky_solve(key[:, None], root)[:, 0]
    change = rank_one(solved, key, association.residual.double())
    matrix(base.model, layer).add_(change.float())
