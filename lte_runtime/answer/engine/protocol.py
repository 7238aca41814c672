"""The engine as the answerer sees it: prompts in, greedy text out, by the base model or one of its adapters.

Contract of every engine (the suite in tests/unit/answer/engine runs on all of them):
- `submit` never blocks; it raises `Overloaded` when the queue is full and `Retry` once the engine is closed.
- A request with `adapter=False` gives the tokens that the base model alone gives, whatever else is running;
  on a server that batches as it likes, near ties may fall the other way (docs/decisions/018-vllm.md).
- Where the model runs elsewhere, a request that no server can answer ends with `Retry` at once.
- A request is pinned to its adapter when it is submitted: all its tokens come from that one, whatever is
  loaded, switched or unloaded meanwhile, and the generation names it.
- A deadline or a cancellation is noticed between two tokens; what was made until then is returned, with
  `finish` saying `deadline` or `cancelled`. `on_text` is called on the engine's thread and must not block;
  the pieces joined are the answer's text.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from lte_runtime.answer.prompt import Prompt
from lte_runtime.types import AdapterRef, Fact, GenerateRequest, Generation, Turn


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
    def adapter(self) -> AdapterRef | None:
        """The adapter that new requests get; None: edited questions are answered by the base model too."""
        ...

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the base model's weights, as adapters name it."""
        ...

    @property
    def runtime(self) -> str:
        """The library that computes and the format of the weights, "openvino/int8": two runtimes may answer
        the same prompt in other words, with the same weights on disk."""
        ...

    @property
    def queue_depth(self) -> int: ...

    @property
    def faults(self) -> tuple[str, ...]:
        """What keeps the engine from answering everything now, for people; it passes by itself or says what
        to do. Always empty for a model in this process."""
        ...

    def prompt(self, question: str, facts: Sequence[Fact] = (), earlier: Sequence[Turn] = ()) -> Prompt:
        """Token ids of the question, with the best facts that fit, or without facts behind the last of the
        earlier turns that fit; safe to call from several threads."""
        ...

    def submit(self, request: GenerateRequest) -> Future[Generation]: ...

    def generate(self, request: GenerateRequest) -> Generation:
        """`submit` and wait for the result."""
        ...

    def stats(self) -> EngineStats: ...

    def describe(self) -> dict[str, str]:
        """What runs, for people: engine, model, architecture, device, dtype, adapter mode."""
        ...

    def close(self) -> None:
        """Ends the row under way as `cancelled`, fails what waits with `Retry`, and stops the thread."""
        ...


class AdapterEngine(Engine, Protocol):
    """An engine whose adapter can be exchanged while it answers."""

    @property
    def adapters(self) -> tuple[AdapterRef, ...]:
        """The adapters that requests may ask for."""
        ...

    def check_adapter(self, directory: Path) -> AdapterRef:
        """Everything that `load_adapter` checks, without loading; raises `Damaged` or `Refused`."""
        ...

    def load_adapter(self, directory: Path) -> AdapterRef:
        """Loads a verified adapter beside the others, in the caller's thread; answers go on meanwhile.

        Raises `Damaged`, or `Refused` when it does not fit, is not finite in use, or its name is loaded.
        """
        ...

    def switch(self, adapter_id: str | None) -> AdapterRef | None:
        """Gives new requests a loaded adapter, or none; returns the one before. Raises `NotFound`."""
        ...

    def unload(self, adapter_id: str) -> None:
        """Drops an adapter when its last request has ended; raises `Refused` for the current one."""
        ...
