"""An editor whose edits live in the model's weights, with the originals kept to undo them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn

from ops.lab.baselines import base as reading
from ops.lab.baselines.base import BaselineModel
from ops.lab.baselines.protocol import EditRequest, Forced


class OriginalWeights:
    """Copies of the weights as they were before a method first touched them."""

    def __init__(self) -> None:
        self._copies: dict[nn.Parameter, Tensor] = {}

    def keep(self, parameters: Iterable[nn.Parameter]) -> None:
        """Must be called before the change; a copy that is there already stays as it is."""
        for parameter in parameters:
            if parameter not in self._copies:
                self._copies[parameter] = parameter.detach().clone()

    def of(self, parameter: nn.Parameter) -> Tensor:
        return self._copies[parameter]

    @torch.no_grad()
    def restore(self) -> None:
        for parameter, value in self._copies.items():
            parameter.copy_(value)
        self._copies.clear()


Change = Callable[[BaselineModel, OriginalWeights, Sequence[EditRequest]], None]
"""Changes the model's weights by a batch of edits, after keeping the originals of all that it touches."""


class WeightEditor:
    """`Editor` over a `Change`: questions are asked without facts, the weights know the edits."""

    def __init__(self, base: BaselineModel, change: Change) -> None:
        self._base = base
        self._change = change
        self._originals = OriginalWeights()

    def edit(self, requests: Sequence[EditRequest]) -> None:
        if requests:
            self._change(self._base, self._originals, requests)

    def answer(self, prompts: Sequence[str], *, max_new_tokens: int = 32) -> list[str]:
        prompt_ids = [reading.question(self._base, text) for text in prompts]
        return reading.answers(self._base, prompt_ids, max_new_tokens)

    def forced(self, pairs: Sequence[tuple[str, str]]) -> list[Forced]:
        samples = [reading.sample(self._base, question, target, end=False) for question, target in pairs]
        return reading.forced(self._base, samples)

    def undo(self) -> None:
        self._originals.restore()
