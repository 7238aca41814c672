"""What one question may cost before its answer is written: texts to encode, keys to read, and time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from lte_runtime.answer.excerpt import READ_PIECES, pieces
from lte_runtime.errors import Cancelled, DeadlineExceeded

ENCODED_PIECES = 3 * READ_PIECES
"""Pieces (`excerpt.READ_PIECES`) that are encoded for the text of one question.

They do for a text of the full length, and for the same without each of two names."""
ENCODED_AT_ONCE = 16
"""Texts that the encoder gets in one call: between two calls other questions get their turn, and the deadline
and the caller are looked at."""
MOST_KEYS = 1_024
"""Keys whose facts are read for the subjects that a question names and for what their facts lead to."""


@dataclass(slots=True)
class Budget:
    """The bounds of one question; used by one thread. `deadline` is on the monotonic clock, in seconds."""

    deadline: float | None = None
    cancelled: Callable[[], bool] = lambda: False
    now: Callable[[], float] = time.monotonic
    pieces: int = ENCODED_PIECES
    keys: int = MOST_KEYS
    _afforded: set[str] = field(default_factory=set)

    def check(self) -> None:
        """Between two units of work: raises `DeadlineExceeded` or `Cancelled` when nobody waits any more."""
        if self.cancelled():
            raise Cancelled("the caller went away")
        if self.deadline is not None and self.now() >= self.deadline:
            raise DeadlineExceeded("the deadline passed while facts were looked up")

    def afford(self, *texts: str) -> bool:
        """Whether all of these texts may be encoded; what is afforded once costs nothing a second time."""
        new = {text: pieces(text) for text in texts if text not in self._afforded}
        if sum(new.values()) > self.pieces:
            return False
        self.pieces -= sum(new.values())
        self._afforded.update(new)
        return True

    def affordable(self, texts: Iterable[str]) -> set[str]:
        """Those of `texts`, the first ones first, that may be encoded."""
        return {text for text in texts if self.afford(text)}
