"""Finding a block's MLP output projection in any architecture, reading its keys, and steering its output."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from lte_runtime.errors import Refused
from ops.lab.baselines.base import BaselineModel, padded

PROJECTIONS = ("mlp.down_proj", "mlp.c_proj", "mlp.dense_4h_to_h", "mlp.fc2", "fc2")


def blocks(model: Any) -> nn.ModuleList:
    """The transformer blocks, first one first; `Refused` where there is no list of that length."""
    count = model.config.num_hidden_layers
    for module in model.modules():
        if isinstance(module, nn.ModuleList) and len(module) == count:
            return module
    raise Refused(f"{type(model).__name__} has no list of {count} blocks")


def projection(model: Any, layer: int) -> nn.Module:
    """The linear map at the end of a block's MLP: W in `m = W k` (Meng et al., 2022, section 3)."""
    model_blocks = blocks(model)
    if not 0 <= layer < len(model_blocks):
        raise Refused(f"there is no layer {layer}: the model has {len(model_blocks)} layers, counted from 0")
    inside: dict[str, nn.Module] = dict(model_blocks[layer].named_modules())
    for name in PROJECTIONS:
        if name in inside:
            return inside[name]
    raise Refused(f"no MLP output projection is known for {type(model).__name__}")


def weight(model: Any, layer: int) -> nn.Parameter:
    """The projection's weight as the model stores it."""
    parameter = projection(model, layer).weight
    assert isinstance(parameter, nn.Parameter)
    return parameter


def matrix(model: Any, layer: int) -> Tensor:
    """The projection's weight as a matrix [out, in]: a view, so that adding to it changes the model."""
    turned = type(projection(model, layer)).__name__ == "Conv1D"
    stored = weight(model, layer).data
    return stored.T if turned else stored


def width(model: Any, layer: int) -> int:
    """Length of a key."""
    return int(matrix(model, layer).shape[1])


class _Stop(Exception):
    """Ends a forward pass when everything that is needed was recorded."""


@torch.no_grad()
def keys(base: BaselineModel, rows: Sequence[Sequence[int]], layers: Sequence[int]) -> dict[int, Tensor]:
    """Inputs of the layers' projections, each [rows, longest, width]; later layers are not computed."""
    ids, mask = padded(base, rows)
    seen: dict[int, Tensor] = {}

    def watch(layer: int) -> Callable[..., None]:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            seen[layer] = inputs[0].detach()
            if len(seen) == len(layers):
                raise _Stop

        return hook

    with ExitStack() as stack:
        for layer in layers:
            handle = projection(base.model, layer).register_forward_pre_hook(watch(layer))
            stack.callback(handle.remove)
        try:
            base.model(input_ids=ids, attention_mask=mask, use_cache=False)
        except _Stop:
            return seen
    raise Refused("a layer's projection did not run")


def key_at(
    base: BaselineModel, rows: Sequence[Sequence[int]], positions: Sequence[int], layers: Sequence[int]
) -> Mapping[int, Tensor]:
    """Keys at one position of each row: layer to [rows, width]."""
    layer_keys = keys(base, rows, layers)
    return {layer: part[torch.arange(len(rows)), list(positions)] for layer, part in layer_keys.items()}


@torch.no_grad()
def hidden_at(
    base: BaselineModel, rows: Sequence[Sequence[int]], positions: Sequence[int], layer: int
) -> Tensor:
    """Output of a block (the residual stream) at one position of each row: [rows, hidden]."""
    ids, mask = padded(base, rows)
    seen: list[Tensor] = []

    def hook(_: nn.Module, __: object, output: Any) -> None:
        seen.append((output[0] if isinstance(output, tuple) else output).detach())
        raise _Stop

    handle = blocks(base.model)[layer].register_forward_hook(hook)
    try:
        base.model(input_ids=ids, attention_mask=mask, use_cache=False)
    except _Stop:
        return seen[0][torch.arange(len(rows)), list(positions)]
    finally:
        handle.remove()
    raise Refused("the block did not run")


@contextmanager
def steered(base: BaselineModel, layer: int, positions: Sequence[int], delta: Tensor) -> Iterator[None]:
    """Within it, `delta` [hidden] or [rows, hidden] is added to the projection's output at a place a row."""

    def hook(_: nn.Module, __: object, output: Tensor) -> Tensor:
        place = torch.zeros(output.shape[:2], device=output.device)
        place[torch.arange(len(positions)), list(positions)] = 1.0
        return output + place[..., None] * delta.reshape(-1, 1, delta.shape[-1])

    handle = projection(base.model, layer).register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def head_at(base: BaselineModel, rows: Tensor, columns: Tensor) -> Iterator[None]:
    """Within it the model's head reads these places alone: logits are [places, vocabulary]."""

    def hook(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (inputs[0][rows, columns],)

    handle = base.model.get_output_embeddings().register_forward_pre_hook(hook)
    try:
        yield
    finally:
        handle.remove()
