"""The engine over any Hugging Face causal language model, base and adapter in one process."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM
from transformers.utils import logging as transformers_logging

from lte_runtime.answer.engine import lora
from lte_runtime.answer.engine.files import Lora, base_fingerprint, resolve, verify_adapter
from lte_runtime.answer.engine.local import TRIAL_TOKENS, Between, LocalEngine, check_trial
from lte_runtime.answer.engine.pace import at_once
from lte_runtime.answer.engine.tokenized import Limits, token_ids
from lte_runtime.answer.engine.tokenizer import load_tokenizer
from lte_runtime.answer.engine.torch_session import Forward, TorchSession, takes_padding
from lte_runtime.errors import Refused

# Multiplications (parameters times prompt tokens) from which on a CPU batch is worth several threads: below,
# they wait for each other longer than they compute.
THREADS_FROM = 1_000_000_000


def choose_device(device: str) -> torch.device:
    """`auto` is cuda where there is one; a named device that is missing is refused."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise Refused("device cuda is configured, but torch finds no CUDA device")
    return torch.device(device)


def choose_dtype(dtype: str, device: torch.device) -> torch.dtype:
    """`auto` is bfloat16 where the hardware multiplies it (avx512_bf16, amx, cuda 8.0), else float32."""
    if dtype != "auto":
        return {"bfloat16": torch.bfloat16, "float32": torch.float32}[dtype]
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    return torch.bfloat16 if _cpu_has_bf16() else torch.float32


def _cpu_has_bf16() -> bool:
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


def choose_mode(mode: str, directory: Path, device: torch.device) -> str:
    """`auto` merges where a float32 load and the second copy fit into half of the free memory."""
    if mode != "auto":
        return mode
    needed = 4 * sum(shard.stat().st_size for shard in directory.glob("*.safetensors"))
    return "merged" if needed <= _free_bytes(device) // 2 else "unmerged"


def choose_threads(parameters: int, tokens: int, most: int) -> int:
    """CPU threads for a batch of `tokens` prompt tokens: one, or `most` where there is work for them."""
    return most if parameters * tokens >= THREADS_FROM else 1


def _free_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return 0


def _load_weights(directory: Path, dtype: torch.dtype) -> Any:
    transformers_logging.disable_progress_bar()
    model = AutoModelForCausalLM.from_pretrained(
        directory, dtype=dtype, local_files_only=True, trust_remote_code=False, use_safetensors=True
    )
    return model.requires_grad_(False).eval()


class TorchModel:
    """The base model and its adapters: for each a merged copy, or low-rank parts beside one set of weights.

    Loading happens in the caller's thread; the model that runs is read and never changed.
    """

    def __init__(self, directory: Path, model: Any, mode: str, device: torch.device, threads: int) -> None:
        self._directory, self._model, self._device = directory, model, device
        self._mode = mode
        self._unmerged = lora.Unmerged(model) if mode == "unmerged" else None
        self._base: Forward = partial(self._unmerged.forward, {}) if self._unmerged else model
        self._trial = self._scores(self._base)
        self._threads, self._most_threads = threads, torch.get_num_threads()
        self._parameters = sum(parameter.numel() for parameter in model.parameters())

    @property
    def base(self) -> Forward:
        return self._base

    @property
    def adapter_mode(self) -> str:
        return self._mode

    @property
    def pads(self) -> bool:
        return takes_padding(self._model)

    def session(self, version: Forward, tokens: int) -> TorchSession:
        torch.set_num_threads(self._threads or choose_threads(self._parameters, tokens, self._most_threads))
        return TorchSession(version, self._model.config, self._device)

    def check(self, adapter: Lora, pace: Callable[[], None] = at_once) -> lora.Pairs:
        """The adapter's tensors; raises `Damaged` or `Refused` when they do not fit the model."""
        return lora.read_pairs(adapter, self._model, pace)

    def load(self, adapter: Lora, between: Between, pace: Callable[[], None]) -> Forward:
        """The forward of an adapter, tried."""
        pairs = self.check(adapter, pace)
        if self._unmerged:
            between(partial(self._unmerged.reach, pairs))
            forward: Forward = partial(self._unmerged.forward, self._unmerged.halves(pairs, adapter.scale))
            scores = between(partial(self._scores, forward))
        else:
            forward = lora.merged_copy(self._model, self._exact(pairs, pace), pairs, adapter.scale, pace)
            with _resting(forward, pace):
                scores = self._scores(forward)
        check_trial(adapter.ref.id, self._trial, scores)
        return forward

    def _exact(self, names: Iterable[str], pace: Callable[[], None]) -> lora.Exact:
        """The whole base is loaded again only where its files name their weights in another way."""
        if self._model.dtype == torch.float32:
            return lora.weights_of(self._model)
        stored = lora.stored_weights(self._directory, self._model, names, pace)
        return stored or lora.weights_of(_load_weights(self._directory, torch.float32))

    def _scores(self, forward: Forward) -> Any:
        """Logits behind `TRIAL_TOKENS`, as an array."""
        ids = torch.tensor([TRIAL_TOKENS], device=self._device)
        return forward(input_ids=ids, use_cache=False).logits.float().cpu().numpy()


@contextmanager
def _resting(model: Any, pace: Callable[[], None]) -> Iterator[None]:
    """Within it a pass through `model`, which nobody else runs, calls `pace` behind each of its modules."""
    hooks = [module.register_forward_hook(lambda *_: pace()) for module in model.modules()]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


class HfEngine(LocalEngine):
    """The engine over any Hugging Face causal model."""

    @classmethod
    def load(
        cls,
        model: str | Path,
        adapter_dir: Path | None = None,
        *,
        device: str = "auto",
        dtype: str = "auto",
        adapter_mode: str = "auto",
        max_batch: int = 8,
        queue_limit: int = 256,
        max_prompt_tokens: int = 512,
        threads: int = 0,
    ) -> HfEngine:
        """Loads, verifies and tries the model once. Raises `Refused` or `Damaged` with the reason.

        `threads` 0 takes one for little work on the CPU and torch's own choice for more. Nothing is fetched.
        """
        directory = resolve(model)
        torch_device, fingerprint = choose_device(device), base_fingerprint(directory)
        torch_dtype = choose_dtype(dtype, torch_device)
        mode = choose_mode(adapter_mode, directory, torch_device)
        if adapter_dir is not None:
            verify_adapter(adapter_dir, fingerprint)  # before a large model is loaded for nothing
        base_model = _load_weights(directory, torch_dtype).to(torch_device)
        config, generation = base_model.config, getattr(base_model, "generation_config", None)
        engine = cls(
            model=TorchModel(directory, base_model, mode, torch_device, threads),
            tokenizer=load_tokenizer(directory),
            fingerprint=fingerprint,
            eos=token_ids(config.eos_token_id, getattr(generation, "eos_token_id", None)),
            description={
                "engine": "transformers",
                "model": directory.name,
                "architecture": type(base_model).__name__,
                "device": str(torch_device),
                "dtype": str(torch_dtype).removeprefix("torch."),
            },
            limits=Limits(
                max_batch=max_batch,
                queue_limit=queue_limit,
                max_prompt_tokens=max_prompt_tokens,
                context=int(getattr(config, "max_position_embeddings", 0) or 1 << 20),
            ),
        )
        engine.start(adapter_dir)
        return engine
