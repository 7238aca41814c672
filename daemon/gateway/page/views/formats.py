"""Figures and times as people read them. Pure."""

from __future__ import annotations

import math

from google.protobuf.timestamp_pb2 import Timestamp

GOOD, WARN, BAD, PLAIN = "good", "warn", "bad", "plain"
"""Tones of a state; the style sheet has a colour for each, and the text says the same."""

SHORT = 12
_UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))
_SIZES = ((1_000_000_000, "GB"), (1_000_000, "MB"), (1_000, "kB"))


def span(seconds: float) -> str:
    """A length of time in its largest whole unit: `12 s`, `3 min`, `5 h`, `2 d`."""
    for size, unit in _UNITS:
        if seconds >= size:
            return f"{int(seconds // size)} {unit}"
    return "0 s"


def ago(then_ms: int, now_ms: int) -> str:
    """How long before (or after) `now_ms` a time was; both in milliseconds since the epoch."""
    seconds = (now_ms - then_ms) / 1000
    if seconds < 0:
        return f"in {span(-seconds)}"
    return "just now" if seconds < 1 else f"{span(seconds)} ago"


def milliseconds(time: Timestamp) -> int:
    return int(time.ToMilliseconds())


def iso(time_ms: int) -> str:
    """ISO 8601 in UTC, to the second."""
    return Timestamp(seconds=time_ms // 1000).ToJsonString()


def count(number: int) -> str:
    return f"{number:,}"


def figure(value: float) -> str:
    """Four significant digits; whole numbers with separators."""
    if math.isfinite(value) and value == int(value) and abs(value) >= 1000:
        return f"{int(value):,}"
    return f"{value:.4g}"


def size(number: int) -> str:
    """Bytes with a decimal unit."""
    for unit_size, unit in _SIZES:
        if number >= unit_size:
            return f"{number / unit_size:.1f} {unit}"
    return f"{number} B"


def short(text: str) -> str:
    """The beginning of a hash."""
    return text[:SHORT]


def label(name: str) -> str:
    """`edit_success` as `Edit success`."""
    words = name.replace("_", " ").strip()
    return words[:1].upper() + words[1:]
