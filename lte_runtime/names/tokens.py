"""Tokens of names with their places, and the joints that make a code one word."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby

from lte_runtime.names.normalise import key_form, lookup_form


def _classes() -> dict[str, str]:
    """The characters of each Unicode category as the inside of a regular expression's class."""
    codes: dict[str, list[int]] = {}
    for code in range(0x21, 0x20000):
        codes.setdefault(unicodedata.category(chr(code)), []).append(code)
    return {category: _ranges(of) for category, of in codes.items() if category[0] in "MS"}


def _ranges(codes: list[int]) -> str:
    runs = (list(run) for _, run in groupby(enumerate(codes), lambda pair: pair[1] - pair[0]))
    return "".join(f"\\U{run[0][1]:08x}-\\U{run[-1][1]:08x}" for run in runs)


_CLASSES = _classes()
# Marks belong to the word that they stand on (Hindi vowel signs, combining accents); \w leaves them out.
MARKS = _CLASSES["Mn"] + _CLASSES["Mc"] + _CLASSES["Me"]
_OTHER_SYMBOLS = _CLASSES["So"]
_SYMBOLS = "#" + _CLASSES["Sm"] + _CLASSES["Sc"] + _OTHER_SYMBOLS
# Scripts written without spaces: each sign is a token of its own.
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff"
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
_TOKEN = re.compile(rf"[{_UNSPACED}]|(?:[^\W_{_UNSPACED}][{MARKS}]*)+|(?![<>|=~℠™®©])[{_SYMBOLS}]")
_ASCII_TOKEN = re.compile(r"[a-z0-9]+|[#$+^`]")
_UNSPACED_SIGN = re.compile(f"[{_UNSPACED}]")
_CACHED_WORDS = 4_096
_DIGITS = re.compile(r"\d+")
_PICTURES = re.compile(f"[{_OTHER_SYMBOLS}]")
_KATAKANA = re.compile("[\u30a0-\u30ff\u31f0-\u31ff]")


@dataclass(frozen=True, slots=True)
class Token:
    """One token of a folded text with its place in it."""

    text: str
    start: int
    end: int


def tokens(folded: str) -> list[Token]:
    """Words, numbers, signs of unspaced scripts and symbols such as + # $; punctuation only parts them."""
    return [Token(match.group(), match.start(), match.end()) for match in _pattern(folded).finditer(folded)]


def _pattern(folded: str) -> re.Pattern[str]:
    """The same tokens either way; the large classes cost ten times the time."""
    return _ASCII_TOKEN if folded.isascii() else _TOKEN


def folded_name(name: str) -> str:
    """The tokens of a name joined by blanks; the folded text itself when it has none ("!!!")."""
    folded = key_form(name)
    return " ".join(_pattern(folded).findall(folded)) or folded.strip()


def plain(folded: str) -> str:
    """A name or a word of it in look-up form: without accents, what typing on a foreign keyboard leaves."""
    if folded.isascii():
        return folded
    return " ".join(map(_plain_word, folded.split(" ")))


def close(plain_text: str) -> str:
    """A plain text without blanks and pictures (emoji), which people leave out when they type a name."""
    joined_text = plain_text.replace(" ", "")
    return joined_text if joined_text.isascii() else _PICTURES.sub("", joined_text)


@lru_cache(_CACHED_WORDS)
def _plain_word(word: str) -> str:
    return lookup_form(word) or word


def is_unspaced(token: str) -> bool:
    """Whether a token is a sign of a script that is written without spaces."""
    return _UNSPACED_SIGN.match(token) is not None


def digits(text: str) -> list[str]:
    """The runs of digits of a text, in order: two names whose digits differ are two names."""
    return _DIGITS.findall(text)


def joined(folded: str, before: Token, after: Token) -> bool:
    """Whether `before` and `after`, neighbours in `folded`, are parts of one written word.

    "2.3" + "1" in v2.3.1, "4711" + "b" in 4711-B and "c" + "+" in C++ are; "boston" + "based" are two.
    """
    gap = folded[before.end : after.start]
    if gap == "":
        return _is_symbol(before.text) or _is_symbol(after.text) or _is_run(before.text, after.text)
    if gap == ".":
        return True
    return gap in ("-", "/", "_", ":") and (_has_digit(before.text) or _has_digit(after.text))


def _is_symbol(text: str) -> bool:
    return not text[0].isalnum() and not _is_mark(text)


def _is_mark(text: str) -> bool:
    return unicodedata.category(text[0])[0] == "M"


def _is_run(before: str, after: str) -> bool:
    """Whether two signs of a script without spaces are surely one word's: katakana write names out, and a
    mark belongs to the sign that it stands on."""
    return bool(_KATAKANA.match(before) and _KATAKANA.match(after)) or _is_mark(after)


def _has_digit(text: str) -> bool:
    return any(char.isdigit() for char in text)
