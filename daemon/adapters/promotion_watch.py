"""The watch after a swap: live probes of the new adapter against those of the one before it."""

from __future__ import annotations

import json
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence

import structlog

from daemon.adapters.following import MetaStore
from daemon.adapters.swap import Swapper
from lte_runtime.align.watch import ProbeTally, WatchPolicy, fall, reason
from lte_runtime.errors import LteError
from lte_runtime.store.adapter_history import Activation, AdapterLedger

log = structlog.get_logger(__name__)
# Newest outcomes kept of each kind of probe.
MOST_OUTCOMES = 256
# Probes between two writes.
SAVE_EVERY = 16
STATE = "adapters.watch"
_Outcomes = dict[str, deque[bool]]


class PromotionWatch:
    """`probed` is called after each live probe, in the prober's thread; a fall rolls back there and then.

    Only the way forward is watched: a rollback, by whomever, is not rolled back. Counts are kept every few
    probes, so that a restart within the window goes on with them.
    """

    def __init__(
        self,
        swapper: Swapper,
        ledger: AdapterLedger,
        meta: MetaStore,
        policy: WatchPolicy,
        *,
        window_s: float,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._swapper, self._ledger, self._meta, self._policy = swapper, ledger, meta, policy
        self._window_ms, self._now_ms = round(window_s * 1000), now_ms
        self._lock = threading.Lock()
        self._number, self._before, self._after = _restored(meta.meta_get(STATE))
        self._unsaved = 0

    def probed(self, kind: str, right: bool) -> None:
        """One live probe was answered by the adapter that serves."""
        with self._lock:
            active = self._ledger.active()
            self._follow(active.no)
            self._after[kind].append(right)
            self._save_now_and_then()
            why = self._why(active)
        if why:
            self._roll_back(active, why)

    def _follow(self, number: int) -> None:
        """The counts of the adapter before are those of the move before, and of no older one."""
        if number != self._number:
            self._before = self._after if number == self._number + 1 else _fresh()
            self._number, self._after = number, _fresh()
            self._unsaved = SAVE_EVERY

    def _save_now_and_then(self) -> None:
        self._unsaved += 1
        if self._unsaved >= SAVE_EVERY:
            state = {"number": self._number, "before": _plain(self._before), "after": _plain(self._after)}
            self._meta.meta_set(STATE, json.dumps(state))
            self._unsaved = 0

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
    return defaultdict(lambda: deque(maxlen=MOST_OUTCOMES))


def _tallies(outcomes: _Outcomes) -> dict[str, ProbeTally]:
    return {kind: ProbeTally(sum(answers), len(answers)) for kind, answers in outcomes.items()}


def _plain(outcomes: _Outcomes) -> dict[str, list[int]]:
    return {kind: [int(right) for right in answers] for kind, answers in outcomes.items()}


def _restored(text: str | None) -> tuple[int, _Outcomes, _Outcomes]:
    if not text:
        return 0, _fresh(), _fresh()
    stored = json.loads(text)
    return int(stored["number"]), _filled(stored["before"]), _filled(stored["after"])


def _filled(plain: Mapping[str, Sequence[int]]) -> _Outcomes:
    filled = _fresh()
    for kind, outcomes in plain.items():
        filled[kind].extend(map(bool, outcomes))
    return filled
