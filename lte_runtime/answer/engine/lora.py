"""LoRA weights onto a base model: checked tensor by tensor, then merged into a copy or kept beside it.

Merging follows Hu et al. 2021 (arXiv 2106.09685): W' = W + (alpha / r) B A, computed in float32 and only then
rounded to the serving dtype. It is done here and not by peft because importing peft costs a second at start
and its merge works in place on the model that also has to answer as the base.
"""

from __future__ import annotations

import copy
import re
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from safetensors.torch import load_file
from transformers.pytorch_utils import Conv1D

from lte_runtime.answer.engine.files import WEIGHTS, Lora
from lte_runtime.errors import Damaged, Refused

_NAME = re.compile(r"base_model\.model\.(?P<module>.+)\.lora_(?P<half>[AB])\.weight")

Pairs = dict[str, tuple[torch.Tensor, torch.Tensor]]
"""Module name -> (A [rank, in], B [out, rank]) in float32."""


def read_pairs(lora: Lora, model: torch.nn.Module) -> Pairs:
    """The adapter's tensors, after `verify_adapter`; raises `Refused` when they do not fit the model."""
    halves: dict[str, dict[str, torch.Tensor]] = {}
    for name, tensor in load_file(lora.directory / WEIGHTS).items():
        match = _NAME.fullmatch(name)
        if match is None:
            raise Refused(f"adapter {lora.ref.id} holds {name}, which is no LoRA tensor")
        if not torch.isfinite(tensor).all():
            raise Damaged(f"tensor {name} of adapter {lora.ref.id} is not finite")
        halves.setdefault(match["module"], {})[match["half"]] = tensor.float()
    wanted = _targets(lora, model)
    if halves.keys() != wanted.keys():
        odd = sorted(halves.keys() ^ wanted.keys())
        raise Refused(f"adapter {lora.ref.id} and the base disagree on {len(odd)} modules, first {odd[0]}")
    return {name: _pair(lora, name, halves[name], module) for name, module in wanted.items()}


def _targets(lora: Lora, model: torch.nn.Module) -> dict[str, torch.nn.Module]:
    """Modules that the adapter's configuration means, by peft's rule: full regex, or equal last parts."""
    found = {name: module for name, module in model.named_modules() if _means(lora.targets, name)}
    for name, module in found.items():
        if not isinstance(module, torch.nn.Linear | Conv1D):
            raise Refused(f"adapter {lora.ref.id} targets {name}, a {type(module).__name__}")
    return found


def _means(targets: str | tuple[str, ...], name: str) -> bool:
    if isinstance(targets, str):
        return re.fullmatch(targets, name) is not None
    return any(name == target or name.endswith(f".{target}") for target in targets)


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


def merged_copy(base: Any, exact: Any, pairs: Pairs, scale: float) -> Any:
    """A model beside `base` with the adapter merged; all tensors that it leaves alone are shared.

    `exact` is the same base in float32; the sums are made from its weights.
    """
    own = {id(base.get_submodule(name).weight) for name in pairs}
    shared = [*base.parameters(), *base.buffers()]
    copied = copy.deepcopy(base, {id(tensor): tensor for tensor in shared if id(tensor) not in own})
    for name, (a, b) in pairs.items():
        source, module = exact.get_submodule(name), copied.get_submodule(name)
        delta = scale * (b @ a)
        total = source.weight.detach().float() + (delta.T if isinstance(source, Conv1D) else delta)
        module.weight = torch.nn.Parameter(total.to(module.weight.dtype), requires_grad=False)
    return copied


def peft_model(base: Any, lora: Lora, pairs: Pairs) -> Any:
    """`base` wrapped by peft, the adapter unmerged under its id; rows choose by `adapter_names`.

    Loads from the checked tensors, never through peft's own search for files.
    """
    from peft import LoraConfig, get_peft_model, set_peft_model_state_dict

    config = LoraConfig.from_pretrained(str(lora.directory))
    config.inference_mode = True
    config.base_model_name_or_path = None  # adapters name no path, and peft warns of another one
    with warnings.catch_warnings():
        # peft 0.21 asks transformers 5 for an attribute under its old name.
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        model = get_peft_model(base, config, adapter_name=lora.ref.id, autocast_adapter_dtype=False)
    state = {
        f"base_model.model.{name}.lora_{half}.weight": tensor
        for name, pair in pairs.items()
        for half, tensor in zip("AB", pair, strict=True)
    }
    outcome = set_peft_model_state_dict(model, state, adapter_name=lora.ref.id)
    if outcome.unexpected_keys:
        raise Refused(f"adapter {lora.ref.id}: peft does not know {outcome.unexpected_keys[0]}")
    return model.eval()
