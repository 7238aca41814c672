"""Relevance by shared words, for encoders without meaning (the stub)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lte_runtime.answer.relevance.protocol import HEADS
from lte_runtime.names.tokens import folded_name
from lte_runtime.templates import Templates, templates
from lte_runtime.types import Vectors

_NEVER, _STEEP, _HALF_SURE = -10.0, 20.0, 0.7


class LexicalRelevance:
    """How many words of the view the question repeats, those of the view's frame aside.

    A question with more words than those asks for something else of what the view tells.
    """

    def __init__(self, texts: Templates | None = None) -> None:
        frame, self._words = (texts or templates()).view, (texts or templates()).words
        self._frame = set(_words(frame.relation.format(relation=frame.mention, subject="")))

    def odds(self, pairs: Sequence[tuple[str, str]]) -> Vectors:
        """Log-odds [len(pairs), HEADS], see `Relevance`."""
        return np.array([self._row(*pair) for pair in pairs], np.float32).reshape(-1, HEADS)

    def _row(self, question: str, view: str) -> tuple[float, float, float]:
        turning, words, view_words = self._words, _words(question), set(_words(view)) - self._frame
        others = set(words) - view_words
        if not view_words or others & turning.opposite:
            return _NEVER, _NEVER, _NEVER
        odds = _STEEP * (len(view_words & set(words)) / len(view_words) - _HALF_SURE)
        if others & turning.earlier:
            return _NEVER, _NEVER if words[0] in turning.whether else odds, _NEVER
        return (_NEVER, _NEVER, odds) if others - turning.asking else (odds, _NEVER, _NEVER)


def _words(text: str) -> list[str]:
    return folded_name(text).split()
