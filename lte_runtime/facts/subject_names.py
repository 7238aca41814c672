"""The names by which a question may call what a fact is about."""

from __future__ import annotations

from lte_runtime.names.prompts import names_in
from lte_runtime.types import Edit, Fact


def subject_names(fact: Edit | Fact) -> tuple[str, ...]:
    """The subject, else the names in the prompt, and the declared aliases."""
    has_subject = fact.subject and fact.subject != fact.prompt  # a `Fact` of a prompt has it for its subject
    own = (fact.subject,) if has_subject else names_in(fact.prompt)
    return (*own, *fact.subject_aliases)
