"""Names that say too little to stand for one thing: shorter than two letters, or a function word.

The words are data (`templates/function_words.toml`), a list for each language.
"""

from __future__ import annotations

import tomllib
from functools import cache
from importlib import resources

from lte_runtime.names.normalise import key_form

SHORTEST = 2
"""Letters and digits of a name; one alone stands in many questions by chance."""


def is_weak(name: str) -> bool:
    """Whether a name is shorter than `SHORTEST` letters or digits, or a function word of a listed language.

    A function word in capitals is an abbreviation (WHO, IT, US).
    """
    form = key_form(name)
    return sum(map(str.isalnum, form)) < SHORTEST or (form in function_words() and not name.isupper())


@cache
def function_words() -> frozenset[str]:
    """The words of all languages, in the form of keys."""
    text = resources.files("lte_runtime").joinpath("templates/function_words.toml").read_text("utf-8")
    return frozenset(key_form(word) for words in tomllib.loads(text).values() for word in words)
