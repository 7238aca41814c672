"""Adapters for operators and the re-alignment: list, add, verify, swap; and which are tainted."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from daemon.adapters.swap import Configured, Swapper
from lte_runtime.align.promotion import CANDIDATE
from lte_runtime.align.registry import Registry, RegistryEntry, tainted
from lte_runtime.answer.engine.protocol import AdapterEngine
from lte_runtime.errors import LteError, NotFound
from lte_runtime.store.adapter_history import CONFIGURED, Activation, AdapterLedger, Trained
from lte_runtime.types import AdapterRef

log = structlog.get_logger(__name__)
HISTORY = 100


@dataclass(frozen=True, slots=True)
class Listed:
    """An adapter as operators see it. `active`: the pointer names it; `serving`: new questions get it."""

    entry: RegistryEntry
    origin: str
    active: bool
    serving: bool
    trained_edits: int
    tainted: tuple[Trained, ...]


@dataclass(frozen=True, slots=True)
class Listing:
    """All adapters, where the pointer stands and stood (last first), and what serves."""

    adapters: tuple[Listed, ...]
    history: tuple[Activation, ...]
    active: Activation
    serving: AdapterRef | None
    epoch: int


@dataclass(frozen=True, slots=True)
class AdapterCounts:
    """What serves, how many adapters there are, how many edits of the serving one are tainted; `scores` by
    (adapter, kind of probe), as shares, from the verdicts that let them in."""

    serving: AdapterRef | None
    adapters: int
    tainted: int
    epoch: int
    scores: Mapping[tuple[str, ...], float]


class AdapterManager:
    """Thread-safe. `state_of` gives an edit's state as `EditRecord` names it, empty when it is unknown.

    `epoch` gives that of a move by hand (default: the last one seen); it raises `Refused` in a daemon that
    must not make one.
    """

    def __init__(
        self,
        engine: AdapterEngine,
        registry: Registry,
        ledger: AdapterLedger,
        swapper: Swapper,
        configured: Configured,
        *,
        state_of: Callable[[str], str],
        keep: int = 5,
        epoch: Callable[[], int] | None = None,
    ) -> None:
        self._engine, self._registry, self._ledger = engine, registry, ledger
        self._swapper, self._configured = swapper, configured
        self._state_of, self._keep = state_of, keep
        self._epoch = epoch or ledger.epoch
        self._looking = threading.Lock()
        self._seen: set[str] = set()
        self._looked_at = 0

    # -- looking -----------------------------------------------------------------------------------

    def listing(self) -> Listing:
        """Reads records and manifests, no weights."""
        active = self._ledger.active()
        own = [self._own()] if self._configured.ref else []
        return Listing(
            adapters=tuple(self._listed(entry, active) for entry in [*own, *self._registry.entries()]),
            history=tuple(self._ledger.history(HISTORY)),
            active=active,
            serving=self._engine.adapter,
            epoch=self._ledger.epoch(),
        )

    def _own(self) -> RegistryEntry:
        """The configured adapter, which no registry holds."""
        ref, directory = self._configured.ref, self._configured.directory
        return RegistryEntry(ref or AdapterRef("", ""), directory or Path(), self._configured.manifest)

    def _listed(self, entry: RegistryEntry, active: Activation) -> Listed:
        own = entry.ref == self._configured.ref
        trained = self._ledger.trained_on(entry.ref.id)
        return Listed(
            entry=entry,
            origin=CONFIGURED if own else "registry",
            active=active.adapter == (CONFIGURED if own else entry.ref.id),
            serving=entry.ref == self._engine.adapter,
            trained_edits=len(trained),
            tainted=tuple(edit for edit in trained if edit.why),
        )

    def counts(self) -> AdapterCounts:
        """For the metrics: cheap to read."""
        entries = self._registry.entries()
        return AdapterCounts(
            self._engine.adapter, len(entries), len(self.tainted()), self._ledger.epoch(), _scores(entries)
        )

    def verify(self, adapter_id: str = "") -> dict[str, str]:
        """Check every byte of one adapter or of all; returns what is wrong by name, empty where nothing is.

        Raises `NotFound` for a name that is not there.
        """
        names = [adapter_id] if adapter_id else [entry.ref.id for entry in self._registry.entries()]
        return {name: self._problem(name) for name in names}

    def _problem(self, adapter_id: str) -> str:
        try:
            self._registry.verify(adapter_id)
        except NotFound:
            raise
        except LteError as error:
            return str(error)
        return ""

    # -- changing ----------------------------------------------------------------------------------

    def add(self, directory: Path, verdict: Mapping[str, Any]) -> AdapterRef:
        """Take an adapter into the registry; see `Registry.add`. The oldest that nobody needs go."""
        ref = self._registry.add(directory, verdict)
        self.look_for_taint()
        self.prune()
        return ref

    def next_id(self) -> str:
        """A name for the next adapter; see `Registry.next_id`."""
        return self._registry.next_id()

    def serving_directory(self) -> Path | None:
        """Where the adapter that serves lies; None where none does, or none on disk."""
        ref = self._engine.adapter
        if ref is None or ref == self._configured.ref:
            return self._configured.directory if ref else None
        return self._registry.get(ref.id).directory

    def activate(self, adapter_id: str, reason: str) -> Activation:
        """As `Swapper.activate`, by hand; `Refused` too for a daemon that does not own the shared topics."""
        self._swapper.activate(adapter_id, reason, self._epoch())
        return self._ledger.active()

    def rollback(self, reason: str) -> Activation:
        """As `Swapper.rollback`, by hand; `Refused` as `activate`."""
        self._swapper.rollback(reason, self._epoch())
        return self._ledger.active()

    def prune(self) -> list[str]:
        """Remove the oldest adapters; none that serves, or that a rollback could lead to."""
        needed = {activation.adapter for activation in self._ledger.way_back()}
        needed |= {ref.id for ref in self._engine.adapters}
        gone = self._registry.prune(self._keep, needed)
        if gone:
            log.info("adapters_removed", adapters=gone)
        return gone

    # -- taint -------------------------------------------------------------------------------------

    def look_for_taint(self) -> None:
        """Mark adapters that learned what was retracted or corrected since the last look.

        Only keys that new edits name are looked at; an adapter that is seen for the first time, whole. What
        is erased is marked by the erasure itself.
        """
        with self._looking:
            row = self._ledger.last_row()
            for entry in self._registry.entries():
                self._look_at(entry)
            self._looked_at = row

    def _look_at(self, entry: RegistryEntry) -> None:
        name = entry.ref.id
        after = self._looked_at if name in self._seen else 0
        if name not in self._seen:
            self._ledger.learned(name, entry.edit_ids)
            self._seen.add(name)
        tainted_edits = tainted(self._ledger.suspects(name, after), self._state_of)
        if tainted_edits:
            self._ledger.taint(name, tainted_edits)
            log.warning("adapter_tainted", adapter=name, edits=len(tainted_edits))

    def tainted(self) -> tuple[Trained, ...]:
        """What the adapter that serves learned and no longer stands: a reason to re-align."""
        serving = self._engine.adapter
        return tuple(self._ledger.tainted(serving.id)) if serving else ()


def _scores(entries: Sequence[RegistryEntry]) -> dict[tuple[str, ...], float]:
    """An adapter that came by hand was not judged here, and has none."""
    return {
        (entry.ref.id, kind): float(share)
        for entry in entries
        for kind, share in entry.verdict.get("scores", {}).get(CANDIDATE, {}).items()
    }
