"""The watch after a swap: live probes of the new adapter against those of the one before it."""

from __future__ import annotations

import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable

import structlog

from daemon.swap import Swapper
from lte_runtime.align.watch import Tally, WatchPolicy, fall, reason
from lte_runtime.errors import LteError
from lte_runtime.memory.adapters import Activation, AdapterLedger

log = structlog.get_logger(__name__)
# Newest outcomes kept of each kind of probe.
KEPT = 256
_Outcomes = dict[str, deque[bool]]


class PromotionWatch:
    """`probed` is called after each live probe, in the prober's thread; a fall rolls back there and then.

    Only the way forward is watched: a rollback, by whomever, is not rolled back. Counts live in memory; a
    restart within the window begins to count anew and, without counts of the adapter before, cannot judge.
    """

    def __init__(
        self,
        swapper: Swapper,
        ledger: AdapterLedger,
        policy: WatchPolicy,
        *,
        window_s: float,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._swapper, self._ledger, self._policy = swapper, ledger, policy
        self._window_ms, self._now_ms = round(window_s * 1000), now_ms
        self._lock = threading.Lock()
        self._number = ledger.active().no
        self._before, self._after = _fresh(), _fresh()

    def probed(self, kind: str, right: bool) -> None:
        """One live probe was answered by the adapter that serves."""
        with self._lock:
            active = self._ledger.active()
            if active.no != self._number:
                self._number, self._before, self._after = active.no, self._after, _fresh()
            self._after[kind].append(right)
            why = self._why(active)
        if why:
            self._roll_back(active, why)

    def _why(self, active: Activation) -> str:
        forward = active.no > 0 and active.back == active.no - 1
        if not forward or self._now_ms() - active.at_ms > self._window_ms:
            return ""
        return reason(fall(_tallies(self._before), _tallies(self._after), self._policy), self._policy)

    def _roll_back(self, active: Activation, why: str) -> None:
        log.warning("promotion_fell", adapter=active.adapter, why=why)
        try:
            self._swapper.rollback(f"{active.adapter}: {why}", self._ledger.epoch())
        except (LteError, OSError) as error:
            # The next probe finds the same fall and tries again.
            log.error("rollback_failed", adapter=active.adapter, error=str(error))


def _fresh() -> _Outcomes:
    return defaultdict(lambda: deque(maxlen=KEPT))


def _tallies(outcomes: _Outcomes) -> dict[str, Tally]:
    return {kind: Tally(sum(each), len(each)) for kind, each in outcomes.items()}
