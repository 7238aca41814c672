"""The engine over any Hugging Face causal language model, base and adapter in one process."""

from __future__ import annotations

import copy
import dataclasses
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM
from transformers.utils import logging as transformers_logging

from lte_runtime.answer.engine import greedy, lookup, lora
from lte_runtime.answer.engine.files import Lora, base_fingerprint, verify_adapter
from lte_runtime.answer.engine.pace import Pace, at_once
from lte_runtime.answer.engine.protocol import EngineStats
from lte_runtime.answer.engine.rows import GenerationRow
from lte_runtime.answer.engine.tokenizer import load_tokenizer
from lte_runtime.answer.engine.versions import Versions
from lte_runtime.answer.engine.worker import Worker
from lte_runtime.answer.prompt import Prompt, build, ends, one_line, untrusted
from lte_runtime.errors import BadRequest, Refused
from lte_runtime.types import AdapterRef, Fact, GenerateRequest, Generation

# Room that the prompt leaves for the answer in a short context.
ANSWER_ROOM = 64
# Multiplications (parameters times prompt tokens) from which on a CPU batch is worth several threads: below,
# they wait for each other longer than they compute.
THREADS_FROM = 1_000_000_000
Between = Callable[[Callable[[], Any]], Any]
# Token ids that every vocabulary has: what a new adapter is run on before anybody's question.
TRIAL_TOKENS = (0, 1, 2, 3)


def resolve(model: str | Path, *, allow_download: bool = False) -> Path:
    """The directory of a model: itself, or the local copy of a hub id (fetched only when allowed)."""
    if Path(model).is_dir():
        return Path(model)
    from huggingface_hub import snapshot_download

    try:
        patterns = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]
        return Path(
            snapshot_download(str(model), local_files_only=not allow_download, allow_patterns=patterns)
        )
    except (OSError, ValueError) as error:
        raise Refused(f"model {model} is neither a directory nor in the local hub cache") from error


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


class Adapters:
    """What the engine runs for the base and for an adapter: a merged copy, or low-rank parts beside.

    Loading happens in the caller's thread; the model that runs is read and never changed.
    """

    def __init__(self, directory: Path, model: Any, mode: str) -> None:
        self._directory, self._model = directory, model
        self.mode = mode
        self._unmerged = lora.Unmerged(model) if mode == "unmerged" else None
        self.base = partial(self._unmerged.forward, {}) if self._unmerged else model

    def check(self, adapter: Lora, pace: Callable[[], None] = at_once) -> lora.Pairs:
        """The adapter's tensors; raises `Damaged` or `Refused` when they do not fit the model."""
        return lora.read_pairs(adapter, self._model, pace)

    def load(self, adapter: Lora, between: Between, pace: Callable[[], None]) -> greedy.Forward:
        """The forward of an adapter, tried; `between` runs a short step on the inference thread.

        Raises `Refused` when scores are not finite: finite weights may be too large to compute with.
        """
        pairs = self.check(adapter, pace)
        if self._unmerged:
            between(partial(self._unmerged.reach, pairs))
            forward: greedy.Forward = partial(
                self._unmerged.forward, self._unmerged.halves(pairs, adapter.scale)
            )
            finite = between(partial(_is_finite, self._model, forward))
        else:
            forward = lora.merged_copy(self._model, self._exact(pairs, pace), pairs, adapter.scale, pace)
            with _resting(forward, pace):
                finite = _is_finite(self._model, forward)
        if not finite:
            raise Refused(f"adapter {adapter.ref.id} makes the model's scores infinite")
        return forward

    def _exact(self, names: Iterable[str], pace: Callable[[], None]) -> lora.Exact:
        """The whole base is loaded again only where its files name their weights in another way."""
        if self._model.dtype == torch.float32:
            return lora.weights_of(self._model)
        stored = lora.stored_weights(self._directory, self._model, names, pace)
        return stored or lora.weights_of(_load_weights(self._directory, torch.float32))


@contextmanager
def _resting(model: Any, pace: Callable[[], None]) -> Iterator[None]:
    """Within it a pass through `model`, which nobody else runs, calls `pace` behind each of its modules."""
    hooks = [module.register_forward_hook(lambda *_: pace()) for module in model.modules()]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _is_finite(model: Any, forward: greedy.Forward) -> bool:
    """Whether a short pass gives finite scores."""
    ids = torch.tensor([TRIAL_TOKENS], device=model.device)
    return bool(torch.isfinite(forward(input_ids=ids, use_cache=False).logits).all())


class HfEngine:
    """Greedy answers on one inference thread. See `protocol.Engine` for what may block and what may raise."""

    def __init__(
        self,
        *,
        model: Any,
        adapters: Adapters,
        tokenizer: Any,
        fingerprint: str,
        device: torch.device,
        description: dict[str, str],
        max_batch: int,
        queue_limit: int,
        max_prompt_tokens: int,
        threads: int,
    ) -> None:
        self._config = model.config
        self._adapters = adapters
        self._versions = Versions(adapters.base)
        self._device = device
        self._pads = greedy.takes_padding(model)
        self._eos = _eos_ids(model, tokenizer)
        self._context = int(getattr(model.config, "max_position_embeddings", 0) or 1 << 20)
        self._max_prompt = min(max_prompt_tokens, self._context - min(ANSWER_ROOM, self._context // 4))
        self._tokenizer = tokenizer
        # A fast tokenizer refuses to be used while another thread sets its padding: one copy for each side.
        self._decoder = copy.deepcopy(tokenizer)
        self._words = lookup.same_words(tokenizer)
        self._tokenizer_lock = threading.Lock()
        self._fingerprint = fingerprint
        self._description = description
        self._threads, self._most_threads = threads, torch.get_num_threads()
        self._parameters = sum(parameter.numel() for parameter in model.parameters())
        self._worker = Worker(
            self._run,
            versions=self._versions,
            max_batch=max_batch,
            queue_limit=queue_limit,
        )

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
        allow_download: bool = False,
    ) -> HfEngine:
        """Loads, verifies and tries the model once. Raises `Refused` or `Damaged` with the reason.

        `threads` 0 takes one for little work on the CPU and torch's own choice for more. Nothing is fetched
        unless `allow_download`.
        """
        directory = resolve(model, allow_download=allow_download)
        torch_device, fingerprint = choose_device(device), base_fingerprint(directory)
        torch_dtype = choose_dtype(dtype, torch_device)
        mode = choose_mode(adapter_mode, directory, torch_device)
        if adapter_dir is not None:
            verify_adapter(adapter_dir, fingerprint)  # before a large model is loaded for nothing
        base_model = _load_weights(directory, torch_dtype).to(torch_device)
        engine = cls(
            model=base_model,
            adapters=Adapters(directory, base_model, mode),
            tokenizer=load_tokenizer(directory),
            fingerprint=fingerprint,
            device=torch_device,
            description={
                "model": directory.name,
                "architecture": type(base_model).__name__,
                "device": str(torch_device),
                "dtype": str(torch_dtype).removeprefix("torch."),
            },
            max_batch=max_batch,
            queue_limit=queue_limit,
            max_prompt_tokens=max_prompt_tokens,
            threads=threads,
        )
        try:
            engine._try()
            if adapter_dir is not None:
                engine.switch(engine.load_adapter(adapter_dir).id)
        except BaseException:
            engine.close()
            raise
        return engine

    @property
    def adapter(self) -> AdapterRef | None:
        return self._versions.current

    @property
    def adapters(self) -> tuple[AdapterRef, ...]:
        return self._versions.loaded()

    def check_adapter(self, directory: Path) -> AdapterRef:
        adapter = verify_adapter(directory, self._fingerprint)
        self._adapters.check(adapter)
        return adapter.ref

    def load_adapter(self, directory: Path) -> AdapterRef:
        adapter = verify_adapter(directory, self._fingerprint)
        if self._versions.revive(adapter.ref):
            return adapter.ref
        pace = Pace(lambda: self._worker.busy)
        forward = self._adapters.load(adapter, lambda step: self._worker.between(step).result(), pace)
        self._versions.add(adapter.ref, forward)
        return adapter.ref

    def switch(self, adapter_id: str | None) -> AdapterRef | None:
        return self._versions.switch(adapter_id)

    def unload(self, adapter_id: str) -> None:
        self._versions.unload(adapter_id)

    @property
    def fingerprint(self) -> str:
        return self._fingerprint

    @property
    def queue_depth(self) -> int:
        return self._worker.queue_depth

    def prompt(self, question: str, facts: Sequence[Fact] = ()) -> Prompt:
        with self._tokenizer_lock:
            statements = [fact.statement for fact in facts]
            prompt = build(self._tokenizer, question, statements, max_tokens=self._max_prompt)
            values = [one_line(fact.target) for fact in facts[: prompt.used_facts]]
            ids = tuple(tuple(untrusted(self._tokenizer, value)) for value in values)
        return dataclasses.replace(prompt, values=ids)

    def submit(self, request: GenerateRequest) -> Future[Generation]:
        room = self._context - len(request.token_ids)
        if not request.token_ids or room < 1 or request.max_new_tokens < 1:
            raise BadRequest(
                f"a prompt of {len(request.token_ids)} tokens and {request.max_new_tokens} new ones "
                f"do not fit into the context of {self._context}"
            )
        fitting = dataclasses.replace(request, max_new_tokens=min(request.max_new_tokens, room))
        # A chat model ends its answer itself; any other goes on with further questions of its own.
        several_lines = request.several_lines and bool(self._tokenizer.chat_template)
        row = GenerationRow(fitting, self._decode, self._eos, several_lines=several_lines)
        return self._worker.submit(row)

    def generate(self, request: GenerateRequest) -> Generation:
        return self.submit(request).result()

    def stats(self) -> EngineStats:
        return self._worker.stats()

    def describe(self) -> dict[str, str]:
        return {**self._description, "adapter_mode": self._adapters.mode if self.adapter else "none"}

    def close(self) -> None:
        self._worker.close()

    def _decode(self, tokens: Sequence[int]) -> str:
        text = self._decoder.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return str(text)

    def _run(
        self, forward: greedy.Forward, rows: Sequence[GenerationRow], settled: Callable[[GenerationRow], None]
    ) -> None:
        tokens = sum(len(row.request.token_ids) for row in rows)
        torch.set_num_threads(self._threads or choose_threads(self._parameters, tokens, self._most_threads))
        if len(rows) == 1 and rows[0].request.adapter:
            greedy.generate_copying(forward, self._config, rows[0], self._device, settled, self._words)
            return
        for group in [list(rows)] if self._pads else greedy.by_length(rows):
            greedy.generate(forward, self._config, group, self._device, settled)

    def _try(self) -> None:
        """One token: what cannot run fails here and not on the first question."""
        self.generate(GenerateRequest((0,), adapter=False, max_new_tokens=1))


def _eos_ids(model: Any, tokenizer: Any) -> frozenset[int]:
    """All tokens that end an answer, from the generation settings, the model and the tokenizer."""
    generation = getattr(model, "generation_config", None)
    token_ids = set(ends(tokenizer))
    for ids in (getattr(generation, "eos_token_id", None), model.config.eos_token_id):
        token_ids.update(ids if isinstance(ids, list) else [] if ids is None else [ids])
    return frozenset(token_ids)
