"""Chains: a question may need several edits, the object of one being the subject of the next. Pure.

A path is one to three facts. Its view says in words what the path answers ("The leader of the maker of it"),
so that one model reads a question beside single facts and beside chains alike.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice

from lte_runtime.answer.excerpt import cut
from lte_runtime.facts.subject_names import subject_names
from lte_runtime.names.mention import Mentions
from lte_runtime.templates import templates
from lte_runtime.types import Candidate, Fact

FactsOfSubject = Callable[[str], Sequence[Fact]]

MAX_HOPS = 3
"""Facts of the longest chain: the relevance model is trained on chains of up to three."""
_MASKED_PROMPTS = 1_024  # a fact published as a prompt is compared with question after question

_NAMELESS = re.compile(rf"\b{re.escape(templates().view.mention)}\b")
_MARKS = " ?.!:"


@dataclass(frozen=True, slots=True)
class Path:
    """Facts in hop order, and the candidate that it starts from. `end` is the last fact."""

    first: Candidate
    facts: tuple[Fact, ...]

    @property
    def end(self) -> Fact:
        return self.facts[-1]

    @property
    def view(self) -> str:
        """Target-free words of the path with the first subject's name taken out."""
        return compose(self.facts)


def mask(text: str, spans: Iterable[tuple[int, int]]) -> str:
    """`text` with each span replaced by what stands for a name, from right to left."""
    for start, end in sorted(spans, reverse=True):
        text = text[:start] + templates().view.mention + text[end:]
    return text


def masked_view(fact: Fact) -> str:
    """What the fact is about without its subject's name and without its target."""
    if fact.relation:
        return templates().view.relation.format(relation=cut(fact.relation), subject=templates().view.mention)
    return _masked_prompt(cut(fact.prompt), subject_names(fact))


@lru_cache(_MASKED_PROMPTS)
def _masked_prompt(prompt: str, names: tuple[str, ...]) -> str:
    mention = Mentions(prompt).best(names)
    return mask(prompt, [(mention.start, mention.end)]) if mention and mention.named else prompt


def compose(facts: Sequence[Fact]) -> str:
    """The view of each fact put in the place of the next fact's subject."""
    return cut(_said(facts, inside=False))


def _said(facts: Sequence[Fact], *, inside: bool) -> str:
    """What the facts answer; `inside` a sentence without a capital and marks at its end."""
    *before, last = facts
    subject = _said(before, inside=True) if before else templates().view.mention
    if last.relation:
        template = templates().view.inside if inside else templates().view.relation
        return template.format(relation=cut(last.relation), subject=subject)
    view = _NAMELESS.sub(lambda _match: subject, masked_view(last), count=1)
    return view[:1].lower() + view[1:].rstrip(_MARKS) if inside else view


def expand(
    starts: Sequence[Candidate],
    facts_of_subject: FactsOfSubject,
    *,
    max_hops: int = MAX_HOPS,
    max_paths: int = 32,
) -> tuple[Path, ...]:
    """All chains of two to `max_hops` facts from `starts`, breadth first, at most `max_paths`."""
    edge = [Path(c, (c.fact,)) for c in starts]
    chains: list[Path] = []
    for _ in range(max_hops - 1):
        longer = (path for shorter in edge for path in _longer(shorter, facts_of_subject))
        edge = list(islice(longer, max_paths - len(chains)))
        chains += edge
        if not edge or len(chains) >= max_paths:
            break
    return tuple(chains)


def _longer(path: Path, facts_of_subject: FactsOfSubject) -> list[Path]:
    seen = {fact.key for fact in path.facts}
    return [
        Path(path.first, (*path.facts, n)) for n in facts_of_subject(path.end.target) if n.key not in seen
    ]
