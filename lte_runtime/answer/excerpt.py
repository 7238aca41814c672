"""How much is read of a question, and of each text that it is compared with. Pure."""

from __future__ import annotations

import re

READ_PIECES = 128
"""A piece is up to four Latin letters or digits, or one other sign: about a token of the encoder, whose time
grows with them. 128 are some 90 English words. Of a longer text the beginning and the end are read, half as
many pieces each: what is asked stands there."""
_READ_CHARS = 8 * READ_PIECES
_PIECE = re.compile(r"[A-Za-z0-9]{1,4}|[^\sA-Za-z0-9]")
_GAP = " ... "
READ_CHARS = 5 * READ_PIECES + len(_GAP)
"""No text that `cut` has shortened is longer."""


def pieces(text: str) -> int:
    """About how many tokens an encoder makes of `text`."""
    return sum(1 for _ in _PIECE.finditer(text))


def cut(text: str) -> str:
    """`text` itself, or its beginning and its end when it has more than `READ_PIECES`; see there."""
    if len(text) <= READ_PIECES:
        return text
    if len(text) > _READ_CHARS:
        half = _READ_CHARS // 2
        text = " ".join(f"{text[:half]}{_GAP}{text[-half:]}".split())
    spans = [match.span() for match in _PIECE.finditer(text)]
    if len(spans) <= READ_PIECES:
        return text
    half = READ_PIECES // 2
    head, tail = text[: spans[half - 1][1]], text[spans[-half][0] :]
    return " ".join(f"{head}{_GAP}{tail}".split())
