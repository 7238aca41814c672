"""What it means for an answer that a fact took a name from another publisher. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from lte_runtime.facts.events import FOREIGN_NAME
from lte_runtime.names.normalise import key_form
from lte_runtime.types import Citation, Fact

AMBIGUOUS = "ambiguous"
"""Flag of a cited fact whose name in the question may mean another subject."""


def takes_subject(fact: Fact, rivals: Iterable[Fact]) -> bool:
    """Whether an alias of the fact, taken from another publisher, is the subject of one of the rivals.

    Such a fact stands back where both answer a question: the name means the rival's subject first.
    """
    if FOREIGN_NAME not in fact.flags:
        return False
    aliases = set(map(key_form, fact.subject_aliases))
    return any(rival.key.subject in aliases and rival.publisher != fact.publisher for rival in rivals)


def marked(citation: Citation) -> Citation:
    """The citation, its fact flagged as ambiguous where it took a name from another publisher."""
    flags = citation.fact.flags
    if AMBIGUOUS in flags or FOREIGN_NAME not in flags:
        return citation
    return replace(citation, fact=replace(citation.fact, flags=(*flags, AMBIGUOUS)))
