"""Layers for training in bf16 on a GPU: the usual sums in fewer passes over memory.

peft's layer casts its input to float32 and makes four more tensors as wide as its output. Beside the matrix
products of a 7B model this costs about as much again; here the product of the low-rank halves is added by the
multiplication that makes it, and nothing wide is kept but the input. The norm is torch's one kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@contextmanager
def layers(model: nn.Module, lora: Sequence[Any]) -> Iterator[None]:
    """Within it the layers `lora` of `model` and its norms run fused wherever a gradient is wanted."""
    changed = [layer for layer in lora if _fits(layer)]
    for layer in changed:
        layer.forward = partial(_lora, layer, layer.forward)
    norms = [module for module in model.modules() if _is_norm(module)]
    for norm in norms:
        norm.forward = partial(_norm, norm)
    try:
        yield
    finally:
        for module in (*changed, *norms):
            del module.forward


def _fits(layer: Any) -> bool:
    """A plain bf16 layer with one plain adapter."""
    base = layer.get_base_layer()
    plain = type(base) is nn.Linear and base.weight.dtype == torch.bfloat16
    single = len(layer.active_adapters) == 1 and layer.active_adapters[0] in layer.lora_A
    return plain and single and not getattr(layer, "lora_variant", None)


def _is_norm(module: nn.Module) -> bool:
    """Llama's norm under any name; Gemma's, which adds one to its weight, calls its epsilon otherwise."""
    return type(module).__name__.endswith("RMSNorm") and hasattr(module, "variance_epsilon")


def _norm(norm: Any, x: Tensor) -> Tensor:
    with torch.autocast(x.device.type, enabled=False):
        return F.rms_norm(x, norm.weight.shape, norm.weight.to(x.dtype), norm.variance_epsilon)


def _lora(layer: Any, usual: Callable[..., Tensor], x: Tensor, *args: Any, **options: Any) -> Tensor:
    if not torch.is_grad_enabled() or layer.disable_adapters or layer.merged or args or options:
        return usual(x, *args, **options)
    base, name = layer.get_base_layer(), layer.active_adapters[0]
    a, b = layer.lora_A[name].weight, layer.lora_B[name].weight
    out: Tensor = _LoraLinear.apply(
        x.to(base.weight.dtype).flatten(0, -2), base.weight, base.bias, a, b, layer.scaling[name]
    )
    return out.view(*x.shape[:-1], -1)


class _LoraLinear(torch.autograd.Function):
    """x W^T + bias + scale (x A^T) B^T of x [tokens, in], W [out, in], A [rank, in], B [out, rank].

    Gradients go to x, A and B: W and the bias are frozen (Hu et al., 2021, arXiv 2106.09685).
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, a: Tensor, b: Tensor, scale: float
    ) -> Tensor:
        a, b = a.to(x.dtype), (b * scale).to(x.dtype)
        low = x @ a.T
        ctx.save_for_backward(x, low, weight, a, b)
        ctx.scale = scale
        return F.linear(x, weight, bias).addmm_(low, b.T)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, low, weight, a, b = ctx.saved_tensors
        grad = grads[0]
        back = grad @ b
        into = (grad @ weight).addmm_(back, a) if ctx.needs_input_grad[0] else None
        return into, None, None, (back.T @ x).float(), (grad.T @ low).float() * ctx.scale, None
