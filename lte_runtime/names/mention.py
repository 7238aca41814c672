"""Where a name stands in a question: by this rule look-up, scope gate, prompt and dry run find names.

A name is met by its own words, whatever language the question is in: no word is told from another by what it
means. Digits always agree: SKU-4711 is never SKU-4712.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import chain

from rapidfuzz import fuzz
from rapidfuzz.distance import OSA

from lte_runtime.names.reading import Line, Reading
from lte_runtime.names.tokens import close, digits, folded_name, plain

NAMED_FROM = 0.9
"""From this score on a mention stands for its name. Below it, another name may be meant: Rookwood is as
likely a second name as a misspelt Rockwood, so that only look-up makes use of it."""
MOST_NAMES = 512
"""Names that are looked for in one text, the first ones; a fact may have 65."""
LEAST_LETTERS = 5
"""Shorter names have no misspelt form: they are one slip away from common words."""
_PLAIN, _RESPACED, _PART, _EXCHANGED, _SLIPPED = 0.97, 0.96, 0.92, 0.9, 0.85
_ACRONYM = 4  # letters
_EXCHANGED_FROM = 6  # letters of a name in which two exchanged ones leave no doubt
_SURE_LENGTH = 4  # words shorter than this must agree letter by letter
_ROUGHLY = 65.0  # percent; a name that is less alike is not looked at closely
_LONGER = 4  # letters and blanks that a name may have beyond the text that it is met in


class How(StrEnum):
    """How the words of a question are a name's, the surest first."""

    EXACT = "exact"
    """The same words: case, punctuation and invisible characters aside."""
    PLAIN = "plain"
    """The same words without accents and vowel signs."""
    RESPACED = "respaced"
    """The same letters and digits, parted in another way or without emoji: `SKU4711`, `Open AI`."""
    PART = "part"
    """The name's end with its code (`SB-12 Rev A` of `Service Bulletin SB-12 Rev A`), or its first word."""
    MISSPELT = "misspelt"
    """A few letters exchanged, left out, added or replaced."""


@dataclass(frozen=True, slots=True)
class Mention:
    """`name` (in look-up form) stands at `question[start:end]`; `score` in (0, 1] is 1 for `EXACT`.

    `ambiguous`: names of several subjects are met by these words equally well, or they are only a first name.
    `inside`: the word before or behind it is written like a part of a longer name (`Acme` in `Acme Labs`).
    """

    name: str
    start: int
    end: int
    score: float
    how: How
    ambiguous: bool = False
    inside: bool = False

    @property
    def named(self) -> bool:
        """Whether the words stand for the name, see `NAMED_FROM`."""
        return self.score >= NAMED_FROM

    def overlaps(self, start: int, end: int) -> bool:
        """Whether it shares a character with `question[start:end]`."""
        return self.start < end and start < self.end


def close_form(folded: str) -> str:
    """A folded name without blanks, accents and emoji: equal for all that `EXACT`, `PLAIN` and `RESPACED`
    join. A name of emoji alone keeps them."""
    text = plain(folded)
    return close(text) or text.replace(" ", "")


def is_acronym(name: str, folded: str) -> bool:
    """Whether the name is a few capitals: "tell us who" does not mention US."""
    return len(folded) <= _ACRONYM and folded.isalpha() and name.isupper()


def locate(reading: Reading, name: str) -> Mention | None:
    """The best place of one name; None where it is not met. A part of it is no place: only a look-up knows
    whether other names have the same part."""
    folded = folded_name(name)
    acronym = is_acronym(name, folded)
    alike = chain(_places(reading.folded, folded), _places(reading.close, close_form(folded)))
    places = (place for place in alike if reading.whole(*place))
    mentions = [
        m for place in places if (m := whole_name(reading, *place, folded, acronym=acronym)) is not None
    ]
    best = max(mentions, key=lambda mention: mention.score, default=None)
    return best or misspelt_name(reading, folded, 0, len(reading.words))


class Mentions:
    """The mentions of names in one text, each looked for once, at most `MOST_NAMES`."""

    def __init__(self, text: str) -> None:
        self._reading = Reading(text)
        self._mentions: dict[str, Mention | None] = {}

    def of(self, name: str) -> Mention | None:
        """Where the name stands, see `locate`; None where other words do, and behind `MOST_NAMES` others."""
        if name not in self._mentions and len(self._mentions) < MOST_NAMES:
            self._mentions[name] = locate(self._reading, name)
        return self._mentions.get(name)

    def best(self, names: Iterable[str]) -> Mention | None:
        """The best place of any of the names, the longer one among equals."""
        mentions = (mention for name in names if (mention := self.of(name)))
        return max(mentions, key=lambda mention: (mention.score, mention.end - mention.start), default=None)


def _places(line: Line, text: str) -> Iterator[tuple[int, int]]:
    """Runs of words, first and stop, that are `text` when written as `line` is."""
    at = line.text.find(text) if text else -1
    while at >= 0:
        # A word that is empty in this line begins and ends where its neighbour does: it is left outside.
        first, last = bisect_right(line.starts, at) - 1, bisect_left(line.ends, at + len(text))
        if first <= last < len(line.ends) and line.of(first, last + 1) == text:
            yield first, last + 1
        at = line.text.find(text, at + 1)


def whole_name(
    reading: Reading, first: int, stop: int, folded: str, *, acronym: bool = False
) -> Mention | None:
    """The name met by words that have its close form, from `first` to before `stop`; None for another one."""
    if acronym and not reading.in_capitals(first, stop):
        return None
    if reading.folded.of(first, stop) == folded:
        return _mention(reading, first, stop, folded, 1.0, How.EXACT)
    text = reading.plain.of(first, stop)
    if text == plain(folded):
        return _mention(reading, first, stop, folded, _PLAIN, How.PLAIN)
    if len(folded) < LEAST_LETTERS or digits(folded) != digits(text) or reading.has_bare_edge(first, stop):
        return None
    return _mention(reading, first, stop, folded, _RESPACED, How.RESPACED)


def part_of_name(reading: Reading, first: int, stop: int, folded: str, *, ambiguous: bool) -> Mention:
    """The name met by words that are a part of it."""
    return replace(_mention(reading, first, stop, folded, _PART, How.PART), ambiguous=ambiguous)


def misspelt_name(reading: Reading, folded: str, first: int, stop: int) -> Mention | None:
    """The best misspelt form of a name among the words from `first` to before `stop`."""
    name, text = plain(folded), reading.plain.of(first, stop) if first < stop else ""
    if len(name) < LEAST_LETTERS or len(name) > len(text) + _LONGER:
        return None
    if not fuzz.partial_ratio(name, text, score_cutoff=_ROUGHLY):
        return None
    places = _runs(reading, first, stop, name.count(" ") + 1)
    scores = ((_slip(name, reading.plain.of(*place)), place) for place in places)
    score, place = max(scores, key=lambda scored: scored[0], default=(0.0, (0, 0)))
    return _mention(reading, *place, folded, score, How.MISSPELT) if score else None


def _mention(reading: Reading, first: int, stop: int, name: str, score: float, how: How) -> Mention:
    return Mention(name, *reading.place(first, stop), score, how, inside=reading.inside(first, stop))


def _runs(reading: Reading, first: int, stop: int, size: int) -> Iterator[tuple[int, int]]:
    """Runs of about `size` words; words that are written as one stay together ("4711-B")."""
    starts = [at for at in range(first, stop) if at == first or not reading.words[at].joined]
    ends = [*starts[1:], stop]
    for place, start in enumerate(starts):
        for end in ends[place : place + size + 1]:
            if abs(end - start - size) <= 1:
                yield start, end


def _slip(name: str, text: str) -> float:
    """How well a misspelt name agrees with the text, both plain, in [0, 1); 0 when they are two names."""
    if digits(name) != digits(text):
        return 0.0
    words, text_words = name.split(" "), text.split(" ")
    if len(words) != len(text_words):
        name, text = name.replace(" ", ""), text.replace(" ", "")
        return _spelt(name, text, 1) if sorted(name) == sorted(text) else 0.0
    if not _short_words_agree(words, text_words):
        return 0.0
    return _spelt(name, text, _allowed(len(name)))


def _spelt(name: str, text: str, allowed: int) -> float:
    distance = OSA.distance(name, text, score_cutoff=allowed)
    if distance > allowed:
        return 0.0
    if distance == 1 and len(name) >= _EXCHANGED_FROM and sorted(name) == sorted(text):
        return _EXCHANGED
    return _SLIPPED * (1.0 - distance / len(name))


def _short_words_agree(words: Sequence[str], text_words: Sequence[str]) -> bool:
    """Short words and codes are not misspelt but different: Type B is not Type C."""
    return all(a == b or not _must_agree(a, b) for a, b in zip(words, text_words, strict=True))


def _must_agree(a: str, b: str) -> bool:
    return max(len(a), len(b)) < _SURE_LENGTH or any(char.isdigit() for char in a + b)


def _allowed(length: int) -> int:
    """Slips allowed: 1 up to 8 letters, 2 up to 14, then 3."""
    return 1 + (length > 8) + (length > 14)
