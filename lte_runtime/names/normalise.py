"""The forms in which names are compared: one pipeline, two levels.

`key_form` joins spellings of one name: composed and decomposed letters, typographic apostrophes and hyphens,
invisible characters, white space and case. Facts whose parts have one key form are one fact.

`lookup_form` folds more: accents, vowel signs of Arabic and Hebrew, compatibility characters and trade mark
signs. Two names may share it, so a name that agrees in this form alone is the weaker match.

Pure. Both forms are idempotent and equal for canonically equivalent texts (NFC and NFD).
"""

from __future__ import annotations

import unicodedata

FOLD_VERSION = 2
"""The rules of `key_form`: raised with every change of them, since stored keys have the old form then.

1 was NFC, case folding and invisible characters, without apostrophes, hyphens and Turkish letters."""

# Default_Ignorable_Code_Point of the Unicode character database; the stretches at the end are for growth.
_IGNORABLE = (
    "\u00ad \u034f \u061c \u115f-\u1160 \u17b4-\u17b5 \u180b-\u180f \u200b-\u200f \u202a-\u202e "
    "\u2060-\u206f \u3164 \ufe00-\ufe0f \ufeff \uffa0 \ufff0-\ufff8 \U0001bca0-\U0001bca3 "
    "\U0001d173-\U0001d17a \U000e0000-\U000e0fff"
)
_APOSTROPHES = "\u00b4 \u02b9 \u02bb-\u02bc \u2018-\u2019 \u201b \u2032 \uff07"
_HYPHENS = "\u058a \u05be \u2010-\u2015 \u2212 \ufe58 \ufe63 \uff0d"
# Marks of Latin, Greek, Cyrillic, Hebrew and Arabic. Marks of other scripts are letters of their own there:
# Japanese voiced signs, vowel signs of India, tones of Thai.
_ACCENTS = (
    "\u0300-\u036f \u0483-\u0487 \u0591-\u05bd \u05bf \u05c1-\u05c2 \u05c4-\u05c5 \u05c7 \u0610-\u061a "
    "\u064b-\u065f \u0670 \u06d6-\u06dc \u06df-\u06e4 \u06e7-\u06e8 \u06ea-\u06ed \u0898-\u089f "
    "\u08ca-\u08e1 \u08e3-\u08ff \u1ab0-\u1aff \u1dc0-\u1dff \u20d0-\u20ff \ufe20-\ufe2f"
)
_TATWEEL = "\u0640"  # it only makes a word wider
_SIGNS = "\u2120 \u2122 \u00a9 \u00ae"
# Letters with a stroke are accented for who types them, but Unicode does not take them apart.
_STROKED = {"\u00e6": "ae", "\u0153": "oe", "\u00f8": "o", "\u0142": "l", "\u0111": "d", "\u0127": "h"}


def _codes(stretches: str) -> list[int]:
    """The code points of characters and of first-last stretches, separated by blanks."""
    pairs = (stretch.partition("-") for stretch in stretches.split(" "))
    return [code for first, _, last in pairs for code in range(ord(first), ord(last or first) + 1)]


_HIDE = dict.fromkeys(_codes(_IGNORABLE))
# Turkish writes I for dotless i and a dotted capital for i: no case folding joins both pairs but this one.
_PLAIN = dict.fromkeys(_codes(_APOSTROPHES), "'") | dict.fromkeys(_codes(_HYPHENS), "-") | {0x131: "i"}
_DOTTED_I = "i\u0307"
_HIDE_SIGNS = dict.fromkeys(_codes(_SIGNS))
_BARE = dict.fromkeys(_codes(f"{_ACCENTS} {_TATWEEL}")) | str.maketrans(_STROKED)


def key_form(text: str) -> str:
    """The form in which keys are compared: canonical caseless (Unicode D145), apostrophes and hyphens plain,
    no invisible characters, runs of white space as one blank."""
    if text.isascii():
        return " ".join(text.lower().split())
    folded = unicodedata.normalize("NFD", text.translate(_HIDE)).casefold().translate(_PLAIN)
    composed = unicodedata.normalize("NFC", unicodedata.normalize("NFD", folded).replace(_DOTTED_I, "i"))
    return " ".join(composed.split())


def lookup_form(text: str) -> str:
    """The form in which names are looked up when their key forms differ: without accents and the like."""
    if text.isascii():
        return key_form(text)
    return _bare(_bare(text))


def _bare(text: str) -> str:
    """One round: what stands in a compatibility character (a capital in a circle) is folded by the next."""
    parts = unicodedata.normalize("NFKD", key_form(text.translate(_HIDE_SIGNS)))
    return key_form(parts.translate(_BARE))
