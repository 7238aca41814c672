"""Names that a question nearly mentions: shared trigrams choose a few, edit distance decides."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
from rapidfuzz import fuzz
from rapidfuzz.distance import OSA

from lte_runtime.names.tokens import digits, plain

_LEAST_LETTERS = 5  # shorter names are one slip away from common words
_SURE_LENGTH = 4  # words shorter than this must agree letter by letter
_FEW = 24
_LEAST_SHARE = 0.3
_POSTINGS = 150_000  # read at most so many, rare trigrams first
_ROUGHLY = 65.0  # percent; a name that is less alike is not looked at closely
_LONGER = 4  # letters and blanks that a name may have beyond the text that it is met in
_UNACCENTED, _RESPACED, _CEILING = 0.97, 0.96, 0.95


def grams(name: str) -> set[str]:
    """Trigrams of each word with its edges, without accents."""
    padded = [f" {word} " for word in plain(name).split(" ")]
    return {word[i : i + 3] for word in padded for i in range(len(word) - 2)}


class TrigramIndex:
    """From trigrams to the slots of names. Slots are given up by `drop` and never used again."""

    def __init__(self) -> None:
        self._postings: dict[str, array[int]] = {}
        self._names: list[str | None] = []
        self._sizes: array[int] = array("H")
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._names)

    def put(self, name: str) -> int:
        """Take a name in; gives its slot."""
        slot = len(self._names)
        parts = grams(name)
        self._names.append(name)
        self._sizes.append(min(len(parts), 0xFFFF))
        for part in parts:
            try:
                self._postings[part].append(slot)
            except KeyError:
                self._postings[part] = array("I", (slot,))
        return slot

    def drop(self, slot: int) -> None:
        self._names[slot] = None
        self.dropped += 1

    def near(self, text: str) -> list[str]:
        """A few names that share the largest part of their trigrams with `text`, best first."""
        postings = sorted((p for part in grams(text) if (p := self._postings.get(part))), key=len)
        chosen: list[npt.NDArray[np.uint32]] = []
        budget = _POSTINGS
        for posting in postings:
            budget -= len(posting)
            if budget < 0 and chosen:
                break
            chosen.append(np.array(posting, np.uint32))
        if not chosen:
            return []
        counts = np.bincount(np.concatenate(chosen), minlength=len(self._names))
        slots = np.flatnonzero(counts > 1)
        sizes = np.frombuffer(self._sizes.tobytes(), np.uint16)
        return self._best(slots, counts[slots] / sizes[slots])

    def _best(self, slots: npt.NDArray[np.intp], shares: npt.NDArray[np.float64]) -> list[str]:
        order = np.lexsort((slots, -shares))[:_FEW]
        names = (self._names[slots[i]] for i in order if shares[i] >= _LEAST_SHARE)
        return [name for name in names if name is not None]


def likeness(name: str, text: str, words: Sequence[str]) -> float:
    """How well `name` is met somewhere in `words` (joined: `text`), in [0, 1); 0 when it is not."""
    bare_name, bare_text = plain(name), plain(text)
    if len(name) < _LEAST_LETTERS or len(bare_name) > len(bare_text) + _LONGER:
        return 0.0
    if not fuzz.partial_ratio(bare_name, bare_text, score_cutoff=_ROUGHLY):
        return 0.0
    stretches = _stretches(words, name.count(" ") + 1)
    return max((_slip(name, stretch) for stretch in stretches), default=0.0)


def _stretches(words: Sequence[str], size: int) -> Iterator[str]:
    """Runs of words with about as many tokens as a name of `size` tokens."""
    for start in range(len(words)):
        stretch = ""
        for word in words[start : start + size + 1]:
            stretch = f"{stretch} {word}" if stretch else word
            if abs(stretch.count(" ") + 1 - size) <= 1:
                yield stretch


def _slip(name: str, text: str) -> float:
    if digits(name) != digits(text):
        return 0.0
    bare_name, bare_text = plain(name), plain(text)
    if bare_name == bare_text:
        return _UNACCENTED
    if name.count(" ") != text.count(" "):
        return _respaced(bare_name.replace(" ", ""), bare_text.replace(" ", ""))
    if not _short_words_agree(bare_name.split(" "), bare_text.split(" ")):
        return 0.0
    return _spelt(bare_name, bare_text, _allowed(len(bare_name)))


def _respaced(name: str, text: str) -> float:
    """Open AI for OpenAI; beside the blanks, two letters may be exchanged and none may be another."""
    if name == text:
        return _RESPACED
    return _spelt(name, text, 1) if sorted(name) == sorted(text) else 0.0


def _spelt(name: str, text: str, allowed: int) -> float:
    distance = OSA.distance(name, text, score_cutoff=allowed)
    return _CEILING * (1.0 - distance / len(name)) if distance <= allowed else 0.0


def _short_words_agree(name: Sequence[str], text: Sequence[str]) -> bool:
    """Short words and codes are not misspelt but different: Type B is not Type C."""
    return all(a == b or not _must_agree(a, b) for a, b in zip(name, text, strict=True))


def _must_agree(a: str, b: str) -> bool:
    return max(len(a), len(b)) < _SURE_LENGTH or any(char.isdigit() for char in a + b)


def _allowed(length: int) -> int:
    """Slips allowed: 1 up to 8 letters, 2 up to 14, then 3."""
    return 1 + (length > 8) + (length > 14)
