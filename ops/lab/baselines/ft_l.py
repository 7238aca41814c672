"""FT-L: fine-tuning of one MLP projection within a box around its original weights.

Zhu et al., 2020 (arXiv 2012.00363): minimise the loss on the edits subject to
||theta - theta_0||_inf <= delta, by projected gradient descent. One layer's projection alone is tuned, as
Meng et al., 2022 (arXiv 2202.05262) do for their FT+L.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ops.lab.baselines.base import BaselineModel
from ops.lab.baselines.ft import Descent, descend
from ops.lab.baselines.network import weight
from ops.lab.baselines.protocol import EditRequest
from ops.lab.baselines.weights import OriginalWeights


@dataclass(frozen=True, slots=True)
class FtLParams:
    """`bound` is delta, for each single weight."""

    layer: int = 0
    bound: float = 5e-3
    descent: Descent = field(default_factory=Descent)


class FtL:
    """theta_0 are the weights before the first edit: a sequence of edits shares one box."""

    def __init__(self, params: FtLParams) -> None:
        self._params = params

    def __call__(
        self, base: BaselineModel, originals: OriginalWeights, requests: Sequence[EditRequest]
    ) -> None:
        learnt = weight(base.model, self._params.layer)
        originals.keep([learnt])
        start, bound = originals.of(learnt), self._params.bound

        def project() -> None:
            learnt.copy_(start + (learnt - start).clamp(-bound, bound))

        descend(base, [learnt], requests, self._params.descent, project)
