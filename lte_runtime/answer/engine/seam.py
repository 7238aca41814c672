"""The engine as the answerer sees it: prompts in, greedy text out, one adapter or none.

Contract of every engine (the suite in tests/unit/answer/engine runs on all of them):
- `submit` never blocks; it raises `Overloaded` when the queue is full and `Retry` once the engine is closed.
- A request with `adapter=False` gives the tokens that the base model alone gives, whatever else is running.
- A deadline or a cancellation is noticed between two tokens; what was made until then is returned, with
  `finish` saying `deadline` or `cancelled`. `on_text` is called on the engine's thread and must not block;
  the pieces joined are the answer's text.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Protocol

from lte_runtime.answer.prompt import Prompt
from lte_runtime.types import AdapterRef, Fact, GenerateRequest, Generation


@dataclass(frozen=True, slots=True)
class EngineStats:
    """Counters since the start, and what is under way now. `model_ms` is time inside the model."""

    requests: int = 0
    refused: int = 0
    batches: int = 0
    rows: int = 0
    tokens: int = 0
    model_ms: float = 0.0
    queue_depth: int = 0
    running: int = 0


class Engine(Protocol):
    @property
    def adapter(self) -> AdapterRef | None: ...

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the base model's weights, as adapters name it."""
        ...

    @property
    def queue_depth(self) -> int: ...

    def prompt(self, question: str, facts: Sequence[Fact] = ()) -> Prompt:
        """Token ids of the question, with the best facts that fit; safe to call from several threads."""
        ...

    def submit(self, request: GenerateRequest) -> Future[Generation]: ...

    def generate(self, request: GenerateRequest) -> Generation:
        """`submit` and wait for the result."""
        ...

    def stats(self) -> EngineStats: ...

    def describe(self) -> dict[str, str]:
        """What runs, for people: model, device, dtype, adapter mode."""
        ...

    def close(self) -> None:
        """Ends the row under way as `cancelled`, fails what waits with `Retry`, and stops the thread."""
        ...
