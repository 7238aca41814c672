"""LoRA weights onto a base model: checked tensor by tensor, then merged into a copy or kept beside it.

Merging follows Hu et al. 2021 (arXiv 2106.09685): W' = W + (alpha / r) B A, computed in float32 and only then
rounded to the serving dtype. Both ways are done here and not by peft: importing it costs a second at start,
its merge works in place on the model that also has to answer as the base, and loading or dropping an adapter
changes the modules that another thread is running.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import safe_open
from transformers.pytorch_utils import Conv1D

from lte_runtime.answer.engine.files import LORA_NAME, Lora, means, read_tensors
from lte_runtime.answer.engine.pace import at_once
from lte_runtime.errors import Refused

Pairs = dict[str, tuple[torch.Tensor, torch.Tensor]]
"""Module name -> (A [rank, in], B [out, rank]) in float32."""
Halves = dict[str, tuple[torch.Tensor, torch.Tensor, float]]
"""Module name -> (A, B, scale) as the model computes."""


def read_pairs(lora: Lora, model: torch.nn.Module, pace: Callable[[], None] = at_once) -> Pairs:
    """The adapter's tensors, after `verify_adapter`; raises `Refused` when they do not fit the model."""
    halves: dict[str, dict[str, torch.Tensor]] = {}
    targets = _targets(lora, model)
    for name, array in read_tensors(lora, pace).items():
        match = LORA_NAME.fullmatch(name)
        if match:
            halves.setdefault(match["module"], {})[match["half"]] = torch.from_numpy(array)
    if halves.keys() != targets.keys():
        odd = sorted(halves.keys() ^ targets.keys())
        raise Refused(f"adapter {lora.ref.id} and the base disagree on {len(odd)} modules, first {odd[0]}")
    return {name: _pair(lora, name, halves[name], module) for name, module in targets.items()}


def _targets(lora: Lora, model: torch.nn.Module) -> dict[str, torch.nn.Module]:
    """Modules that the adapter's configuration means."""
    modules = {name: module for name, module in model.named_modules() if means(lora.targets, name)}
    for name, module in modules.items():
        if not isinstance(module, torch.nn.Linear | Conv1D):
            raise Refused(f"adapter {lora.ref.id} targets {name}, a {type(module).__name__}")
    return modules


def _pair(
    lora: Lora, name: str, halves: Mapping[str, torch.Tensor], module: torch.nn.Module
) -> tuple[torch.Tensor, torch.Tensor]:
    fan_in, fan_out = _fans(module)
    if halves.keys() != {"A", "B"}:
        raise Refused(f"adapter {lora.ref.id} has half a pair for {name}")
    shapes = tuple(halves["A"].shape), tuple(halves["B"].shape)
    if shapes != ((lora.rank, fan_in), (fan_out, lora.rank)):
        raise Refused(f"adapter {lora.ref.id} has shapes {shapes} for {name}")
    return halves["A"], halves["B"]


def _fans(module: Any) -> tuple[int, int]:
    """(in, out); GPT-2's Conv1D keeps its weight as [in, out], Linear as [out, in]."""
    rows, columns = module.weight.shape
    return (rows, columns) if isinstance(module, Conv1D) else (columns, rows)


Exact = Callable[[str], torch.Tensor]
"""The weight of a module by its name as the base's files have it, before it was rounded."""


def weights_of(model: Any) -> Exact:
    """The weights that a model runs with."""
    return lambda name: cast(torch.Tensor, model.get_submodule(name).weight.detach())


def stored_weights(
    directory: Path, model: Any, names: Iterable[str], pace: Callable[[], None] = at_once
) -> Exact | None:
    """The same from the base's files alone; None unless each, rounded, is what the model runs."""
    weights: dict[str, torch.Tensor] = {}
    with ExitStack() as stack:
        shards = [stack.enter_context(safe_open(str(path), "pt")) for path in directory.glob("*.safetensors")]
        shard_of = {name: shard for shard in shards for name in shard.keys()}  # noqa: SIM118 - no mapping
        for name in names:
            shard, running = shard_of.get(f"{name}.weight"), model.get_submodule(name).weight
            if shard is None:
                return None
            weights[name] = shard.get_tensor(f"{name}.weight")
            same = weights[name].shape == running.shape
            if not same or not torch.equal(weights[name].to(running.dtype), running.detach().cpu()):
                return None
            pace()
    return weights.__getitem__


def merged_copy(
    base: Any, exact: Exact, pairs: Pairs, scale: float, pace: Callable[[], None] = at_once
) -> Any:
    """A model beside `base` with the adapter merged; all tensors that it leaves alone are shared.

    The sums are made in float32 from `exact`.
    """
    own = {id(base.get_submodule(name).weight) for name in pairs}
    shared = [*base.parameters(), *base.buffers()]
    memo: dict[int, Any] = {id(tensor): tensor for tensor in shared if id(tensor) not in own}
    # Children first: each call copies one module, and its parent finds the copy.
    for module in reversed(list(base.modules())):
        copied = copy.deepcopy(module, memo)
        pace()
    for name, (a, b) in pairs.items():
        module, delta = copied.get_submodule(name), scale * (b @ a)
        total = exact(name).float().cpu() + (delta.T if isinstance(module, Conv1D) else delta)
        weight = total.to(module.weight.device, module.weight.dtype)
        module.weight = torch.nn.Parameter(weight, requires_grad=False)
        pace()
    return copied


class Unmerged:
    """Adapters beside one set of weights: the layers add the low-rank part of the version that runs.

    y = W x + (alpha / r) B A x, the order of peft's forward. Only the inference thread runs the model, so the
    version is named for the time of one call; a base row passes through the same layers with nothing added.
    """

    def __init__(self, base: Any) -> None:
        self._base = base
        self._running: Halves = {}
        self._hooks: dict[str, Any] = {}

    def halves(self, pairs: Pairs, scale: float) -> Halves:
        """What `forward` runs, in the base's dtype and on its device."""
        like = next(self._base.parameters())
        return {
            name: (a.to(like.device, like.dtype), b.to(like.device, like.dtype), scale)
            for name, (a, b) in pairs.items()
        }

    def reach(self, names: Iterable[str]) -> None:
        """Lets these modules take part; on the inference thread, between two batches."""
        for name in set(names) - self._hooks.keys():
            module = self._base.get_submodule(name)
            self._hooks[name] = module.register_forward_hook(partial(self._add, name))

    def close(self) -> None:
        """The model is as it was before."""
        for hook in self._hooks.values():
            hook.remove()
        self._hooks = {}

    def forward(self, halves: Halves, **inputs: Any) -> Any:
        """One pass with the low-rank parts added; none for the base."""
        self._running = halves
        try:
            return self._base(**inputs)
        finally:
            self._running = {}

    def _add(self, name: str, _module: Any, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> Any:
        low_rank = self._running.get(name)
        if low_rank is None:
            return output
        a, b, scale = low_rank
        return output + torch.nn.functional.linear(torch.nn.functional.linear(inputs[0], a), b) * scale
