"""What the servicers work with: the parts of the daemon, wired once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from daemon.lifecycle import Lifecycle, State
from lte_runtime.errors import Refused, Retry
from lte_runtime.types import Answer, Position

if TYPE_CHECKING:
    from daemon.adapters.manager import AdapterManager
    from daemon.drift_watch import DriftWatch
    from daemon.dry_run import DryRunner
    from daemon.ingest.ingest import Ingest
    from daemon.realign.realigner import Realigner
    from lte_runtime.answer.answerer import Answerer
    from lte_runtime.answer.engine.protocol import Engine
    from lte_runtime.memory.edit_memory import EditMemory


class EventPublisher(Protocol):
    """Sends events to the edits topic; returns when the broker has acknowledged all of them."""

    def publish(
        self, events: Sequence[Mapping[str, Any]], headers: Sequence[tuple[str, bytes]]
    ) -> Sequence[Position]: ...


@dataclass(frozen=True, slots=True)
class About:
    """What status tells of the process. `gate_threshold` is a probability."""

    version: str
    started_ms: int
    gate_encoder: str
    gate_threshold: float


@dataclass(frozen=True, slots=True)
class Services:
    """What may be None is absent in some daemons: the calls that need it are refused then.

    `max_waiting` calls may wait for Kafka at once, each holding a thread of its listener.
    """

    answerer: Answerer
    memory: EditMemory
    lifecycle: Lifecycle
    engine: Engine
    about: About
    ingest: Ingest | None = None
    publisher: EventPublisher | None = None
    drift: DriftWatch | None = None
    realigner: Realigner | None = None
    adapters: AdapterManager | None = None
    dry_runner: DryRunner | None = None
    max_new_tokens: int = 32
    max_new_tokens_limit: int = 256
    deadline_s: float = 30.0
    deadline_max_s: float = 300.0
    max_waiting: int = 32
    on_answer: Callable[[Answer], None] = lambda _: None
    on_feedback: Callable[[str], None] = lambda _verdict: None

    def require_serving(self) -> None:
        """Raises `Retry` while there is no state to answer from."""
        if not self.lifecycle.serving():
            why = "; ".join(self.lifecycle.reasons) or "not caught up with Kafka yet"
            raise Retry(f"{self.lifecycle.state}: {why}")

    def require_ingest(self) -> Ingest:
        if self.ingest is None:
            raise Refused("this daemon does not read the edits topic")
        return self.ingest

    def require_realigner(self) -> Realigner:
        if self.realigner is None:
            raise Refused("this daemon does not re-align")
        return self.realigner

    def require_adapters(self) -> AdapterManager:
        if self.adapters is None:
            raise Refused("this daemon does not manage adapters")
        return self.adapters

    def flags(self) -> dict[str, bool]:
        """What every answer says about how far its facts can be trusted."""
        return {"stale": self.lifecycle.stale, "gap": self.lifecycle.state is State.GAP}
