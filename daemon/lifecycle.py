"""What the daemon may do now: one state, the reasons for it, and whether its facts may be stale.

The state is derived from a few independent conditions, so that two of them (a gap and a bad publisher, say)
can come and go in any order.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import StrEnum


class State(StrEnum):
    STARTING = "STARTING"
    CATCHING_UP = "CATCHING_UP"
    READY = "READY"
    DEGRADED = "DEGRADED"
    GAP = "GAP"
    SUSPENDED = "SUSPENDED"
    STOPPING = "STOPPING"


@dataclass(frozen=True)
class Conditions:
    """What is known. `servable`: the edit memory holds a state that questions may see."""

    connected: bool = False
    caught_up: bool = False
    servable: bool = False
    stopping: bool = False
    gap: str = ""
    suspended: str = ""
    degraded: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class LifecycleStatus:
    state: State
    stale: bool
    reasons: tuple[str, ...] = field(default=())


def derive(conditions: Conditions) -> State:
    """The one state that the conditions amount to; what stops ingest outranks what merely worries."""
    if conditions.stopping:
        return State.STOPPING
    if conditions.gap:
        return State.GAP
    if conditions.suspended:
        return State.SUSPENDED
    if conditions.caught_up:
        return State.DEGRADED if conditions.degraded else State.READY
    if conditions.servable:
        return State.DEGRADED
    return State.CATCHING_UP if conditions.connected else State.STARTING


class Lifecycle:
    """Thread-safe holder of the conditions.

    `stale` is computed when asked: no answer of a broker for `stale_after_s`, or ingest is stuck. Callbacks
    run in the thread that made the change, outside the lock, and must not block.
    """

    def __init__(
        self, *, stale_after_s: float = 10.0, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._stale_after_s = stale_after_s
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._conditions = Conditions()
        self._last_heard: Callable[[], float | None] = lambda: None
        self._stuck_step: Callable[[], str] = lambda: ""
        self._callbacks: list[Callable[[LifecycleStatus], None]] = []
        self._last_status = self.status()

    @property
    def state(self) -> State:
        return derive(self._conditions)

    @property
    def conditions(self) -> Conditions:
        return self._conditions

    @property
    def stale(self) -> bool:
        """True when no broker has answered for `stale_after_s`, or ever, or ingest does not go on."""
        heard = self._last_heard()
        return heard is None or self._monotonic() - heard > self._stale_after_s or bool(self._stuck_step())

    @property
    def reasons(self) -> tuple[str, ...]:
        now = self._conditions
        named = (now.gap, now.suspended, *(text for _, text in now.degraded))
        return tuple(text for text in named if text)

    def status(self) -> LifecycleStatus:
        return LifecycleStatus(self.state, self.stale, self.reasons)

    def serving(self) -> bool:
        """Whether questions may be answered: there is a state to answer from, and no end in sight."""
        now = self._conditions
        return (now.servable or now.caught_up) and not now.stopping

    def on_change(self, callback: Callable[[LifecycleStatus], None]) -> None:
        """Call `callback` at each change of state, staleness or reasons."""
        with self._lock:
            self._callbacks.append(callback)

    def watch(self, last_heard: Callable[[], float | None]) -> None:
        """Where to ask when a broker last answered (monotonic seconds; None: never)."""
        self._last_heard = last_heard

    def watch_steps(self, stuck_step: Callable[[], str]) -> None:
        """Where `tick` asks why ingest does not go on; empty while it does."""
        self._stuck_step = stuck_step

    def set_connected(self, connected: bool) -> None:
        self._change(lambda now: replace(now, connected=connected))

    def set_catching_up(self) -> None:
        self._change(lambda now: replace(now, connected=True, caught_up=False))

    def set_caught_up(self) -> None:
        """Positions have reached the end offsets that were read at start."""
        self._change(
            lambda now: replace(
                now, connected=True, caught_up=True, servable=True, degraded=_without(now, _BEHIND)
            )
        )

    def set_servable(self, reason: str) -> None:
        """There is a state to serve although it is not caught up; `reason` says why it is served."""
        self._change(lambda now: replace(now, servable=True, degraded=_with(now, _BEHIND, reason)))

    def set_gap(self, reason: str, *, servable: bool) -> None:
        """History is missing. `servable`: the state from before the gap may still be asked."""
        self._change(lambda now: replace(now, gap=reason, caught_up=False, servable=now.servable or servable))

    def clear_gap(self) -> None:
        self._change(lambda now: replace(now, gap=""))

    def set_suspended(self, reason: str) -> None:
        self._change(lambda now: replace(now, suspended=reason))

    def clear_suspended(self) -> None:
        self._change(lambda now: replace(now, suspended=""))

    def set_degraded(self, name: str, reason: str) -> None:
        self._change(lambda now: replace(now, degraded=_with(now, name, reason)))

    def clear_degraded(self, name: str) -> None:
        self._change(lambda now: replace(now, degraded=_without(now, name)))

    def set_stopping(self) -> None:
        self._change(lambda now: replace(now, stopping=True))

    def tick(self) -> None:
        """Note whether ingest goes on; tell the callbacks when staleness has turned since they last heard."""
        stuck = self._stuck_step()
        self._change(
            lambda now: replace(now, degraded=_with(now, _STUCK, stuck) if stuck else _without(now, _STUCK))
        )

    def _change(self, change: Callable[[Conditions], Conditions]) -> None:
        with self._lock:
            self._conditions = change(self._conditions)
            before, self._last_status = self._last_status, self.status()
            status, callbacks = self._last_status, tuple(self._callbacks)
        if status != before:
            for callback in callbacks:
                callback(status)


_BEHIND, _STUCK = "behind", "stuck"


def _with(now: Conditions, name: str, reason: str) -> tuple[tuple[str, str], ...]:
    return (*_without(now, name), (name, reason))


def _without(now: Conditions, name: str) -> tuple[tuple[str, str], ...]:
    return tuple(pair for pair in now.degraded if pair[0] != name)
