"""Token buckets, one for each principal that has a limit."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from daemon.rpc.access import Limit, Principal
from lte_runtime.errors import Overloaded


class RateLimited(Overloaded):
    """The principal's own limit is reached: in `retry_s` seconds its next call is taken."""

    def __init__(self, principal: Principal, limit: Limit, retry_s: float) -> None:
        super().__init__(
            f"{principal.name} may make {limit.calls_per_s:g} calls a second, {limit.burst} at once: "
            f"call again in {retry_s:.3f} s"
        )
        self.retry_s = retry_s


@dataclass(slots=True)
class _Bucket:
    """`level` calls are free at `time_s`."""

    limit: Limit
    level: float
    time_s: float


class RateLimits:
    """Thread-safe. Holds a bucket for each limited principal that has called, by name: what an entry of the
    token file has used stays used when the file is read anew, unless its limit has changed."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._buckets: dict[str, _Bucket] = {}

    def take(self, principal: Principal) -> None:
        """Count one call. Raises `RateLimited`; a refused call costs nothing."""
        limit = principal.limit
        if limit is None:
            return
        now = self._monotonic()
        with self._lock:
            bucket = self._buckets.get(principal.name)
            if bucket is None or bucket.limit != limit:
                bucket = self._buckets[principal.name] = _Bucket(limit, limit.burst, now)
            regained = (now - bucket.time_s) * limit.calls_per_s
            bucket.level, bucket.time_s = min(limit.burst, bucket.level + regained), now
            if bucket.level < 1:
                raise RateLimited(principal, limit, (1 - bucket.level) / limit.calls_per_s)
            bucket.level -= 1
