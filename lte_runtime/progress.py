"""How long work says how far it is."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""Called as `progress(what, done, total)`; a total of 0 is not known."""


def silent(_what: str, _done: int, _total: int) -> None:
    """Nobody watches."""
