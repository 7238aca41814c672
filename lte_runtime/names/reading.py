"""A question as names are looked for in it: its words in look-up form, each with its place in the text."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from lte_runtime.names.normalise import key_form
from lte_runtime.names.tokens import MARKS, close, is_unspaced, joined, plain, tokens

MOST_CHARS = 2_048
"""Characters of a text in which names are looked for; whoever answers questions reads fewer."""
MOST_WORDS = 512
"""Words of a text in which names are looked for, the first ones: each may begin a name."""
_SMALL = 0.2  # share of words in small letters from which capitals tell names from other words

_CHUNK = re.compile(r"\S+")
_CLUSTER = re.compile(rf".[{MARKS}]*", re.DOTALL)
_WITHIN_NAMES = ("-", "'")  # between capitals: in Saint-Aubin and O'Brien, not in d'Acme
_SENTENCE_ENDS = ".?!:;"


@dataclass(frozen=True, slots=True)
class Word:
    """One word or sign of a text, `text[start:end]` as given.

    `joined`: it is written as one with the word before it, so that no name begins or ends between the two.
    """

    folded: str
    plain: str
    start: int
    end: int
    joined: bool


class Line:
    """Words written one behind the other, and where each begins and ends in that."""

    def __init__(self, words: Sequence[str], blank: str) -> None:
        self.text = blank.join(words)
        self.starts: list[int] = []
        self.ends: list[int] = []
        at = 0
        for word in words:
            self.starts.append(at)
            self.ends.append(at + len(word))
            at += len(word) + len(blank)

    def of(self, first: int, stop: int) -> str:
        """The words from `first` to before `stop`."""
        return self.text[self.starts[first] : self.ends[stop - 1]]


class Reading:
    """A text taken apart: its first `MOST_CHARS` characters, and of these the first `MOST_WORDS` words.

    `folded` and `plain` are its words with blanks between them, `close` is for `close_of`.
    """

    def __init__(self, text: str) -> None:
        self.text = text[:MOST_CHARS]
        self.words = _words(self.text)
        self.folded = Line([word.folded for word in self.words], " ")
        self.plain = Line([word.plain for word in self.words], " ")
        self.close = Line([close(word.plain) for word in self.words], "")
        small = sum(map(self.is_small, range(len(self.words))))
        self._all_small = self.text == self.text.lower()
        self._capitals_tell = small >= _SMALL * len(self.words)

    def close_of(self, first: int, stop: int) -> str:
        """The close form (`mention.close_form`) of the words from `first` to before `stop`."""
        return self.close.of(first, stop) or self.plain.of(first, stop).replace(" ", "")

    def has_bare_edge(self, first: int, stop: int) -> bool:
        """Whether the first or the last of these words says nothing in close form: an emoji beside a name."""
        return any(self.close.starts[at] == self.close.ends[at] for at in (first, stop - 1))

    def whole(self, first: int, stop: int) -> bool:
        """Whether the words from `first` to before `stop` neither begin nor end within a word."""
        if self.words[first].joined or (stop < len(self.words) and self.words[stop].joined):
            return False
        return stop - first > 1 or not self._within_unspaced(first)

    def in_capitals(self, first: int, stop: int) -> bool:
        """Whether the words stand in capitals, or the text has no capitals at all."""
        start, end = self.place(first, stop)
        return self.text[start:end].isupper() or self._all_small

    def is_small(self, at: int) -> bool:
        """Whether a word begins with a small letter."""
        return self.text[self.words[at].start].islower()

    def place(self, first: int, stop: int) -> tuple[int, int]:
        """Where the words from `first` to before `stop` stand in the text."""
        return self.words[first].start, self.words[stop - 1].end

    def inside(self, first: int, stop: int, *, at_most: bool = False) -> bool:
        """Whether the word before or behind these is written like a part of a longer name.

        That is with a digit, or with a capital that does not begin a sentence.
        Capitals tell nothing where nearly all words have them, unless `at_most` asks whether it may be so.
        """
        capitals_tell = at_most or self._capitals_tell
        before = first > 0 and self._gap(first) == " " and not self._opens(first - 1)
        behind = stop < len(self.words) and self._gap(stop) == " "
        return (before and self._like_name(first - 1, capitals_tell)) or (
            behind and self._like_name(stop, capitals_tell)
        )

    def _within_unspaced(self, at: int) -> bool:
        """Whether a word is one sign beside others of a script without spaces: mostly a part of a word."""
        beside = (near for near in (at, at + 1) if 0 < near < len(self.words) and not self._gap(near))
        return any(
            is_unspaced(self.words[near].folded) and is_unspaced(self.words[near - 1].folded)
            for near in beside
        )

    def _gap(self, at: int) -> str:
        """What stands between a word and the one before it."""
        return self.text[self.words[at - 1].end : self.words[at].start]

    def _opens(self, at: int) -> bool:
        """Whether a sentence begins with this word."""
        before = self.text[: self.words[at].start].rstrip()
        return not before or before[-1] in _SENTENCE_ENDS

    def _like_name(self, at: int, capitals_tell: bool) -> bool:
        word = self.words[at]
        return any(map(str.isdigit, word.folded)) or (capitals_tell and self.text[word.start].isupper())


def _words(text: str) -> tuple[Word, ...]:
    folded, starts, ends = _folded(text)
    words, before = list[Word](), None
    for token in tokens(folded)[:MOST_WORDS]:
        start, end = starts[token.start], ends[token.end - 1]
        is_joined = before is not None and (
            joined(folded, before, token)
            or (
                folded[before.end : token.start] in _WITHIN_NAMES
                and _are_capitals(text, words[-1].start, start)
            )
        )
        words.append(Word(token.text, plain(token.text), start, end, is_joined))
        before = token
    if not words and (bare := folded.strip()):  # names such as "!!!" have signs alone
        start = len(text) - len(text.lstrip())
        words.append(Word(bare, bare, start, len(text.rstrip()), joined=False))
    return tuple(words)


def _are_capitals(text: str, *places: int) -> bool:
    """Whether capitals stand there, in a text that has small letters too."""
    return all(text[place].isupper() for place in places) and text != text.upper()


def _folded(text: str) -> tuple[str, Sequence[int], Sequence[int]]:
    """The text folded, and where the sign of each of its characters begins and ends in `text`."""
    if text.isascii():
        return text.lower(), range(len(text)), range(1, len(text) + 1)
    parts, starts, ends = list[str](), list[int](), list[int]()
    for chunk in _CHUNK.finditer(text):
        for part, start, end in _chunk_parts(chunk.group(), chunk.start()):
            parts.append(part)
            starts += [start] * len(part)
            ends += [end] * len(part)
        parts.append(" ")
        starts.append(chunk.end())
        ends.append(chunk.end())
    return "".join(parts), starts, ends


def _chunk_parts(chunk: str, at: int) -> Iterator[tuple[str, int, int]]:
    """What each sign of `chunk` is folded to, with its place; for signs that hang together, all of it."""
    clusters = [(_fold_sign(m.group()), at + m.start(), at + m.end()) for m in _CLUSTER.finditer(chunk)]
    folded = key_form(chunk)
    if "".join(part for part, _, _ in clusters) == folded:
        yield from clusters
    else:
        yield folded, at, at + len(chunk)


@lru_cache(4_096)
def _fold_sign(sign: str) -> str:
    return key_form(sign)
