"""LLaMA (Touvron et al. 2023, arXiv 2302.13971) and Qwen2 as an OpenVINO graph, built without torch.

The graph keeps keys and values itself, in variables. What it is fed leaves all bookkeeping outside: which
past tokens a token sees (`mask`), where it stands (`cos` and `sin` of rotary positions), which rows of the
past go on (`beam_idx`). The CPU plugin fuses norms, rotary positions and attention with its cache; it knows
them by their shape, so the order of the operations here is not free.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from lte_runtime.answer.encoder.openvino_constants import array, integer, integers, real
from lte_runtime.answer.encoder.openvino_quiet import ops, ov
from lte_runtime.answer.engine.weights import Array
from lte_runtime.errors import Refused

FORMATS = ("float32", "int8")
GROUPS = (64, 32)
"""Weights that share a scale in int8; the first that divides a row, else the row has one."""
END = np.iinfo(np.int32).max
ATTENTION = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj")
MLP = ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")
NORMS = ("input_layernorm", "post_attention_layernorm")


@dataclass(frozen=True, slots=True)
class Shape:
    """The sizes of a model. `tied`: the embeddings are the output layer too; `theta` of rotary positions."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    epsilon: float
    theta: float
    tied: bool

    def linears(self) -> Iterator[str]:
        """Modules that multiply by a weight, in their order: those that an adapter may change."""
        for number in range(self.layers):
            for part in (*ATTENTION, *MLP):
                yield f"model.layers.{number}.{part}"
        yield "lm_head"

    def stored(self, linear: str) -> str:
        """The module whose weight a linear one has in the files."""
        return "model.embed_tokens" if self.tied and linear == "lm_head" else linear

    def tensors(self) -> frozenset[str]:
        """Names that the files must hold; biases may stand beside."""
        modules = {"model.norm", "model.embed_tokens", *map(self.stored, self.linears())}
        modules |= {f"model.layers.{number}.{norm}" for number in range(self.layers) for norm in NORMS}
        return frozenset(f"{module}.weight" for module in modules)


def read_shape(config: Mapping[str, Any]) -> Shape:
    """The sizes in a model's config.json; raises `Refused` with what this graph does not compute."""
    rope = config.get("rope_parameters") or {**(config.get("rope_scaling") or {})}
    rope_type = rope.get("rope_type", rope.get("type", "default"))
    problems = {
        f"model_type {config.get('model_type')}": config.get("model_type") not in ("llama", "qwen2"),
        f"hidden_act {config.get('hidden_act')}": config.get("hidden_act") != "silu",
        f"rope_type {rope_type}": rope_type != "default",
        "partial rotary positions": config.get("partial_rotary_factor", 1) != 1,
        "sliding windows": bool(config.get("use_sliding_window")),
        "quantized weights": bool(config.get("quantization_config")),
    }
    if wrong := [problem for problem, holds in problems.items() if holds]:
        raise Refused(
            f"OpenVINO does not read this model ({', '.join(wrong)}): it reads the shapes llama and qwen2; "
            "set model.engine = 'transformers'"
        )
    heads = int(config["num_attention_heads"])
    return Shape(
        layers=int(config["num_hidden_layers"]),
        hidden=int(config["hidden_size"]),
        heads=heads,
        kv_heads=int(config.get("num_key_value_heads") or heads),
        head_dim=int(config.get("head_dim") or config["hidden_size"] // heads),
        epsilon=float(config["rms_norm_eps"]),
        theta=float(rope.get("rope_theta") or config.get("rope_theta") or 10_000.0),
        tied=bool(config.get("tie_word_embeddings")),
    )


def build(shape: Shape, weight: Callable[[str], Array | None], weights: str) -> Any:
    """The graph, its weights in one of `FORMATS`. `weight` gives a tensor by name, None for a missing bias.

    Inputs: ids [rows, new] i64, mask [rows, 1, new, past + new] f32 to add to the scores of attention, cos
    and sin [rows, 1, new, head_dim] f32, beam_idx [rows] i32, and from [1] i64, minus the number of last
    tokens whose logits are wanted. Output: logits [rows, wanted, vocabulary] f32.
    """
    return _Graph(shape, weight, weights).model()


class _Graph:
    def __init__(self, shape: Shape, weight: Callable[[str], Array | None], weights: str) -> None:
        self._shape, self._weight, self._format = shape, weight, weights
        self._ids = ops.parameter([-1, -1], np.int64, "ids")
        self._mask = ops.parameter([-1, 1, -1, -1], np.float32, "mask")
        self._cos = ops.parameter([-1, 1, -1, shape.head_dim], np.float32, "cos")
        self._sin = ops.parameter([-1, 1, -1, shape.head_dim], np.float32, "sin")
        self._beam = ops.parameter([-1], np.int32, "beam_idx")
        self._from = ops.parameter([1], np.int64, "from")
        self._sinks: list[Any] = []
        rows = ops.gather(ops.shape_of(self._ids), integers(0), integer(0))
        sizes = ops.concat([rows, integers(shape.kv_heads), integers(0), integers(shape.head_dim)], 0)
        self._nothing = ops.broadcast(real(0.0), sizes)

    def model(self) -> Any:
        embeddings = self._matrix("model.embed_tokens.weight")
        states = ops.gather(embeddings, self._ids, integer(0))
        for number in range(self._shape.layers):
            states = self._layer(states, f"model.layers.{number}.", number)
        states = ops.slice(states, self._from, integers(END), integers(1), integers(1))
        head = self._weight("lm_head.weight")
        matrix = embeddings if head is None else _matrix(head, self._format)
        logits = ops.matmul(self._norm(states, "model.norm"), matrix, False, True)
        inputs = [self._ids, self._mask, self._cos, self._sin, self._beam, self._from]
        return ov.Model([ops.result(logits)], self._sinks, inputs, "causal_lm")

    def _layer(self, states: Any, name: str, number: int) -> Any:
        normed = self._norm(states, name + "input_layernorm")
        query, key, value = (
            self._by_head(self._linear(normed, f"{name}self_attn.{part}_proj"), heads)
            for part, heads in zip("qkv", (self._shape.heads, *[self._shape.kv_heads] * 2), strict=True)
        )
        keys = self._for_all_heads(self._with_past(self._rotated(key), f"key.{number}"))
        values = self._for_all_heads(self._with_past(value, f"value.{number}"))
        mixed = ops.scaled_dot_product_attention(self._rotated(query), keys, values, self._mask)
        width = self._shape.heads * self._shape.head_dim
        joined = ops.reshape(ops.transpose(mixed, integers(0, 2, 1, 3)), integers(0, 0, width), True)
        states = ops.add(states, self._linear(joined, name + "self_attn.o_proj"))
        normed = self._norm(states, name + "post_attention_layernorm")
        gate = ops.swish(self._linear(normed, name + "mlp.gate_proj"))
        inner = ops.multiply(gate, self._linear(normed, name + "mlp.up_proj"))
        return ops.add(states, self._linear(inner, name + "mlp.down_proj"))

    def _norm(self, states: Any, name: str) -> Any:
        """Zhang and Sennrich 2019, arXiv 1910.07467."""
        mean = ops.reduce_mean(ops.power(states, real(2.0)), integers(-1), True)
        inverse = ops.divide(real(1.0), ops.sqrt(ops.add(mean, real(self._shape.epsilon))))
        return ops.multiply(ops.multiply(states, inverse), self._vector(name + ".weight"))

    def _linear(self, states: Any, name: str) -> Any:
        product = ops.matmul(states, self._matrix(name + ".weight"), False, True)
        bias = self._weight(name + ".bias")
        return product if bias is None else ops.add(product, array(bias.reshape(1, 1, -1)))

    def _by_head(self, states: Any, heads: int) -> Any:
        split = ops.reshape(states, integers(0, 0, heads, self._shape.head_dim), True)
        return ops.transpose(split, integers(0, 2, 1, 3))

    def _rotated(self, states: Any) -> Any:
        """Su et al. 2021, arXiv 2104.09864, the halves of a head as real and imaginary parts."""
        middle = self._shape.head_dim // 2
        first = ops.slice(states, integers(0), integers(middle), integers(1), integers(3))
        second = ops.slice(states, integers(middle), integers(END), integers(1), integers(3))
        turned = ops.concat([ops.multiply(second, real(-1.0)), first], -1)
        return ops.add(ops.multiply(states, self._cos), ops.multiply(turned, self._sin))

    def _with_past(self, states: Any, variable: str) -> Any:
        """Keys or values of the tokens before and of these, kept for the next pass."""
        info = ov.op.util.VariableInfo()
        info.data_shape = ov.PartialShape([-1, self._shape.kv_heads, -1, self._shape.head_dim])
        info.data_type = ov.Type.f32
        info.variable_id = variable
        cache = ov.op.util.Variable(info)
        past = ops.gather(ops.read_value(self._nothing, cache), self._beam, integer(0))
        joined = ops.concat([past, states], 2)
        self._sinks.append(ops.assign(joined, cache))
        return joined

    def _for_all_heads(self, states: Any) -> Any:
        """Ainslie et al. 2023, arXiv 2305.13245: groups of queries share keys and values."""
        group = self._shape.heads // self._shape.kv_heads
        if group == 1:
            return states
        # A product with ones, since the plugin's fusion of attention knows this form of a repetition.
        repeated = ops.multiply(
            ops.unsqueeze(states, integers(2)), array(np.ones((1, 1, group, 1, 1), np.float32))
        )
        return ops.reshape(repeated, integers(0, self._shape.heads, -1, self._shape.head_dim), True)

    def _matrix(self, name: str) -> Any:
        return _matrix(self._given(name), self._format)

    def _vector(self, name: str) -> Any:
        return array(self._given(name).reshape(1, 1, -1))

    def _given(self, name: str) -> Array:
        value = self._weight(name)
        if value is None:
            raise Refused(f"the model's files hold no tensor {name}")
        return value


def _matrix(value: Array, weights: str) -> Any:
    """A weight [out, in] as a constant, widened to float32 where it is stored in less."""
    return array(value) if weights == "float32" else _int8(value)


def _int8(value: Array) -> Any:
    """A scale for each group of a row, so that one large weight coarsens few others."""
    out, width = value.shape
    size = next((group for group in GROUPS if width % group == 0), width)
    grouped = value.reshape(out, width // size, size)
    scale = np.abs(grouped).max(-1, keepdims=True) / np.float32(127)
    scale[scale == 0] = 1
    quantised = np.clip(np.rint(grouped / scale), -127, 127).astype(np.int8)
    widened = ops.multiply(ops.convert(array(quantised), "f32"), array(scale))
    return ops.reshape(widened, integers(out, width), False)
