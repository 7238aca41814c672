"""The engine of this process: batches and adapters around a model of any library."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from lte_runtime.answer.engine import greedy, lookup
from lte_runtime.answer.engine.files import Lora, verify_adapter
from lte_runtime.answer.engine.pace import Pace
from lte_runtime.answer.engine.rows import GenerationRow
from lte_runtime.answer.engine.tokenized import Limits, TokenizedEngine
from lte_runtime.answer.engine.versions import Versions
from lte_runtime.answer.engine.worker import Worker
from lte_runtime.errors import Refused
from lte_runtime.types import AdapterRef

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


class LocalEngine(TokenizedEngine):
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
        self._model, self._pads = model, model.pads
        self._words = lookup.same_words(tokenizer)
        versions = Versions(model.base)
        self._worker = Worker(
            self._run, versions=versions, max_batch=limits.max_batch, queue_limit=limits.queue_limit
        )
        super().__init__(
            tokenizer=tokenizer,
            fingerprint=fingerprint,
            eos=eos,
            description=description,
            limits=limits,
            versions=versions,
            queue=self._worker,
        )

    @property
    def adapter_mode(self) -> str:
        return self._model.adapter_mode

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

    def _run(
        self, version: Any, rows: Sequence[GenerationRow], settled: Callable[[GenerationRow], None]
    ) -> None:
        tokens = sum(len(row.request.token_ids) for row in rows)
        if len(rows) == 1 and rows[0].request.adapter:
            greedy.generate_copying(self._model.session(version, tokens), rows[0], settled, self._words)
            return
        for group in [list(rows)] if self._pads else greedy.by_length(rows):
            greedy.generate(self._model.session(version, tokens), group, settled)


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
