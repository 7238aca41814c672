"""A deterministic encoder without a model, for trials where quality does not matter and speed does."""

from __future__ import annotations

import re
import unicodedata
import zlib
from collections.abc import Iterator, Sequence

import numpy as np

from lte_runtime.types import Vectors

_WORD = re.compile(r"\w+")


def checked_text(text: str) -> str:
    """`text` without outer white space; raises ValueError when nothing is left or UTF-8 cannot carry it."""
    stripped = text.strip()
    if not stripped:
        raise ValueError("an empty text cannot be encoded")
    try:
        stripped.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError("a text with lone surrogates cannot be encoded") from error
    return stripped


class StubEncoder:
    """Signed feature hashing (Weinberger et al., 2009) of words and letter trigrams into 64 dimensions.

    Texts that share words are near each other, equal texts are equal on every machine. Each `variant` hashes
    in its own way. It reads `max_words` words, as a model reads so many tokens.
    """

    dimension = 64
    max_words = 256

    def __init__(self, variant: int = 1) -> None:
        self.fingerprint = f"stub-64-{variant}"
        self._seed = variant - 1

    def encode(self, texts: Sequence[str], *, query: bool = False) -> Vectors:
        """Unit vectors [len(texts), 64]; `query` makes no difference. ValueError as in `checked_text`."""
        del query
        rows = [self._row(checked_text(text)) for text in texts]
        return np.stack(rows) if rows else np.empty((0, self.dimension), np.float32)

    def windows(self, text: str) -> Sequence[str]:
        """Parts of `max_words` words; see `Encoder`."""
        words = list(_WORD.finditer(text))
        if len(words) <= self.max_words:
            return (text,)
        starts = [0, *(word.start() for word in words[self.max_words :: self.max_words])]
        return [text[start:end].strip() for start, end in zip(starts, [*starts[1:], len(text)], strict=True)]

    def _row(self, text: str) -> Vectors:
        row = np.zeros(self.dimension, np.float32)
        folded = unicodedata.normalize("NFC", self.windows(text)[0]).casefold()
        for feature, weight in _features(folded):
            code = zlib.crc32(feature.encode(), self._seed)
            row[code % self.dimension] += weight if code & 0x8000 else -weight
        if not row.any():
            row[zlib.crc32(folded.encode(), self._seed) % self.dimension] = 1.0
        return np.asarray(row / np.linalg.norm(row), np.float32)


def _features(text: str) -> Iterator[tuple[str, float]]:
    yield text, 0.5
    for word in _WORD.findall(text):
        yield word, 2.0
        padded = f" {word} "
        for start in range(len(padded) - 2):
            yield padded[start : start + 3], 0.5
