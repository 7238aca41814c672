"""Text that models are given, by language: a file of this folder for each. Read once."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path


@dataclass(frozen=True, slots=True)
class ViewTexts:
    relation: str
    inside: str
    mention: str
    remaining: str


@dataclass(frozen=True, slots=True)
class StatementTexts:
    relation: str
    prompt: str
    alias: str
    all_members: str
    some_members: str
    former: str
    former_from: str
    former_until: str
    former_between: str


@dataclass(frozen=True, slots=True)
class PromptTexts:
    introduction: str
    updated: str
    question: str
    answer: str
    plain: str


@dataclass(frozen=True, slots=True)
class ProbeTexts:
    direct: str
    two_hop: str
    choice: str
    rephrased: tuple[str, ...]
    rephrased_prompt: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Words:
    earlier: frozenset[str]
    opposite: frozenset[str]
    whether: frozenset[str]
    asking: frozenset[str]


@dataclass(frozen=True, slots=True)
class Templates:
    """The sections of a file; what each is for stands in `en.toml`."""

    view: ViewTexts
    statement: StatementTexts
    prompt: PromptTexts
    probe: ProbeTexts
    words: Words


@cache
def templates(language: str = "en") -> Templates:
    """The templates of a language that ships. `TypeError` for a file that lacks a key."""
    raw = tomllib.loads(Path(__file__).with_name(f"{language}.toml").read_text(encoding="utf-8"))
    probe = raw["probe"]
    return Templates(
        view=ViewTexts(**raw["view"]),
        statement=StatementTexts(**raw["statement"]),
        prompt=PromptTexts(**raw["prompt"]),
        probe=ProbeTexts(**probe | {name: tuple(probe[name]) for name in ("rephrased", "rephrased_prompt")}),
        words=Words(**{name: frozenset(words) for name, words in raw["words"].items()}),
    )
