"""Whether this daemon acts for all that share its topics: the last claim on the control topic is its own."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from daemon.kafka.control import ControlTopic
from lte_runtime.errors import Refused, Retry
from lte_runtime.store.adapter_history import AdapterLedger

# Time that the control topic gets to be given to a daemon that has just started.
OWNER_S = 8.0


@dataclass(frozen=True, slots=True)
class Ownership:
    """`owns` is a quick guess. `epoch` is the own one, confirmed by the control topic at this moment: it may
    wait for a broker and raises `Refused` in a daemon that is not the owner, `Retry`. `manual_epoch` is that
    of a swap by hand."""

    owns: Callable[[], bool]
    epoch: Callable[[], int]
    manual_epoch: Callable[[], int]


def ownership(control: ControlTopic | None, ledger: AdapterLedger, *, away: Callable[[], bool]) -> Ownership:
    """Without a control topic a daemon is on its own and owns what it has. `away`: no broker answers."""
    if control is None:
        return Ownership(lambda: True, ledger.epoch, ledger.epoch)
    epoch = owned_epoch(control.epoch, ledger)
    return Ownership(lambda: control.status().owns, epoch, swap_epoch(epoch, ledger.epoch, away=away))


def owned_epoch(confirmed: Callable[[], int], ledger: AdapterLedger) -> Callable[[], int]:
    """The epoch of the owner of the control topic, who holds its last claim: a higher one in the ledger is of
    no claim there (the topic was made anew, or a bad announcement was followed) and becomes void."""

    def epoch() -> int:
        # Read first: a move that another owner makes after this one was confirmed keeps its epoch.
        moves = ledger.active().no
        seen, own = ledger.epoch(), confirmed()
        if seen > own:
            ledger.void_epochs(moves)
        return own

    return epoch


def swap_epoch(
    owned: Callable[[], int],
    seen: Callable[[], int],
    *,
    away: Callable[[], bool],
    patience_s: float = OWNER_S,
) -> Callable[[], int]:
    """The epoch of a move by hand: that of the owner of the control topic, not below one that was seen.

    While Kafka is `away` every daemon is on its own and may be put right by hand. A daemon that has just
    started waits a moment for the topic to be given to it. Raises `Refused` when this one does not own
    it, `Retry`.
    """

    def epoch() -> int:
        deadline = time.monotonic() + patience_s
        while True:
            try:
                return max(owned(), seen())
            except (Refused, Retry) as error:
                if isinstance(error, Retry) and away():
                    return seen()
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)

    return epoch
