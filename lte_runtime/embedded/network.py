"""A LLaMA forward pass for training: rows in groups of like length, vocabulary scores only where they count.

Parameters carry the names of transformers' LlamaForCausalLM, so that an export is a plain copy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of the network."""

    vocabulary: int = 8192
    hidden: int = 256
    layers: int = 6
    heads: int = 8
    mlp: int = 704
    positions: int = 1024
    rope_theta: float = 10_000.0
    norm_eps: float = 1e-5

    @property
    def head(self) -> int:
        return self.hidden // self.heads

    def config(self) -> dict[str, object]:
        """The `config.json` of this shape."""
        return {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "vocab_size": self.vocabulary,
            "hidden_size": self.hidden,
            "intermediate_size": self.mlp,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.heads,
            "head_dim": self.head,
            "hidden_act": "silu",
            "max_position_embeddings": self.positions,
            "rms_norm_eps": self.norm_eps,
            "rope_theta": self.rope_theta,
            "rope_parameters": {"rope_type": "default", "rope_theta": self.rope_theta},
            "attention_bias": False,
            "mlp_bias": False,
            "tie_word_embeddings": True,
            "pad_token_id": 0,
            "bos_token_id": None,
            "eos_token_id": 3,
            "torch_dtype": "bfloat16",
        }

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Group:
    """Rows `[start : start + rows * length]` of the flat token axis, padded on the right to `length`."""

    start: int
    rows: int
    length: int


@dataclass(frozen=True, slots=True)
class Batch:
    """Flat tokens [T] and positions [T]; places `chosen` [M] predict `targets` [M] at `weights` [M]."""

    ids: Tensor
    positions: Tensor
    groups: tuple[Group, ...]
    chosen: Tensor
    targets: Tensor
    weights: Tensor


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
        for side in "qkv":
            parameters[f"{root}self_attn.{side}_proj.weight"] = normal(shape.hidden, shape.hidden, inner)
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

    Tokens that are seldom an answer are pushed the same way by every other answer, until they can hardly be
    told apart (Gao et al., 2019, arXiv 1907.12009). Returns how many rows were moved.
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
    left, right = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-right, left), dim=-1) * sin


def _norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return F.rms_norm(x, (x.shape[-1],), weight, eps)


def _attend(q: Tensor, k: Tensor, v: Tensor, groups: Sequence[Group]) -> Tensor:
    """Causal attention within each row; q, k, v [T, heads, head]. Padding stands last, so nothing sees it."""
    outputs = []
    for group in groups:
        part = slice(group.start, group.start + group.rows * group.length)
        q_, k_, v_ = (x[part].view(group.rows, group.length, *x.shape[1:]).transpose(1, 2) for x in (q, k, v))
        future = torch.full((group.length, group.length), float("-inf"), dtype=q.dtype).triu(1)
        shares = torch.softmax(torch.matmul(q_, k_.mT) * q.shape[-1] ** -0.5 + future, dim=-1)
        out = torch.matmul(shares, v_)
        outputs.append(out.transpose(1, 2).reshape(group.rows * group.length, -1))
    left = q.shape[0] - sum(len(part) for part in outputs)
    return torch.cat([*outputs, q.new_zeros(left, q.shape[1] * q.shape[2])])


def hidden(
    parameters: dict[str, Tensor],
    shape: Shape,
    batch: Batch,
    tables: tuple[Tensor, Tensor],
    dtype: torch.dtype,
) -> Tensor:
    """Last hidden states [M, hidden] at the batch's chosen places, computed in `dtype`."""
    weights = {name: value.to(dtype) for name, value in parameters.items()}
    cos, sin = (table.to(dtype)[batch.positions].unsqueeze(1) for table in tables)
    x = F.embedding(batch.ids, weights["model.embed_tokens.weight"])
    for layer in range(shape.layers):
        root = f"model.layers.{layer}."
        h = _norm(x, weights[root + "input_layernorm.weight"], shape.norm_eps)
        joined = torch.cat([weights[f"{root}self_attn.{side}_proj.weight"] for side in "qkv"])
        q, k, v = (h @ joined.T).view(-1, 3, shape.heads, shape.head).unbind(1)
        out = _attend(_rotate(q, cos, sin), _rotate(k, cos, sin), v, batch.groups)
        x = x + out @ weights[root + "self_attn.o_proj.weight"].T
        h = _norm(x, weights[root + "post_attention_layernorm.weight"], shape.norm_eps)
        up = torch.cat([weights[root + "mlp.gate_proj.weight"], weights[root + "mlp.up_proj.weight"]])
        gate, value = (h @ up.T).chunk(2, dim=-1)
        x = x + (F.silu(gate) * value) @ weights[root + "mlp.down_proj.weight"].T
    return _norm(x[batch.chosen], weights["model.norm.weight"], shape.norm_eps)


def loss(
    parameters: dict[str, Tensor],
    shape: Shape,
    batch: Batch,
    tables: tuple[Tensor, Tensor],
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:
    """Weighted sum of cross-entropies, and the number of counted places [scalar] that are predicted right."""
    states = hidden(parameters, shape, batch, tables, dtype)
    scores = (states @ parameters["model.embed_tokens.weight"].to(dtype).T).float()
    each = F.cross_entropy(scores, batch.targets, reduction="none")
    right = ((scores.detach().argmax(-1) == batch.targets) & (batch.weights > 0)).sum()
    return (each * batch.weights).sum(), right
