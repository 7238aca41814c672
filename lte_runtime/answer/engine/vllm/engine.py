"""The engine whose model runs in vLLM servers: completions by token ids, adapters loaded at run time."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from lte_runtime.answer.engine.files import (
    MANIFEST,
    base_fingerprint,
    read_json,
    read_tensors,
    resolve,
    verify_adapter,
)
from lte_runtime.answer.engine.rows import GenerationRow
from lte_runtime.answer.engine.tokenized import Limits, TokenizedEngine, token_ids
from lte_runtime.answer.engine.tokenizer import load_tokenizer
from lte_runtime.answer.engine.versions import Versions
from lte_runtime.answer.engine.vllm.greedy_answers import ADAPTER, BASE, recorded
from lte_runtime.answer.engine.vllm.pool import LoadedAdapter, Pool
from lte_runtime.answer.engine.vllm.queue import RemoteQueue
from lte_runtime.answer.engine.vllm.server import VllmServer
from lte_runtime.types import AdapterRef

log = logging.getLogger(__name__)


class VllmEngine(TokenizedEngine):
    """Greedy answers by one or several vLLM servers of one base model; see `protocol.AdapterEngine`.

    An answer is not steered towards the values of its prompt (`GenerateRequest.values`): vLLM does not let a
    caller choose among the next tokens.
    """

    def __init__(
        self,
        directory: Path,
        servers: Sequence[VllmServer],
        *,
        max_batch: int,
        queue_limit: int,
        max_prompt_tokens: int,
    ) -> None:
        """As `load`; `directory` is there."""
        fingerprint, tokenizer = base_fingerprint(directory), load_tokenizer(directory)
        config, generation = read_json(directory, "config.json"), directory / "generation_config.json"
        ending = read_json(directory, generation.name) if generation.is_file() else {}
        self._pool = Pool(servers, lambda: self._rows.fill())
        versions = Versions(None, lambda adapter: self._rows.call_soon(partial(self._pool.drop, adapter)))
        self._rows = RemoteQueue(
            self._answer,
            versions=versions,
            places=lambda: max_batch * max(1, self._pool.up),
            queue_limit=queue_limit,
        )
        try:
            self._rows.start(self._pool.first_look()).result()
            self._rows.start(self._pool.watch())
            version = self._rows.start(self._pool.version()).result()
            super().__init__(
                tokenizer=tokenizer,
                fingerprint=fingerprint,
                eos=token_ids(config.get("eos_token_id"), ending.get("eos_token_id")),
                description=_description(directory, config, servers, version),
                limits=Limits(max_batch, queue_limit, max_prompt_tokens, self._pool.context),
                versions=versions,
                queue=self._rows,
            )
        except BaseException:
            self.close()
            raise

    @classmethod
    def load(
        cls,
        model: str | Path,
        adapter_dir: Path | None = None,
        *,
        urls: Sequence[str],
        token: str = "",
        max_batch: int = 8,
        queue_limit: int = 256,
        max_prompt_tokens: int = 512,
    ) -> VllmEngine:
        """Waits until one of the servers answers. `model` is the directory of the model that they serve: its
        tokenizer makes the prompts, its weights the fingerprint. `max_batch` rows run at once on each server.

        Raises `Refused` or `Damaged` with the reason, also when the servers serve unlike models.
        """
        engine = cls(
            resolve(model),
            [VllmServer(url, token) for url in urls],
            max_batch=max_batch,
            queue_limit=queue_limit,
            max_prompt_tokens=max_prompt_tokens,
        )
        engine.start(adapter_dir)
        return engine

    @property
    def adapter_mode(self) -> str:
        return "unmerged"

    @property
    def faults(self) -> tuple[str, ...]:
        return self._pool.problems

    def check_adapter(self, directory: Path) -> AdapterRef:
        return self._checked(directory).ref

    def load_adapter(self, directory: Path) -> AdapterRef:
        """As every engine's; raises `Retry` too, while a server is away."""
        adapter = self._checked(directory)
        if self._versions.revive(adapter.ref):
            return adapter.ref
        self._rows.start(self._pool.load(adapter)).result()
        try:
            self._versions.add(adapter.ref, adapter)
        except BaseException:
            self._rows.call_soon(partial(self._pool.drop, adapter))
            raise
        return adapter.ref

    def close(self) -> None:
        self._rows.close(self._pool.close)

    def _checked(self, directory: Path) -> LoadedAdapter:
        """What can be said without the servers; whether the shapes fit, they say."""
        lora = verify_adapter(directory, self._fingerprint)
        read_tensors(lora)
        manifest = read_json(directory, MANIFEST)
        answers = (recorded(manifest, arm) for arm in (BASE, ADAPTER))
        return LoadedAdapter(lora.ref, directory.resolve(), *answers)

    async def _answer(self, row: GenerationRow, adapter: LoadedAdapter | None) -> None:
        await self._pool.answer(row, adapter, self._eos)


def _description(
    directory: Path, config: Mapping[str, Any], servers: Sequence[VllmServer], version: str
) -> dict[str, str]:
    return {
        "engine": "vllm",
        "model": directory.name,
        "architecture": str((config.get("architectures") or [config.get("model_type", "unknown")])[0]),
        "device": ", ".join(server.url for server in servers),
        # The server keeps the format of its weights to itself.
        "dtype": version,
    }
