"""What a servicer knows of one call beyond gRPC: who calls, and the longest time that it may take."""

from __future__ import annotations

import time
from typing import Any

import grpc

from daemon.rpc.access import Principal
from lte_runtime.errors import DeadlineExceeded

# gRPC gives an infinite time to calls without a deadline.
_NO_DEADLINE_S = 1e9


class CallContext:
    """gRPC's own context with the caller's principal and a deadline of at most `longest_s` from now on."""

    def __init__(self, context: grpc.ServicerContext, principal: Principal, longest_s: float) -> None:
        self._context = context
        self.principal = principal
        self._longest_s = longest_s
        self._ends = time.monotonic() + longest_s

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    def time_remaining(self) -> float | None:
        """Seconds until the caller's deadline or the daemon's, the earlier one; None for a caller without."""
        own = self._context.time_remaining()
        if own is None or own > _NO_DEADLINE_S:
            return None
        return float(min(own, self._ends - time.monotonic()))

    def is_active(self) -> bool:
        """Whether somebody still waits for the reply, and may."""
        return time.monotonic() < self._ends and bool(self._context.is_active())

    def check_time(self) -> None:
        """Raises `DeadlineExceeded` when the longest time has passed."""
        if time.monotonic() >= self._ends:
            raise DeadlineExceeded(f"the call has reached rpc.deadline_max_s, {self._longest_s:g} s")


def principal_of(context: grpc.ServicerContext) -> Principal:
    """Who calls. Raises `TypeError` for a context that did not come through the interceptor."""
    principal = getattr(context, "principal", None)
    if not isinstance(principal, Principal):
        raise TypeError("the call did not pass the interceptor")
    return principal
