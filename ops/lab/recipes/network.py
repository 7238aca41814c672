"""LLaMA and Qwen2 for training: rows in groups of like length, vocabulary scores only where they count.

Parameters carry the names of transformers' LlamaForCausalLM and Qwen2ForCausalLM, so that an export is a
plain copy.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of the network. Qwen2 differs from LLaMA by biases on queries, keys and values."""

    kind: Literal["llama", "qwen2"] = "llama"
    vocabulary: int = 8192
    hidden: int = 256
    layers: int = 8
    heads: int = 8
    kv_heads: int = 8
    mlp: int = 576
    positions: int = 1024
    rope_theta: float = 10_000.0
    norm_eps: float = 1e-5

    @property
    def head(self) -> int:
        return self.hidden // self.heads

    @property
    def biased(self) -> bool:
        return self.kind == "qwen2"

    def config(self) -> dict[str, object]:
        """The `config.json` of this shape."""
        name = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM"}[self.kind]
        config: dict[str, object] = {
            "architectures": [name],
            "model_type": self.kind,
            "vocab_size": self.vocabulary,
            "hidden_size": self.hidden,
            "intermediate_size": self.mlp,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "hidden_act": "silu",
            "max_position_embeddings": self.positions,
            "rms_norm_eps": self.norm_eps,
            "rope_theta": self.rope_theta,
            "rope_parameters": {"rope_type": "default", "rope_theta": self.rope_theta},
            "tie_word_embeddings": True,
            "pad_token_id": 0,
            "bos_token_id": None,
            "eos_token_id": 3,
            "torch_dtype": "bfloat16",
        }
        if self.kind == "llama":
            config |= {"head_dim": self.head, "attention_bias": False, "mlp_bias": False}
        return config


SHAPES: Mapping[str, Shape] = {
    "llama": Shape(),
    "qwen2": Shape("qwen2", hidden=240, heads=6, kv_heads=3, mlp=672),
}
"""Sizes by architecture."""


@dataclass(frozen=True, slots=True)
class Group:
    """Rows `[start : start + rows * length]` of the flat token axis, padded on the right to `length`."""

    start: int
    rows: int
    length: int


@dataclass(frozen=True, slots=True)
class TokenBatch:
    """Flat tokens [T] and positions [T]; places `chosen` [M] predict `targets` [M] at `weights` [M]."""

    ids: Tensor
    positions: Tensor
    groups: tuple[Group, ...]
    chosen: Tensor
    targets: Tensor
    weights: Tensor

    def to(self, device: torch.device) -> TokenBatch:
        """The batch with its tensors on `device`."""
        ids, positions, chosen, targets, weights = (
            part.to(device, non_blocking=True)
            for part in (self.ids, self.positions, self.chosen, self.targets, self.weights)
        )
        return TokenBatch(ids, positions, self.groups, chosen, targets, weights)


def initial(shape: Shape, seed: int) -> dict[str, Tensor]:
    """Fresh fp32 parameters."""
    draw = torch.Generator().manual_seed(seed)

    def normal(rows: int, columns: int, scale: float) -> Tensor:
        return torch.randn(rows, columns, generator=draw) * scale

    deep = (2 * shape.layers) ** -0.5
    inner, outer = shape.hidden**-0.5 * 0.6, shape.mlp**-0.5 * 0.6
    parameters = {"model.embed_tokens.weight": normal(shape.vocabulary, shape.hidden, 0.03)}
    for layer in range(shape.layers):
        root = f"model.layers.{layer}."
        for side, heads in zip("qkv", (shape.heads, shape.kv_heads, shape.kv_heads), strict=True):
            rows = heads * shape.head
            parameters[f"{root}self_attn.{side}_proj.weight"] = normal(rows, shape.hidden, inner)
            if shape.biased:
                parameters[f"{root}self_attn.{side}_proj.bias"] = normal(1, rows, 0.02).squeeze(0)
        parameters[f"{root}self_attn.o_proj.weight"] = normal(shape.hidden, shape.hidden, inner * deep)
        parameters[f"{root}mlp.gate_proj.weight"] = normal(shape.mlp, shape.hidden, inner)
        parameters[f"{root}mlp.up_proj.weight"] = normal(shape.mlp, shape.hidden, inner)
        parameters[f"{root}mlp.down_proj.weight"] = normal(shape.hidden, shape.mlp, outer * deep)
        parameters[f"{root}input_layernorm.weight"] = torch.ones(shape.hidden)
        parameters[f"{root}post_attention_layernorm.weight"] = torch.ones(shape.hidden)
    parameters["model.norm.weight"] = torch.ones(shape.hidden)
    return {name: value.requires_grad_() for name, value in parameters.items()}


@torch.no_grad()
def spread(embeddings: Tensor, seed: int, most: float = 0.55, share: float = 0.8) -> int:
    """Noise, in place, for rows [vocabulary, hidden] that another row comes nearer to than cosine `most`.

    Tokens that are seldom an answer are pushed the same way by every other answer, until they are hardly
    distinguishable (Gao et al., 2019, arXiv 1907.12009). Returns how many rows were moved.
    """
    plain = F.normalize(embeddings, dim=1)
    nearest = (plain @ plain.T).fill_diagonal_(-1.0).amax(1)
    crowded = nearest > most
    noise = torch.randn(embeddings.shape, generator=torch.Generator().manual_seed(seed))
    lengths = embeddings.norm(dim=1, keepdim=True)
    moved = embeddings + share * lengths * F.normalize(noise, dim=1)
    embeddings[crowded] = (F.normalize(moved, dim=1) * lengths)[crowded]
    return int(crowded.sum())


def rope(shape: Shape) -> tuple[Tensor, Tensor]:
    """Cosines and sines [positions, head] of the rotary embedding, halves alike."""
    frequencies = shape.rope_theta ** (-torch.arange(0, shape.head, 2).float() / shape.head)
    angles = torch.outer(torch.arange(shape.positions).float(), frequencies).repeat(1, 2)
    return angles.cos(), angles.sin()


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    lower_half, upper_half = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-upper_half, lower_half), dim=-1) * sin


def _norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return F.rms_norm(x, (x.shape[-1],), weight, eps)


def _attend(q: Tensor, k: Tensor, v: Tensor, groups: Sequence[Group]) -> Tensor:
    """Causal attention within each row; q, k, v [T, heads, head]. Padding stands last, so nothing sees it."""
    attention = _fused if q.is_cuda else _plain
    outputs = []
    for group in groups:
        part = slice(group.start, group.start + group.rows * group.length)
        q_, k_, v_ = (x[part].view(group.rows, group.length, *x.shape[1:]).transpose(1, 2) for x in (q, k, v))
        outputs.append(attention(q_, k_, v_).transpose(1, 2).reshape(group.rows * group.length, -1))
    padding = q.shape[0] - sum(len(part) for part in outputs)
    return torch.cat([*outputs, q.new_zeros(padding, q.shape[1] * q.shape[2])])


def _plain(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """On a CPU two matrix products and a softmax are faster than the fused kernel."""
    length = q.shape[2]
    future = torch.full((length, length), float("-inf"), dtype=q.dtype).triu(1)
    return torch.softmax(torch.matmul(q, k.mT) * q.shape[-1] ** -0.5 + future, dim=-1) @ v


def _fused(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, is_causal=True)


def _project_qkv(
    x: Tensor,
    norm: Tensor,
    joined: Tensor,
    bias: Tensor | None,
    cos: Tensor,
    sin: Tensor,
    heads: int,
    kv_heads: int,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values [T, heads, head] of a layer; keys and values repeated to as many heads."""
    projected = F.linear(_norm(x, norm, eps), joined, bias)
    projected = projected.view(x.shape[0], heads + 2 * kv_heads, x.shape[1] // heads)
    q, k, v = torch.split(projected, [heads, kv_heads, kv_heads], dim=1)
    times = heads // kv_heads
    k, v = _rotate(k, cos, sin), v.contiguous()
    if times > 1:
        k, v = k.repeat_interleave(times, dim=1), v.repeat_interleave(times, dim=1)
    return _rotate(q, cos, sin), k, v


def _finish_layer(
    x: Tensor, out: Tensor, down: Tensor, norm: Tensor, wide: Tensor, narrow: Tensor, eps: float
) -> Tensor:
    """The part of a layer after attention: the output projection and the MLP."""
    x = x + F.linear(out, down)
    gate, value = F.linear(_norm(x, norm, eps), wide).chunk(2, dim=-1)
    return x + F.linear(F.silu(gate) * value, narrow)


LayerHalves = tuple[Callable[..., tuple[Tensor, Tensor, Tensor]], Callable[..., Tensor]]


@functools.cache
def _layer_halves(device: str) -> LayerHalves:
    """The two halves of a layer; compiled on a GPU: their small operations are bound by memory traffic."""
    if device == "cuda":
        return torch.compile(_project_qkv, dynamic=False), torch.compile(_finish_layer, dynamic=False)
    return _project_qkv, _finish_layer


def hidden(
    parameters: dict[str, Tensor],
    shape: Shape,
    batch: TokenBatch,
    tables: tuple[Tensor, Tensor],
    dtype: torch.dtype,
) -> Tensor:
    """Last hidden states [M, hidden] at the batch's chosen places, computed in `dtype`."""
    weights = {name: value.to(dtype) for name, value in parameters.items()}
    cos, sin = (table.to(dtype)[batch.positions].unsqueeze(1) for table in tables)
    project_qkv, finish_layer = _layer_halves(batch.ids.device.type)
    sizes = shape.heads, shape.kv_heads, shape.norm_eps
    x = F.embedding(batch.ids, weights["model.embed_tokens.weight"])
    for layer in range(shape.layers):
        root = f"model.layers.{layer}."
        attention = root + "self_attn."
        joined = torch.cat([weights[f"{attention}{side}_proj.weight"] for side in "qkv"])
        bias = (
            torch.cat([weights[f"{attention}{side}_proj.bias"] for side in "qkv"]) if shape.biased else None
        )
        q, k, v = project_qkv(x, weights[root + "input_layernorm.weight"], joined, bias, cos, sin, *sizes)
        wide = torch.cat([weights[root + "mlp.gate_proj.weight"], weights[root + "mlp.up_proj.weight"]])
        x = finish_layer(
            x,
            _attend(q, k, v, batch.groups),
            weights[attention + "o_proj.weight"],
            weights[root + "post_attention_layernorm.weight"],
            wide,
            weights[root + "mlp.down_proj.weight"],
            shape.norm_eps,
        )
    return _norm(x[batch.chosen], weights["model.norm.weight"], shape.norm_eps)


def loss(
    parameters: dict[str, Tensor],
    shape: Shape,
    batch: TokenBatch,
    tables: tuple[Tensor, Tensor],
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:
    """Weighted sum of cross-entropies, and the number of counted places [scalar] that are predicted right."""
    states = hidden(parameters, shape, batch, tables, dtype)
    scores = (states @ parameters["model.embed_tokens.weight"].to(dtype).T).float()
    token_losses = F.cross_entropy(scores, batch.targets, reduction="none")
    correct = ((scores.detach().argmax(-1) == batch.targets) & (batch.weights > 0)).sum()
    return (token_losses * batch.weights).sum(), correct
