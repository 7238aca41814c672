"""Parts of names that may stand for them: the end with a code, and the first word of several.

"SB-12 Rev A" means "Service Bulletin SB-12 Rev A" where no other subject ends so, and "Anna" may mean "Anna
Berg". A part is told from the way in which a name is written, not from what its words mean.
"""

from __future__ import annotations

from dataclasses import dataclass

from lte_runtime.names.mention import close_form
from lte_runtime.names.reading import Reading

MOST_SHARING = 16
"""Names that may share a part. What more names share is a kind of thing, which means none of them."""
_MOST_WORDS = 3  # of a name whose first word is called by
_LEAST_FIRST = 3  # letters of such a word


@dataclass(frozen=True, slots=True)
class Parts:
    """Close forms of a name's parts, empty where it has none."""

    end: str = ""
    first: str = ""


_NONE = Parts()


def parts_of(name: str, folded: str) -> Parts:
    """The parts of a name as published, whose folded form is `folded`."""
    if " " not in folded:
        return _NONE
    end, first = _end(name), _first(name, folded)
    return Parts(end, first) if end or first else _NONE


def _end(name: str) -> str:
    """What a name ends with behind its class words: its code, or what follows words in small letters."""
    has_digit = any(map(str.isdigit, name))
    if not has_digit and not name[:1].islower():
        return ""
    reading = Reading(name)
    starts = [at for at, word in enumerate(reading.words) if not word.joined]
    for start, stop in zip(starts, [*starts[1:], len(reading.words)], strict=True):
        written = reading.close.of(start, stop)
        if any(map(str.isdigit, written)) or (not has_digit and not reading.is_small(start)):
            return reading.close.of(start, len(reading.words)) if start and not written.isdigit() else ""
    return ""


def _first(name: str, folded: str) -> str:
    """The first of two or three words that are all written like names."""
    words, folded_words = name.split(), folded.split(" ")
    if len(words) != len(folded_words) or len(words) > _MOST_WORDS or len(words[0]) < _LEAST_FIRST:
        return ""
    like_names = all(word[0].isalpha() and not word[0].islower() and len(word) > 1 for word in words)
    return close_form(folded_words[0]) if like_names and not any(map(str.isdigit, folded)) else ""


class NameParts:
    """From close forms of parts to the folded names that have them."""

    def __init__(self) -> None:
        self._ends: dict[str, set[str]] = {}
        self._firsts: dict[str, set[str]] = {}

    def add(self, parts: Parts, folded: str) -> None:
        if parts.end:
            self._ends.setdefault(parts.end, set()).add(folded)
        if parts.first:
            self._firsts.setdefault(parts.first, set()).add(folded)

    def remove(self, parts: Parts, folded: str) -> None:
        _take(self._ends, parts.end, folded)
        _take(self._firsts, parts.first, folded)

    def with_end(self, close: str) -> list[str]:
        """Names that end so; none where too many do."""
        return _few(self._ends, close)

    def with_first(self, close: str) -> list[str]:
        """Names whose first word this is; none where it is the first of too many."""
        return _few(self._firsts, close)


def _few(names: dict[str, set[str]], close: str) -> list[str]:
    sharing = names.get(close, ())
    return sorted(sharing) if len(sharing) <= MOST_SHARING else []


def _take(names: dict[str, set[str]], close: str, folded: str) -> None:
    if close:
        names[close].discard(folded)
        if not names[close]:
            del names[close]
