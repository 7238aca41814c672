"""The engine of this process: queue, batches, prompts and adapters around a model of any library."""

from __future__ import annotations

import copy
import dataclasses
import threading
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from lte_runtime.answer.engine import greedy, lookup
from lte_runtime.answer.engine.files import Lora, verify_adapter
from lte_runtime.answer.engine.pace import Pace
from lte_runtime.answer.engine.protocol import EngineStats
from lte_runtime.answer.engine.rows import GenerationRow
from lte_runtime.answer.engine.versions import Versions
from lte_runtime.answer.engine.worker import Worker
from lte_runtime.answer.prompt import Prompt, build, ends, one_line, untrusted
from lte_runtime.answer.turns import build_conversation
from lte_runtime.errors import BadRequest, Refused
from lte_runtime.types import AdapterRef, Fact, GenerateRequest, Generation, Turn

ANSWER_ROOM = 64
"""Tokens of a short context that the prompt leaves for the answer."""
TRIAL_TOKENS = (0, 1, 2, 3)
"""Token ids that every vocabulary has: what a new adapter is run on before anybody's question."""
Between = Callable[[Callable[[], Any]], Any]
"""Runs a short step on the inference thread and returns its result."""


class LanguageModel(Protocol):
    """What differs between engines: weights in memory, and passes through them.

    A version is what runs the base model or an adapter on it; `Versions` hands it back as it was given.
    """

    @property
    def base(self) -> Any:
        """The version of the base model."""
        ...

    @property
    def adapter_mode(self) -> str: ...

    @property
    def pads(self) -> bool:
        """Whether rows of unlike length may share a session."""
        ...

    def check(self, adapter: Lora) -> object:
        """Raises `Damaged` or `Refused` when the adapter does not fit the weights."""
        ...

    def load(self, adapter: Lora, between: Between, pace: Callable[[], None]) -> Any:
        """A version of its own for the adapter, tried (`check_trial`), in the caller's thread."""
        ...

    def session(self, version: Any, tokens: int) -> greedy.Session:
        """An empty session for prompts of `tokens` in all; on the inference thread."""
        ...


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


class LocalEngine:
    """Greedy answers on one inference thread. See `protocol.Engine` for what may block and what may raise."""

    def __init__(
        self,
        *,
        model: LanguageModel,
        tokenizer: Any,
        fingerprint: str,
        eos: Collection[int],
        description: dict[str, str],
        limits: Limits,
    ) -> None:
        self._model = model
        self._versions = Versions(model.base)
        self._pads = model.pads
        self._eos = frozenset({*eos, *ends(tokenizer)})
        self._context = limits.context
        self._max_prompt = limits.prompt
        self._tokenizer = tokenizer
        # A fast tokenizer refuses to be used while another thread sets its padding: one copy for each side.
        self._decoder = copy.deepcopy(tokenizer)
        self._words = lookup.same_words(tokenizer)
        self._tokenizer_lock = threading.Lock()
        self._fingerprint = fingerprint
        self._description = description
        self._worker = Worker(
            self._run,
            versions=self._versions,
            max_batch=limits.max_batch,
            queue_limit=limits.queue_limit,
        )

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

    def check_adapter(self, directory: Path) -> AdapterRef:
        adapter = verify_adapter(directory, self._fingerprint)
        self._model.check(adapter)
        return adapter.ref

    def load_adapter(self, directory: Path) -> AdapterRef:
        adapter = verify_adapter(directory, self._fingerprint)
        if self._versions.revive(adapter.ref):
            return adapter.ref
        pace = Pace(lambda: self._worker.busy)
        version = self._model.load(adapter, lambda step: self._worker.between(step).result(), pace)
        self._versions.add(adapter.ref, version)
        return adapter.ref

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
        return self._worker.queue_depth

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
        return self._worker.submit(row)

    def generate(self, request: GenerateRequest) -> Generation:
        return self.submit(request).result()

    def stats(self) -> EngineStats:
        return self._worker.stats()

    def describe(self) -> dict[str, str]:
        return {**self._description, "adapter_mode": self._model.adapter_mode if self.adapter else "none"}

    def close(self) -> None:
        self._worker.close()

    def _decode(self, tokens: Sequence[int]) -> str:
        text = self._decoder.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return str(text)

    def _run(
        self, version: Any, rows: Sequence[GenerationRow], settled: Callable[[GenerationRow], None]
    ) -> None:
        tokens = sum(len(row.request.token_ids) for row in rows)
        if len(rows) == 1 and rows[0].request.adapter:
            greedy.generate_copying(self._model.session(version, tokens), rows[0], settled, self._words)
            return
        for group in [list(rows)] if self._pads else greedy.by_length(rows):
            greedy.generate(self._model.session(version, tokens), group, settled)


def token_ids(*settings: Any) -> frozenset[int]:
    """Token ids from settings that name none (None), one or a list of them."""
    listed = (ids if isinstance(ids, list) else [] if ids is None else [ids] for ids in settings)
    return frozenset(token for ids in listed for token in ids)


def check_trial(adapter_id: str, base: Any, scores: Any) -> None:
    """Compares the logits of the base and of an adapter behind `TRIAL_TOKENS`.

    Raises `Refused` when the adapter's are not finite (finite weights may be too large to compute with), or
    are those of the base: an adapter that a library passed over in silence must not go into service.
    """
    if not np.isfinite(scores).all():
        raise Refused(f"adapter {adapter_id} makes the model's scores infinite")
    if np.array_equal(base, scores):
        raise Refused(
            f"adapter {adapter_id} has no effect: the model's scores are those of the base, to the last bit"
        )
