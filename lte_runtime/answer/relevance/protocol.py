"""What a question asks of a view: the log-odds that the scope gate decides by."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from lte_runtime.types import Vectors

ASKS, EARLIER, BEYOND = 0, 1, 2
"""Columns of the log-odds: the question asks for what the view tells; for a value that it told before; for
something else of the thing that the view describes ("the currency of the home country of it" beside "The home
country of it")."""
HEADS = 3


class Relevance(Protocol):
    """Reads pairs of a question and a view, both without the subject's name. Thread-safe."""

    def odds(self, pairs: Sequence[tuple[str, str]]) -> Vectors:
        """Log-odds [len(pairs), HEADS]."""
        ...
