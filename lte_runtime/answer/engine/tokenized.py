"""What engines over token ids share, wherever the model runs: prompts, rows, adapters by their names."""

from __future__ import annotations

import copy
import dataclasses
import threading
from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Protocol

from lte_runtime.answer.engine.protocol import EngineStats
from lte_runtime.answer.engine.rows import GenerationRow
from lte_runtime.answer.engine.versions import Versions
from lte_runtime.answer.prompt import Prompt, build, ends, one_line, untrusted
from lte_runtime.answer.turns import build_conversation
from lte_runtime.errors import BadRequest
from lte_runtime.types import AdapterRef, Fact, GenerateRequest, Generation, Turn

ANSWER_ROOM = 64
"""Tokens of a short context that the prompt leaves for the answer."""


@dataclasses.dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of an engine, in requests and tokens. `context` is what the model reads at most."""

    max_batch: int
    queue_limit: int
    max_prompt_tokens: int
    context: int

    @property
    def prompt(self) -> int:
        """The longest prompt that leaves room for an answer."""
        return min(self.max_prompt_tokens, self.context - min(ANSWER_ROOM, self.context // 4))


class Queue(Protocol):
    """What rows wait in until a model answers them; see `worker.Worker`."""

    @property
    def queue_depth(self) -> int: ...

    def submit(self, row: GenerationRow) -> Future[Generation]: ...

    def stats(self) -> EngineStats: ...

    def close(self) -> None: ...


class TokenizedEngine(ABC):
    """See `protocol.AdapterEngine` for what may block and what may raise."""

    def __init__(
        self,
        *,
        tokenizer: Any,
        fingerprint: str,
        eos: Collection[int],
        description: dict[str, str],
        limits: Limits,
        versions: Versions,
        queue: Queue,
    ) -> None:
        self._versions, self._queue = versions, queue
        self._eos = frozenset({*eos, *ends(tokenizer)})
        self._context = limits.context
        self._max_prompt = limits.prompt
        self._tokenizer = tokenizer
        # A fast tokenizer refuses to be used while another thread sets its padding: one copy for each side.
        self._decoder = copy.deepcopy(tokenizer)
        self._tokenizer_lock = threading.Lock()
        self._fingerprint = fingerprint
        self._description = description

    @abstractmethod
    def check_adapter(self, directory: Path) -> AdapterRef: ...

    @abstractmethod
    def load_adapter(self, directory: Path) -> AdapterRef: ...

    @property
    @abstractmethod
    def adapter_mode(self) -> str:
        """How an adapter's weights meet those of the base: `merged` or `unmerged`."""

    def start(self, adapter_dir: Path | None) -> None:
        """One token, then the adapter: what cannot run fails here and not on the first question.

        Closes the engine before it raises.
        """
        try:
            self.generate(GenerateRequest((0,), adapter=False, max_new_tokens=1))
            if adapter_dir is not None:
                self.switch(self.load_adapter(adapter_dir).id)
        except BaseException:
            self.close()
            raise

    @property
    def adapter(self) -> AdapterRef | None:
        return self._versions.current

    @property
    def adapters(self) -> tuple[AdapterRef, ...]:
        return self._versions.loaded()

    def switch(self, adapter_id: str | None) -> AdapterRef | None:
        return self._versions.switch(adapter_id)

    def unload(self, adapter_id: str) -> None:
        self._versions.unload(adapter_id)

    @property
    def fingerprint(self) -> str:
        return self._fingerprint

    @property
    def runtime(self) -> str:
        return f"{self._description['engine']}/{self._description['dtype']}"

    @property
    def queue_depth(self) -> int:
        return self._queue.queue_depth

    @property
    def faults(self) -> tuple[str, ...]:
        return ()

    def prompt(self, question: str, facts: Sequence[Fact] = (), earlier: Sequence[Turn] = ()) -> Prompt:
        with self._tokenizer_lock:
            if earlier and not facts:
                return build_conversation(self._tokenizer, question, earlier, max_tokens=self._max_prompt)
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
        return self._queue.submit(row)

    def generate(self, request: GenerateRequest) -> Generation:
        return self.submit(request).result()

    def stats(self) -> EngineStats:
        return self._queue.stats()

    def describe(self) -> dict[str, str]:
        return {**self._description, "adapter_mode": self.adapter_mode if self.adapter else "none"}

    def close(self) -> None:
        self._queue.close()

    def _decode(self, tokens: Sequence[int]) -> str:
        text = self._decoder.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return str(text)


def token_ids(*settings: Any) -> frozenset[int]:
    """Token ids from settings that name none (None), one or a list of them."""
    listed = (ids if isinstance(ids, list) else [] if ids is None else [ids] for ids in settings)
    return frozenset(token for ids in listed for token in ids)
