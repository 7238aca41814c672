"""A bound on how many may do something at once: one more is refused, not queued."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from lte_runtime.errors import Overloaded


class Places:
    """Thread-safe. `refusal` tells the caller who finds no place what to do instead."""

    def __init__(self, count: int, refusal: str) -> None:
        self._free, self._refusal = threading.BoundedSemaphore(count), refusal

    @contextmanager
    def take(self) -> Iterator[None]:
        """Hold a place; raises `Overloaded` when all are held."""
        if not self._free.acquire(blocking=False):
            raise Overloaded(self._refusal)
        try:
            yield
        finally:
            self._free.release()
