"""Text that models are given, by language: a file of this folder for each. Read once."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Templates:
    """The keys of a file; see the comments in `en.toml`."""

    view: str
    view_inside: str
    mention: str
    earlier_words: frozenset[str]
    opposite_words: frozenset[str]
    whether_words: frozenset[str]
    asking_words: frozenset[str]


@cache
def templates(language: str = "en") -> Templates:
    """The templates of a language that ships."""
    return _templates(tomllib.loads(Path(__file__).with_name(f"{language}.toml").read_text(encoding="utf-8")))


def _templates(raw: dict[str, Any]) -> Templates:
    view, words = raw["view"], raw["words"]
    return Templates(
        view=view["relation"],
        view_inside=view["inside"],
        mention=view["mention"],
        earlier_words=frozenset(words["earlier"]),
        opposite_words=frozenset(words["opposite"]),
        whether_words=frozenset(words["whether"]),
        asking_words=frozenset(words["asking"]),
    )
