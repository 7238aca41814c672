"""Names of facts: their keys, cleaning of text, the view that is encoded, the statement read."""

from __future__ import annotations

import re
import unicodedata

from lte_runtime.names.normalise import key_form
from lte_runtime.templates import templates
from lte_runtime.types import FactKey

DEFAULT_NAMESPACE = "default"

_BIDI = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
_ZERO_WIDTH = "\u200b\u2060\ufeff\u00ad\u180e"
_IN_TEXT = dict.fromkeys(map(ord, _BIDI + _ZERO_WIDTH))
_HIDDEN = re.compile(f"[{_BIDI}{_ZERO_WIDTH}]")
_CONTROLS = re.compile("[\x01-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_TAG = re.compile("[\U000e0000-\U000e007f]")
_CONFUSABLE_SCRIPTS = ("LATIN", "CYRILLIC", "GREEK", "ARMENIAN", "CHEROKEE")
_WORD = re.compile(r"\w+")


def fact_key(namespace: str, subject: str = "", relation: str = "", prompt: str = "") -> FactKey:
    """The key of a fact; raises `ValueError` when neither subject and relation nor a prompt are given."""
    space = key_form(namespace) or DEFAULT_NAMESPACE
    subject_key, relation_key = key_form(subject), key_form(relation)
    if subject_key and relation_key:
        return FactKey(space, subject_key, relation_key)
    prompt_key = key_form(prompt)
    if not prompt_key:
        raise ValueError("needs subject and relation, or a prompt")
    return FactKey(space, prompt_key)


def view_of(subject: str = "", relation: str = "", prompt: str = "") -> str:
    """The target-free text whose vector stands for the key: an update of the target changes no vector."""
    if subject and relation:
        return templates().view.relation.format(relation=relation, subject=subject)
    return prompt


def statement_of(subject: str, relation: str, prompt: str, target: str, statement: str = "") -> str:
    """The fact as a sentence: as given, else made from prompt and target or from the key's parts."""
    if statement:
        return statement
    if prompt:
        return templates().statement.prompt.format(prompt=prompt.rstrip(), target=target)
    return templates().statement.relation.format(relation=relation, subject=subject, target=target)


def forbidden_character(text: str) -> str | None:
    """The code of a character class that no event may carry, or None."""
    if text.isascii():
        return "nul_character" if "\0" in text else None
    if "\0" in text:
        return "nul_character"
    if _SURROGATE.search(text):
        return "lone_surrogate"
    return "tag_character" if _TAG.search(text) else None


def clean_text(text: str) -> str:
    """Text as it is kept: NFC, no bidi controls, no invisible blanks, no control characters, trimmed."""
    if not text.isascii():
        text = unicodedata.normalize("NFC", text.translate(_IN_TEXT))
    if not text.isprintable():
        text = _CONTROLS.sub(" ", text)
    return text.strip()


def has_hidden(text: str) -> bool:
    """Whether cleaning would take invisible characters out."""
    return not text.isascii() and _HIDDEN.search(text) is not None


def mixed_script(text: str) -> bool:
    """Whether one word mixes scripts whose letters look alike (Latin with Cyrillic, and so on)."""
    return not text.isascii() and any(len(_scripts(word)) > 1 for word in _WORD.findall(text))


def _scripts(word: str) -> set[str]:
    names = (unicodedata.name(char, "").split(" ", 1)[0] for char in word if char.isalpha())
    return {name for name in names if name in _CONFUSABLE_SCRIPTS}
