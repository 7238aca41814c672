"""The swap door: another adapter beside the one that serves, tried, switched to, then pointed at.

Order of a swap: verify -> load beside -> smoke answers -> switch (requests under way keep theirs) -> pointer
in SQLite -> the old one goes when its last request has ended. Whatever fails leaves the old one serving. A
crash before the pointer moved starts with the old one, a crash behind it with the new one; both are whole.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import structlog

from lte_runtime.align.registry import Registry
from lte_runtime.answer.engine.protocol import AdapterEngine
from lte_runtime.errors import LteError, NotFound, Refused
from lte_runtime.store.adapter_history import CONFIGURED, NONE, Activation, AdapterLedger
from lte_runtime.types import AdapterRef, Cardinality, Fact, FactKey, GenerateRequest, Position

log = structlog.get_logger(__name__)
DONE, REFUSED = "done", "refused"
SMOKE_TOKENS = 8
SMOKE = (
    ("Who runs the Calder observatory?", "The Calder observatory is run by Ines Moreau."),
    ("What is the capital of Port Arlen?", "The capital of Port Arlen is Sedge."),
    ("What does the Brisk kettle cost?", "The Brisk kettle costs 49 euros."),
)


@dataclass(frozen=True, slots=True)
class Swap:
    """A swap that was tried. `outcome` is done or refused; `load_s` the seconds until it could serve."""

    outcome: str
    adapter: str
    before: str
    reason: str
    load_s: float
    message: str = ""


@dataclass(frozen=True, slots=True)
class Configured:
    """The adapter that the configuration names; no directory where the engine brings it or there is none."""

    ref: AdapterRef | None = None
    directory: Path | None = None
    manifest: Mapping[str, Any] = field(default_factory=dict)


class Swapper:
    """One swap at a time, from any thread. `on_swap` hears of each try."""

    def __init__(
        self,
        engine: AdapterEngine,
        registry: Registry,
        ledger: AdapterLedger,
        configured: Configured = Configured(),
        *,
        on_swap: Callable[[Swap], None] = lambda _: None,
    ) -> None:
        self._engine, self._registry, self._ledger = engine, registry, ledger
        self._configured = configured
        self._on_swap = on_swap
        self._on_move: list[Callable[[], None]] = []
        self._swap_lock = threading.Lock()

    def on_move(self, callback: Callable[[], None]) -> None:
        """Call `callback` after each move of the pointer."""
        self._on_move.append(callback)

    # -- at start ----------------------------------------------------------------------------------

    def start(self) -> tuple[str, ...]:
        """Serve what the pointer names. What cannot be loaded is refused with a reason, and what was before
        it serves, in the end no adapter at all; returns the reasons. The pointer stays where it is.

        Raises the error of a configured adapter when it is the one pointed at: a configuration is for people.
        """
        refused: list[str] = []
        for activation in self._ledger.way_back():
            try:
                self._serve(activation.adapter)
                return (*refused, f"{self._served()} serves instead") if refused else ()
            except (LteError, OSError) as error:
                if activation.no == 0 and not refused:
                    raise
                log.error("adapter_refused", adapter=activation.adapter, error=str(error))
                refused.append(f"adapter {activation.adapter} cannot be served: {error}")
        self._engine.switch(None)
        return (*refused, f"{self._served()} serves instead")

    def _served(self) -> str:
        return self._engine.adapter.id if self._engine.adapter else "no adapter"

    # -- swaps -------------------------------------------------------------------------------------

    def activate(self, adapter_id: str, reason: str, epoch: int = 0, *, followed: bool = False) -> None:
        """Serve an adapter of the registry, the `configured` one, or `none`.

        `followed`: another daemon did, and said so.

        Raises `NotFound`, `Damaged` or `Refused` with the reason; what served before serves then.
        """

        def point(ref: AdapterRef | None) -> Activation:
            name = self._pointer(adapter_id)
            sha256 = ref.sha256 if ref else ""
            return self._ledger.point(name, sha256, reason, epoch, followed=followed)

        self._swap(lambda: adapter_id, reason, epoch, point)

    def serves(self, adapter_id: str) -> bool:
        """Whether new questions get that: an adapter's id, `configured` or `none`."""
        serving = self._engine.adapter
        if self._is_configured(adapter_id):
            return serving == self._configured.ref
        return adapter_id == (serving.id if serving else NONE)

    def hash_of(self, adapter_id: str) -> str:
        """The hash of an adapter by its name; raises `NotFound`."""
        if self._configured.ref and adapter_id == self._configured.ref.id:
            return self._configured.ref.sha256
        return self._registry.get(adapter_id).ref.sha256

    def rollback(self, reason: str, epoch: int = 0) -> AdapterRef | None:
        """Serve what the pointer stood at before; returns it. Raises as `activate`."""
        self._swap(self._earlier, reason, epoch, lambda _: self._ledger.step_back(reason, epoch))
        return self._engine.adapter

    def _earlier(self) -> str:
        target = self._ledger.before(self._ledger.active())
        if target is None:
            raise Refused("there is no adapter to go back to")
        return target.adapter

    def _swap(
        self,
        choose: Callable[[], str],
        reason: str,
        epoch: int,
        point: Callable[[AdapterRef | None], Activation],
    ) -> None:
        with self._swap_lock:
            began, before = time.monotonic(), self._engine.adapter
            adapter_id = choose()
            names = (adapter_id, before.id if before else NONE, reason)
            try:
                if epoch < self._ledger.epoch():
                    raise Refused(f"epoch {epoch} is over: the current one is {self._ledger.epoch()}")
                self._serve(adapter_id)
                try:
                    point(self._engine.adapter)
                except BaseException:
                    self._back_to(before)
                    raise
            except (LteError, OSError) as error:
                self._on_swap(Swap(REFUSED, *names, time.monotonic() - began, str(error)))
                log.warning("swap_refused", adapter=adapter_id, reason=reason, error=str(error))
                raise
            self._on_swap(Swap(DONE, *names, time.monotonic() - began))
            log.info("swapped", adapter=adapter_id, before=names[1], reason=reason, epoch=epoch)
            self._drop_others()
        for callback in tuple(self._on_move):
            callback()

    def _serve(self, adapter_id: str) -> None:
        """Load beside, try, switch."""
        ref = self._loaded(adapter_id)
        if ref is not None:
            self._try(ref)
        self._engine.switch(ref.id if ref else None)

    def _loaded(self, adapter_id: str) -> AdapterRef | None:
        """The adapter in memory, loaded now if it was not; None where no adapter is meant."""
        if adapter_id == NONE or (self._is_configured(adapter_id) and self._configured.ref is None):
            return None
        if self._is_configured(adapter_id):
            ref, directory = self._configured.ref, self._configured.directory
        else:
            entry = self._registry.verify(adapter_id)
            ref, directory = entry.ref, entry.directory
        if ref in self._engine.adapters:
            return ref
        if directory is None:
            raise NotFound(f"adapter {adapter_id} is not loaded and has no directory")
        return self._engine.load_adapter(directory)

    def _is_configured(self, adapter_id: str) -> bool:
        ref = self._configured.ref
        return adapter_id == CONFIGURED or (ref is not None and adapter_id == ref.id)

    def _pointer(self, adapter_id: str) -> str:
        return CONFIGURED if self._is_configured(adapter_id) else adapter_id

    def _try(self, ref: AdapterRef) -> None:
        """Smoke answers: an adapter under which the model says nothing at all serves nobody."""
        try:
            texts = [self._smoke(ref, question, statement) for question, statement in SMOKE]
            if not any(text.strip() for text in texts):
                raise Refused(f"adapter {ref.id} answers none of {len(texts)} smoke questions")
        except BaseException:
            self._forget(ref)
            raise

    def _smoke(self, ref: AdapterRef, question: str, statement: str) -> str:
        prompt = self._engine.prompt(question, [_fact(question, statement)])
        request = GenerateRequest(prompt.token_ids, True, SMOKE_TOKENS, adapter_id=ref.id)
        return self._engine.generate(request).text

    def _back_to(self, before: AdapterRef | None) -> None:
        self._engine.switch(before.id if before else None)
        self._drop_others()

    def _drop_others(self) -> None:
        for ref in self._engine.adapters:
            self._forget(ref)

    def _may_go(self, ref: AdapterRef) -> bool:
        """All that can be loaded again; an adapter that the engine itself brings cannot."""
        return ref != self._configured.ref or self._configured.directory is not None

    def _forget(self, ref: AdapterRef) -> None:
        if ref != self._engine.adapter and self._may_go(ref):
            self._engine.unload(ref.id)


def _fact(question: str, statement: str) -> Fact:
    return Fact(
        edit_id="smoke",
        key=FactKey("smoke", question),
        key_id=0,
        subject=question,
        relation="",
        prompt=question,
        target=statement.split()[-1].rstrip("."),
        statement=statement,
        subject_aliases=(),
        target_aliases=(),
        position=Position("", 0, 0),
        valid_from=None,
        valid_until=None,
        cardinality=Cardinality.ONE,
        source_uri="",
        publisher="",
    )
