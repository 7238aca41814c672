"""Parts of names that may stand for them: the end with a code, and the first word of several.

"SB-12 Rev A" means "Service Bulletin SB-12 Rev A" where no other subject ends so, and "Anna" may mean "Anna
Berg". A part is told from the way in which a name is written, not from what its words mean.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from lte_runtime.names.mention import close_form
from lte_runtime.names.tokens import folded_name

MOST_SHARING = 16
"""Names that may share a part. What more names share is a kind of thing, which means none of them."""
_MOST_WORDS = 3  # of a name whose first word is called by
_LEAST_FIRST = 3  # letters of such a word
_DIGIT = re.compile(r"\d")


def end_of(name: str) -> str:
    """The close form of what a name ends with behind its class words; empty where it has none."""
    words = name.split()
    if len(words) == 1 or not (words[0].islower() or _DIGIT.search(name)):
        return ""
    return close_form(folded_name(_end(words)))


def first_of(name: str, folded: str) -> str:
    """The close form of a name's first word, where it is two or three words that are all written like names;
    else empty."""
    words = name.split()
    if not 1 < len(words) <= _MOST_WORDS or len(words) != folded.count(" ") + 1:
        return ""
    if len(words[0]) < _LEAST_FIRST or not all(map(_is_like_name, words)):
        return ""
    return close_form(folded[: folded.index(" ")])


def _is_like_name(word: str) -> bool:
    return len(word) > 1 and word[0].isalpha() and not word[0].islower() and not _DIGIT.search(word)


def _end(words: Sequence[str]) -> str:
    """What a name ends with behind its class words: its code and all behind it, else what follows words in
    small letters. A number without a letter is no code: other things have years and sizes too."""
    code = next((at for at, word in enumerate(words) if _DIGIT.search(word)), None)
    if code is None:
        code = next((at for at, word in enumerate(words) if not word.islower()), 0)
    elif not any(map(str.isalpha, words[code])):
        return ""
    return " ".join(words[code:]) if code else ""


class NamesByPart:
    """From close forms of parts to the folded names that have them."""

    def __init__(self) -> None:
        self._names: dict[str, str | set[str]] = {}  # mostly one, and a set is large

    def __contains__(self, part: str) -> bool:
        return part in self._names

    def __len__(self) -> int:
        return len(self._names)

    def of(self, part: str) -> set[str]:
        """The names with this part; none where more than `MOST_SHARING` have it."""
        names = self._names.get(part, set())
        return {names} if isinstance(names, str) else names if len(names) <= MOST_SHARING else set()

    def add(self, part: str, folded: str) -> None:
        """Note that a name has the part; an empty part is none."""
        names = self._names.setdefault(part, folded) if part else folded
        if isinstance(names, set):
            names.add(folded)
        elif names != folded:
            self._names[part] = {names, folded}

    def remove(self, part: str, folded: str) -> None:
        """Forget that a name has the part."""
        names = self._names.get(part)
        if isinstance(names, set) and len(names) > 1:
            names.discard(folded)
        else:
            self._names.pop(part, None)
