"""Linear maps of a model with per-row low-rank changes: what they were given, and what they would give."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ops.lab.baselines.network import blocks


@dataclass(frozen=True, slots=True)
class Place:
    """One linear map, `turned` where it stores its weight as [in, out]."""

    name: str
    module: nn.Module
    turned: bool

    @property
    def weight(self) -> nn.Parameter:
        weight = self.module.weight
        assert isinstance(weight, nn.Parameter)
        return weight

    @property
    def matrix(self) -> Tensor:
        """The weight as [out, in]: a view."""
        return self.weight.data.T if self.turned else self.weight.data

    @property
    def shape(self) -> tuple[int, int]:
        """Outputs and inputs."""
        out, into = self.matrix.shape
        return int(out), int(into)


def mlp_places(model: Any, last: int) -> list[Place]:
    """The linear maps of the MLPs of the `last` blocks, in the order of the model."""
    model_blocks = blocks(model)
    chosen = range(max(0, len(model_blocks) - last), len(model_blocks))
    return [
        Place(f"{layer}.{name}", module, type(module).__name__ == "Conv1D")
        for layer in chosen
        for name, module in model_blocks[layer].named_modules()
        if name.startswith("mlp.") and type(module).__name__ in ("Linear", "Conv1D")
    ]


@dataclass(frozen=True, slots=True)
class Factors:
    """A change of one linear map for each row: the sum over tokens of outer(`outputs`, `inputs`).

    `outputs` [rows, tokens, out], `inputs` [rows, tokens, in].
    """

    outputs: Tensor
    inputs: Tensor

    def applied(self, values: Tensor) -> Tensor:
        """What the change adds to the map's output for `values` [rows, length, in]: [rows, length, out]."""
        return values @ self.inputs.transpose(1, 2) @ self.outputs

    def total(self) -> Tensor:
        """The sum over all rows as a matrix [out, in]."""
        return self.outputs.flatten(0, 1).T @ self.inputs.flatten(0, 1)

    def repeated(self, times: int) -> Factors:
        """For `times` rows one behind the other of which each is judged under the same change."""
        return Factors(self.outputs.repeat(times, 1, 1), self.inputs.repeat(times, 1, 1))


@contextmanager
def changed(places: Sequence[Place], changes: Mapping[str, Factors]) -> Iterator[None]:
    """Within it, row i of every pass runs under the i-th change of each place; gradients flow into them."""

    def hook_of(change: Factors) -> Any:
        return lambda _, inputs, output: output + change.applied(inputs[0])

    with ExitStack() as stack:
        for place in places:
            handle = place.module.register_forward_hook(hook_of(changes[place.name]))
            stack.callback(handle.remove)
        yield


class Traces:
    """Within it, passes leave each place's inputs u, and a zero added to its outputs to take delta from."""

    def __init__(self, places: Sequence[Place]) -> None:
        self._places = places
        self._stack = ExitStack()
        self.inputs: dict[str, Tensor] = {}
        self.probes: dict[str, Tensor] = {}

    def __enter__(self) -> Traces:
        for place in self._places:
            handle = place.module.register_forward_hook(self._hook(place.name))
            self._stack.callback(handle.remove)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _hook(self, name: str) -> Any:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            probe = torch.zeros_like(output, requires_grad=True)
            self.inputs[name], self.probes[name] = inputs[0].detach(), probe
            return output + probe

        return hook

    def deltas(self, loss: Tensor) -> dict[str, Tensor]:
        """Gradients of `loss` by each place's output, [rows, length, out]."""
        names = list(self.probes)
        gradients = torch.autograd.grad(loss, [self.probes[name] for name in names])
        return dict(zip(names, gradients, strict=True))
