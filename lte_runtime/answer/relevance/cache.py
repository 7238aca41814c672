"""Remembers what was asked of which view: forms of questions come again."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence

import numpy as np

from lte_runtime.answer.relevance.protocol import HEADS, Relevance
from lte_runtime.types import Vectors

_CACHED_PAIRS = 4_096
_CACHED_CHARS = 256  # long texts come from outside, and would let a caller fill the memory


class CachedRelevance:
    """A `Relevance` that keeps the log-odds of the pairs read last."""

    def __init__(self, relevance: Relevance, size: int = _CACHED_PAIRS) -> None:
        self._relevance, self._size = relevance, size
        self._rows: OrderedDict[tuple[str, str], Vectors] = OrderedDict()
        self._lock = threading.Lock()

    def odds(self, pairs: Sequence[tuple[str, str]]) -> Vectors:
        """Log-odds [len(pairs), HEADS]; pairs that are not kept are read in one batch, equal ones once."""
        distinct = list(dict.fromkeys(pairs))
        with self._lock:
            rows = {pair: self._rows[pair] for pair in distinct if pair in self._rows}
        missing = [pair for pair in distinct if pair not in rows]
        if missing:
            rows |= dict(zip(missing, self._relevance.odds(missing), strict=True))
        self._store({pair: row for pair, row in rows.items() if sum(map(len, pair)) <= _CACHED_CHARS})
        return np.array([rows[pair] for pair in pairs], np.float32).reshape(-1, HEADS)

    def _store(self, rows: dict[tuple[str, str], Vectors]) -> None:
        with self._lock:
            for pair, row in rows.items():
                self._rows[pair] = row
                self._rows.move_to_end(pair)
            while len(self._rows) > self._size:
                self._rows.popitem(last=False)
