"""Names that share the most trigrams with a text: the few that it may nearly mention."""

from __future__ import annotations

from array import array

import numpy as np
import numpy.typing as npt

from lte_runtime.names.tokens import plain

_FEW = 24
_LEAST_SHARE = 0.3
_POSTINGS = 150_000  # read at most so many, rare trigrams first


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
