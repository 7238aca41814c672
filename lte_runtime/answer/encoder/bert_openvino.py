"""BERT (Devlin et al., 2019) as an OpenVINO graph, built from safetensors without torch.

Two streams of one core each: a single question runs on one core without waiting, a list of batches on both.
"""

from __future__ import annotations

import queue
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file

from lte_runtime.answer.encoder.model_files import ModelFiles
from lte_runtime.answer.encoder.openvino_constants import array, integer, integers, real
from lte_runtime.answer.encoder.openvino_quiet import ops, ov
from lte_runtime.errors import Refused
from lte_runtime.types import Vectors

Ids = npt.NDArray[np.int64]
Mask = npt.NDArray[np.float32]
Weights = Mapping[str, npt.NDArray[Any]]

_GELU = {"gelu": "erf", "gelu_new": "tanh", "gelu_pytorch_tanh": "tanh"}
_MASKED = 1e9
_AHEAD = 2  # batches that wait for a stream, so that none is idle while the caller takes results
_USUAL_LENGTHS = range(8, 33, 4)


def supports(files: ModelFiles) -> bool:
    """Whether the model is a plain BERT with safetensors, which this graph computes."""
    config = files.config
    return (
        config.get("model_type") == "bert"
        and config.get("position_embedding_type", "absolute") == "absolute"
        and config.get("hidden_act") in _GELU
        and (files.transformer / "model.safetensors").is_file()
    )


class OpenVinoBert:
    """Token vectors on the CPU. `precision` is bf16 where the processor has it, else f32. Thread-safe.

    `trained` are weights in place of the model's own, by their names without a `bert.` before them.
    """

    def __init__(
        self,
        files: ModelFiles,
        *,
        precision: str = "auto",
        streams: int = 2,
        trained: Weights | None = None,
    ) -> None:
        core = ov.Core()
        if precision == "auto":
            precision = "bf16" if "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES") else "f32"
        self.precision = precision
        self.streams = streams
        settings = {
            "INFERENCE_PRECISION_HINT": precision,
            "NUM_STREAMS": streams,
            "INFERENCE_NUM_THREADS": streams,
            "ENABLE_CPU_PINNING": False,  # a busy neighbour on a pinned core would hold every batch up
        }
        self._compiled = core.compile_model(
            _graph({**_weights(files), **(trained or {})}, files.config), "CPU", settings
        )
        self._idle: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._warm_up()

    def run(self, batches: Sequence[tuple[Ids, Mask]]) -> Iterator[Vectors]:
        """For each (ids, mask) [n, length] the token vectors [n, length, d], in order, as copies."""
        with self._requests(min(self.streams + _AHEAD, len(batches))) as free:
            running: deque[Any] = deque()
            for ids, mask in batches:
                done = None if free else self._next_result(running, free)
                request = free.pop()
                # Set one by one: finding out what a list of inputs means takes a tenth of a millisecond.
                request.set_input_tensor(0, ov.Tensor(ids, shared_memory=True))
                request.set_input_tensor(1, ov.Tensor(mask, shared_memory=True))
                request.start_async()
                running.append(request)
                if done is not None:
                    yield done
            while running:
                yield self._next_result(running, free)

    def _warm_up(self) -> None:
        """Meet the shapes of single questions on every stream, so that the first askers need not wait."""
        for length in _USUAL_LENGTHS:
            ids, mask = np.zeros((1, length), np.int64), np.ones((1, length), np.float32)
            for _ in self.run([(ids, mask)] * (2 * self.streams)):
                pass

    @staticmethod
    def _next_result(running: deque[Any], free: list[Any]) -> Vectors:
        request = running.popleft()
        request.wait()
        free.append(request)
        return np.array(request.get_output_tensor().data, np.float32)

    @contextmanager
    def _requests(self, count: int) -> Iterator[list[Any]]:
        """Requests for this caller alone; they are kept for the next one."""
        requests = [self._request() for _ in range(count)]
        try:
            yield list(requests)
        finally:
            for request in requests:
                request.wait()
                self._idle.put(request)

    def _request(self) -> Any:
        try:
            return self._idle.get_nowait()
        except queue.Empty:
            return self._compiled.create_infer_request()


def _weights(files: ModelFiles) -> Weights:
    loaded = load_file(files.transformer / "model.safetensors")
    stripped = {name.removeprefix("bert."): array for name, array in loaded.items()}
    if "embeddings.word_embeddings.weight" not in stripped:
        raise Refused(f"{files.directory} holds no BERT weights")
    return {
        name: array.astype(np.float32, copy=False)
        for name, array in stripped.items()
        if array.dtype.kind == "f"
    }


def _graph(weights: Weights, config: Mapping[str, Any]) -> Any:
    """Inputs ids [n, length] (i64) and mask [n, length] (f32); output [n, length, hidden] (f32)."""
    ids, mask = ops.parameter([-1, -1], np.int64), ops.parameter([-1, -1], np.float32)
    layer = _Layers(weights, config)
    rows = layer.norm(layer.embeddings(ids), "embeddings.LayerNorm")
    bias = ops.multiply(ops.subtract(mask, real(1.0)), real(_MASKED))
    bias = ops.unsqueeze(bias, integers(1, 2))
    for number in range(config["num_hidden_layers"]):
        rows = layer.block(rows, bias, f"encoder.layer.{number}.")
    return ov.Model([rows], [ids, mask], "bert")


class _Layers:
    """The parts of the graph, with the weights that they take."""

    def __init__(self, weights: Weights, config: Mapping[str, Any]) -> None:
        self._weights = weights
        self._heads = config["num_attention_heads"]
        self._hidden = config["hidden_size"]
        self._epsilon = float(config["layer_norm_eps"])
        self._gelu = _GELU[config["hidden_act"]]

    def embeddings(self, ids: Any) -> Any:
        """Word, position and (always the first) token type embeddings."""
        positions = self._weights["embeddings.position_embeddings.weight"]
        positions = positions + self._weights["embeddings.token_type_embeddings.weight"][0]
        length = ops.gather(ops.shape_of(ids), integers(1), integer(0))
        position_rows = ops.slice(array(positions), integers(0), length, integers(1), integers(0))
        word_rows = ops.gather(self._array("embeddings.word_embeddings.weight"), ids, integer(0))
        return ops.add(word_rows, position_rows)

    def block(self, rows: Any, bias: Any, name: str) -> Any:
        attended = self._linear(self._attention(rows, bias, name), name + "attention.output.dense")
        rows = self.norm(ops.add(attended, rows), name + "attention.output.LayerNorm")
        inner = ops.gelu(self._linear(rows, name + "intermediate.dense"), self._gelu)
        return self.norm(ops.add(self._linear(inner, name + "output.dense"), rows), name + "output.LayerNorm")

    def norm(self, rows: Any, name: str) -> Any:
        scaled = ops.mvn(rows, integers(-1), True, self._epsilon, "INSIDE_SQRT")
        return ops.add(ops.multiply(scaled, self._array(name + ".weight")), self._array(name + ".bias"))

    def _attention(self, rows: Any, bias: Any, name: str) -> Any:
        """Query, key and value in one product, then the fused attention."""
        names = [f"{name}attention.self.{part}" for part in ("query", "key", "value")]
        weight = np.concatenate([self._weights[part + ".weight"] for part in names])
        shift = np.concatenate([self._weights[part + ".bias"] for part in names])
        joint = ops.split(ops.add(ops.matmul(rows, array(weight), False, True), array(shift)), integer(2), 3)
        query, key, value = (self._by_head(joint.output(part)) for part in range(3))
        mixed = ops.scaled_dot_product_attention(query, key, value, bias)
        return ops.reshape(ops.transpose(mixed, integers(0, 2, 1, 3)), integers(0, 0, self._hidden), True)

    def _by_head(self, rows: Any) -> Any:
        shape = integers(0, 0, self._heads, self._hidden // self._heads)
        return ops.transpose(ops.reshape(rows, shape, True), integers(0, 2, 1, 3))

    def _linear(self, rows: Any, name: str) -> Any:
        product = ops.matmul(rows, self._array(name + ".weight"), False, True)
        return ops.add(product, self._array(name + ".bias"))

    def _array(self, name: str) -> Any:
        return array(self._weights[name])
