"""The engine over OpenVINO, for causal models of the shapes llama and qwen2 on a CPU.

An adapter is a graph of its own with merged weights: OpenVINO's own LoRA is passed over in silence for some
graphs and costs more than half of the speed where it works.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lte_runtime.answer.encoder.openvino_quiet import ov
from lte_runtime.answer.engine import openvino_graph
from lte_runtime.answer.engine.files import Lora, base_fingerprint, read_json, resolve, verify_adapter
from lte_runtime.answer.engine.local import TRIAL_TOKENS, Between, LocalEngine, check_trial
from lte_runtime.answer.engine.pace import at_once, beside_answers
from lte_runtime.answer.engine.tokenized import Limits, token_ids
from lte_runtime.answer.engine.tokenizer import load_tokenizer
from lte_runtime.answer.engine.weights import Array, BaseWeights, Halves, read_halves
from lte_runtime.errors import Refused

DEFAULT_FORMAT = "int8"
UNSEEN = np.float32(-1e9)
"""What is added to the score of a token that attention must not see."""


class OpenVinoSession:
    """See `greedy.Session`. A version has one session at a time: a new one empties the cache of the last.

    A token that is cropped stays in the cache and is seen by nobody.
    """

    def __init__(self, request: Any, shape: openvino_graph.Shape) -> None:
        request.reset_state()
        self._request = request
        exponents = np.arange(0, shape.head_dim, 2, dtype=np.float32) / np.float32(shape.head_dim)
        self._frequencies = np.float32(1) / np.float32(shape.theta) ** exponents
        self._seen = np.zeros((0, 0), bool)
        """[rows, tokens in the cache]"""
        self._kept: npt.NDArray[np.int32] | None = None
        """Rows of the cache that go on; None for all."""

    @property
    def crops(self) -> bool:
        return True

    def extend(self, tokens: Sequence[Sequence[int]], scores: int = 1) -> npt.NDArray[np.float32]:
        rows, width = len(tokens), max(map(len, tokens))
        ids = np.zeros((rows, width), np.int64)
        new = np.zeros((rows, width), bool)
        for row, row_tokens in enumerate(tokens):
            ids[row, width - len(row_tokens) :] = row_tokens
            new[row, width - len(row_tokens) :] = True
        past = self._seen if self._seen.shape[1] else np.zeros((rows, 0), bool)
        self._seen = np.concatenate([past, new], axis=1)
        kept = np.arange(rows, dtype=np.int32) if self._kept is None else self._kept
        self._kept = None
        angles = self._angles(width)
        result = self._request.infer(
            [ids, self._mask(width), np.cos(angles), np.sin(angles), kept, np.array([-scores], np.int64)]
        )
        # A copy: the next pass writes into the same memory.
        return np.array(result[0], np.float32)

    def crop(self, count: int) -> None:
        self._seen[:, -count:] = False

    def keep(self, indices: Sequence[int]) -> None:
        self._kept = np.array(indices, np.int32)
        self._seen = self._seen[self._kept]

    def _mask(self, width: int) -> Array:
        """[rows, 1, width, tokens]: 0 for what a token sees, which is itself and what stands before it."""
        length = self._seen.shape[1]
        before = np.arange(length) <= np.arange(length - width, length)[:, None]
        seen = before[None] & self._seen[:, None]
        return np.where(seen, np.float32(0), UNSEEN)[:, None]

    def _angles(self, width: int) -> Array:
        """[rows, 1, width, head_dim]: positions count the tokens that are seen."""
        positions = np.maximum(np.cumsum(self._seen, axis=1)[:, -width:] - 1, 0).astype(np.float32)
        half = positions[:, None, :, None] * self._frequencies
        return np.concatenate([half, half], axis=-1)


@dataclass(frozen=True)
class Merged:
    """An adapter's halves with their scale, to be added to the weights."""

    adapter_id: str
    halves: Halves
    scale: np.float32

    def into(self, module: str, weight: Array) -> Array:
        """W + scale B A, in float32; raises `Refused` where that is infinite."""
        a, b = self.halves[module]
        with np.errstate(over="ignore", invalid="ignore"):
            total = weight + self.scale * (b @ a)
        if not np.isfinite(total).all():
            raise Refused(f"adapter {self.adapter_id} makes the weights of {module} infinite")
        return total


class OpenVinoModel:
    """The base and its adapters as compiled graphs, `weights` in one of `openvino_graph.FORMATS`."""

    def __init__(self, directory: Path, config: Mapping[str, Any], weights: str, threads: int) -> None:
        self.shape = openvino_graph.read_shape(config)
        self._stored = BaseWeights(directory)
        _check_tensors(self.shape, self._stored)
        self._weights = weights
        self._core = ov.Core()
        able = self._core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        precision = "bf16" if weights != "float32" and "BF16" in able else "f32"
        self._settings = {
            "INFERENCE_PRECISION_HINT": precision,
            "KV_CACHE_PRECISION": precision,
            # Rounding activations to int8 gains little and changes answers.
            "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0,
            "NUM_STREAMS": 1,
            "INFERENCE_NUM_THREADS": threads or len(os.sched_getaffinity(0)),
            "ENABLE_CPU_PINNING": False,  # a busy neighbour on a pinned core would hold every token up
        }
        self._base = self._compile(None)
        self._trial = self._scores(self._base)

    @classmethod
    def read(cls, directory: Path, weights: str, threads: int) -> OpenVinoModel:
        """The model of a directory; raises `Refused` or `Damaged` with the reason."""
        return cls(directory, read_json(directory, "config.json"), weights, threads)

    @property
    def base(self) -> Any:
        return self._base

    @property
    def adapter_mode(self) -> str:
        return "merged"

    @property
    def pads(self) -> bool:
        return True

    def session(self, version: Any, tokens: int) -> OpenVinoSession:  # noqa: ARG002 - threads are set once
        return OpenVinoSession(version, self.shape)

    def check(self, adapter: Lora, pace: Callable[[], None] = at_once) -> Halves:
        """The adapter's halves; raises `Damaged` or `Refused` when they do not fit the model."""
        linears = {
            linear: self._stored.shape(f"{self.shape.stored(linear)}.weight")
            for linear in self.shape.linears()
        }
        return read_halves(adapter, linears, pace)

    def load(
        self,
        adapter: Lora,
        between: Between = lambda step: step(),  # noqa: ARG002 - nothing here waits for the inference thread
        pace: Callable[[], None] = at_once,
    ) -> Any:
        """A graph with the adapter merged, compiled and tried."""
        merged = Merged(adapter.ref.id, self.check(adapter, pace), np.float32(adapter.scale))
        version = beside_answers(lambda: self._compile(merged, pace))
        check_trial(adapter.ref.id, self._trial, self._scores(version))
        return version

    def _compile(self, merged: Merged | None, pace: Callable[[], None] = at_once) -> Any:
        """A request on the graph of the base, or of an adapter merged into it."""

        def weight(name: str) -> Array | None:
            pace()
            module, _, kind = name.rpartition(".")
            changed = merged is not None and kind == "weight" and module in merged.halves
            if module == "lm_head" and self.shape.tied and not changed:
                return None
            stored = f"{self.shape.stored(module)}.{kind}"
            if stored not in self._stored.names:
                return None
            value = self._stored.read(stored)
            return merged.into(module, value) if merged and changed else value

        graph = openvino_graph.build(self.shape, weight, self._weights)
        return self._core.compile_model(graph, "CPU", self._settings).create_infer_request()

    def _scores(self, version: Any) -> Array:
        """Logits behind `TRIAL_TOKENS`."""
        return OpenVinoSession(version, self.shape).extend([TRIAL_TOKENS], len(TRIAL_TOKENS))


def reads(directory: Path) -> bool:
    """Whether OpenVINO computes the model of a directory; raises `Damaged` for files that cannot be read."""
    try:
        _check_tensors(openvino_graph.read_shape(read_json(directory, "config.json")), BaseWeights(directory))
    except Refused:
        return False
    return True


def _check_tensors(shape: openvino_graph.Shape, stored: BaseWeights) -> None:
    """A tensor that the graph has no place for is a model that it does not compute."""
    needed = shape.tensors()
    optional = {f"{module}.bias" for module in shape.linears()} | {"lm_head.weight"}
    missing = sorted(needed - stored.names)
    extra = sorted(name for name in stored.names - needed - optional if "rotary_emb" not in name)
    if missing or extra:
        raise Refused(
            f"OpenVINO does not read this model: tensor {(missing or extra)[0]} is "
            f"{'missing' if missing else 'not part of its shape'}; set model.engine = 'transformers'"
        )


class OpenVinoEngine(LocalEngine):
    """The engine over a model that OpenVINO reads; see `openvino_graph.read_shape`."""

    @classmethod
    def load(
        cls,
        model: str | Path,
        adapter_dir: Path | None = None,
        *,
        weights: str = "auto",
        max_batch: int = 8,
        queue_limit: int = 256,
        max_prompt_tokens: int = 512,
        threads: int = 0,
    ) -> OpenVinoEngine:
        """Loads, verifies and tries the model once. Raises `Refused` or `Damaged` with the reason.

        `weights` is one of `openvino_graph.FORMATS`, or auto for int8. `threads` 0 takes all cores that this
        process may use. Nothing is fetched.
        """
        stored_as = DEFAULT_FORMAT if weights == "auto" else weights
        if stored_as not in openvino_graph.FORMATS:
            raise Refused(f"OpenVINO keeps weights in int8 or float32, not in {weights}: set model.dtype")
        directory = resolve(model)
        fingerprint = base_fingerprint(directory)
        if adapter_dir is not None:
            verify_adapter(adapter_dir, fingerprint)  # before a large model is loaded for nothing
        config = read_json(directory, "config.json")
        generation = directory / "generation_config.json"
        ending = read_json(directory, generation.name) if generation.is_file() else {}
        engine = cls(
            model=OpenVinoModel(directory, config, stored_as, threads),
            tokenizer=load_tokenizer(directory),
            fingerprint=fingerprint,
            eos=token_ids(config.get("eos_token_id"), ending.get("eos_token_id")),
            description={
                "engine": "openvino",
                "model": directory.name,
                "architecture": (config.get("architectures") or [config["model_type"]])[0],
                "device": "cpu",
                "dtype": stored_as,
            },
            limits=Limits(
                max_batch=max_batch,
                queue_limit=queue_limit,
                max_prompt_tokens=max_prompt_tokens,
                context=int(config.get("max_position_embeddings") or 1 << 20),
            ),
        )
        engine.start(adapter_dir)
        return engine
