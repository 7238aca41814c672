"""One daemon as a replica: what it says of its own adapter, and how it follows what another one said."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from daemon.adapters.swap import Swapper
from daemon.kafka.announcements import Announcement, Move
from daemon.realign.control import MAX_REASON
from lte_runtime.errors import LteError, Refused
from lte_runtime.store.adapter_history import CONFIGURED, NONE, AdapterLedger


class MetaStore(Protocol):
    """Small durable values."""

    def meta_get(self, name: str) -> str | None: ...
    def meta_set(self, name: str, value: str) -> None: ...


class AdapterReplica:
    """`on_fault` hears why the announced adapter cannot be followed, and an empty text once it is."""

    def __init__(
        self,
        meta: MetaStore,
        ledger: AdapterLedger,
        swapper: Swapper,
        base_fingerprint: str,
        on_fault: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.base_fingerprint = base_fingerprint
        self._meta, self._ledger, self._swapper, self._on_fault = meta, ledger, swapper, on_fault

    def own_move(self) -> Move | None:
        now = self._ledger.active()
        # What the pointer names may not be served here: it may belong to the base model of before.
        if now.no == 0 or now.followed or not self._swapper.serves(now.adapter):
            return None
        # An epoch that became void since is not announced: the move itself still stands.
        epoch = min(now.epoch, self._ledger.epoch())
        reason = now.reason[:MAX_REASON]
        announcement = Announcement(now.adapter, now.sha256, self.base_fingerprint, reason, epoch, now.at_ms)
        return Move(now.no, announcement)

    def follow(self, announcement: Announcement) -> None:
        if self._is_served(announcement):
            self._on_fault("")
            return
        try:
            self._check(announcement)
            self._swapper.activate(
                announcement.adapter, f"announced: {announcement.reason}", announcement.epoch, followed=True
            )
        except Refused:
            raise
        except (LteError, OSError) as error:
            self._on_fault(f"the announced adapter {announcement.adapter} cannot be served: {error}")
            raise
        self._on_fault("")

    def _is_served(self, announcement: Announcement) -> bool:
        """Each daemon has a configured adapter of its own: its name is enough."""
        now = self._ledger.active()
        same = now.adapter == announcement.adapter and (
            announcement.adapter in (CONFIGURED, NONE) or now.sha256 == announcement.sha256
        )
        return same and announcement.epoch <= self._ledger.epoch()

    def _check(self, announcement: Announcement) -> None:
        """The name must mean the same content here."""
        if announcement.adapter in (CONFIGURED, NONE):
            return
        own_hash = self._swapper.hash_of(announcement.adapter)
        if own_hash != announcement.sha256:
            raise Refused(
                f"adapter {announcement.adapter} has hash {own_hash[:12]} here, "
                f"but {announcement.sha256[:12]} was announced"
            )

    def epoch(self) -> int:
        return self._ledger.epoch()

    def last_move(self) -> int:
        return self._ledger.active().no

    def void_epochs(self, through: int) -> None:
        self._ledger.void_epochs(through)

    def meta_get(self, name: str) -> str | None:
        return self._meta.meta_get(name)

    def meta_set(self, name: str, value: str) -> None:
        self._meta.meta_set(name, value)
