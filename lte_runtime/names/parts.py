"""Parts of names that may stand for them: the end with a code, and the first word of several.

"SB-12 Rev A" means "Service Bulletin SB-12 Rev A" where no other subject ends so, and "Anna" may mean "Anna
Berg". A part is told from the way in which a name is written, not from what its words mean.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from lte_runtime.names.mention import close_form
from lte_runtime.names.tokens import folded_name

MOST_SHARING = 16
"""Names that may share a part. What more names share is a kind of thing, which means none of them."""
_MOST_WORDS = 3  # of a name whose first word is called by
_LEAST_FIRST = 3  # letters of such a word
_DIGIT = re.compile(r"\d")


@dataclass(frozen=True, slots=True)
class Parts:
    """The close form of a name's part, empty where it has none."""

    end: str = ""
    first: str = ""


_NONE = Parts()


def parts_of(name: str, folded: str) -> Parts:
    """The parts of a name as published, whose folded form is `folded`: one of the two, or none."""
    words = name.split()
    if len(words) == 1 or " " not in folded:
        return _NONE
    if _DIGIT.search(folded) or words[0].islower():
        end = _end(words)
        return Parts(end=close_form(folded_name(end))) if end else _NONE
    first = words[0] if _calls_by_first(words, folded) else ""
    return Parts(first=close_form(folded_name(first))) if first else _NONE


def _end(words: Sequence[str]) -> str:
    """What a name ends with behind its class words: its code and all behind it, else what follows words in
    small letters. A number without a letter is no code: other things have years and sizes too."""
    code = next((at for at, word in enumerate(words) if _DIGIT.search(word)), None)
    if code is None:
        code = next((at for at, word in enumerate(words) if not word.islower()), 0)
    elif not any(map(str.isalpha, words[code])):
        return ""
    return " ".join(words[code:]) if code else ""


def _calls_by_first(words: Sequence[str], folded: str) -> bool:
    """Whether a name is two or three words that are all written like names."""
    if len(words) > _MOST_WORDS or len(words) != folded.count(" ") + 1 or len(words[0]) < _LEAST_FIRST:
        return False
    return all(len(word) > 1 and word[0].isalpha() and not word[0].islower() for word in words)


class NameParts:
    """From close forms of parts to the folded names that have them: by their end, by their first word."""

    def __init__(self) -> None:
        self.ends: dict[str, set[str]] = {}
        self.firsts: dict[str, set[str]] = {}

    def add(self, parts: Parts, folded: str) -> None:
        if parts.end:
            self.ends.setdefault(parts.end, set()).add(folded)
        if parts.first:
            self.firsts.setdefault(parts.first, set()).add(folded)

    def remove(self, parts: Parts, folded: str) -> None:
        _take(self.ends, parts.end, folded)
        _take(self.firsts, parts.first, folded)


def _take(names: dict[str, set[str]], close: str, folded: str) -> None:
    if close:
        names[close].discard(folded)
        if not names[close]:
            del names[close]
