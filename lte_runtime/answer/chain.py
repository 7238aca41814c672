"""Chains: a question may need several edits, the object of one being the subject of the next. Pure.

A path is one to three facts. Its view says in words what the path answers ("The leader of the maker of it"),
so that one measure compares a question with single facts and with chains alike.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice

from lte_runtime.answer.scope import features as f
from lte_runtime.types import Candidate, Fact

FactsOfSubject = Callable[[str], Sequence[Fact]]

_CACHED_SPLITS = 256  # every path of a question asks for the splits of the same few texts

MAX_HOPS = 3
"""Facts of the longest chain: the scope gate is trained on chains of up to three."""
MOST_SPLITS = 16
"""Readings of one text that are compared, each with two halves to encode. Three hops have some nine."""
MOST_SPANS = 128
"""Places of a text that are tried for a split: not every pair of an article and a pronoun is."""

# Possessive, and never begun within blanks: linear in whatever stands there.
_END = re.compile(
    r"(?<!\s)\s*+(\b(is|are|was|were)( (what|who|whom|where|when))?)?\s*+[.?:]*+\s*+$", re.IGNORECASE
)


_IT = re.compile(rf"\b{f.PLACEHOLDER}\b")
_ARTICLE = re.compile(r"\b(the|a|an)\b", re.IGNORECASE)
_CLAUSE = re.compile(r"\b(that|which|who|whom|whose|where)\b", re.IGNORECASE)
_OF_IT = re.compile(rf"\bof {f.PLACEHOLDER}\b|\b{f.PLACEHOLDER}['’]s?\b", re.IGNORECASE)
_IS_IT = re.compile(
    rf"\b(is|are|was|were) {f.PLACEHOLDER}\b(?!['’])|\b{f.PLACEHOLDER} (is|are|was|were)\b", re.IGNORECASE
)
_POSSESSIVE = re.compile(rf"(?<=\b{f.PLACEHOLDER})['’]s?\b")
_OWNED = re.compile(r"['’]s?( \w+){1,3}?(?=['’?.]|\s+\w+ed\b|$)")


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

    @property
    def parts(self) -> tuple[str, ...]:
        """Views of the path with one hop left out: what a question about less than the chain is like."""
        if len(self.facts) == 1:
            return ()
        return tuple(compose(self.facts[:i] + self.facts[i + 1 :]) for i in range(len(self.facts)))


def compose(facts: Sequence[Fact]) -> str:
    """The view of each fact put in the place of the next fact's subject."""
    view = f.masked_view(facts[0])
    for fact in facts[1:]:
        view = _IT.sub(_phrase(view), f.masked_view(fact), count=1)
    return f.cut(view)


def _phrase(view: str) -> str:
    """A view as part of a sentence: no capital, no copula or mark at its end."""
    cut = _END.sub("", view)
    return (cut[:1].lower() + cut[1:]).replace("\\", "")


@lru_cache(_CACHED_SPLITS)
def splits(question: str) -> tuple[tuple[str, str], ...]:
    """Ways to read a question without its name as one about a described thing: (outer, description) pairs.

    "Who leads the company that makes it?" is "Who leads it?" of "the company that makes it". A description
    begins with an article and ends with the pronoun, or is the pronoun's possession ("it's author"); what is
    left must still ask for something, so "Where is the head office of it?" is not split.
    """
    spans = islice(_described_spans(question), MOST_SPANS)
    halves = ((f"{question[:a]}{f.PLACEHOLDER}{question[b:]}", question[a:b]) for a, b in spans)
    return tuple(islice(dict.fromkeys(half for half in halves if f.content_words(half[0])), MOST_SPLITS))


def _described_spans(question: str) -> Iterator[tuple[int, int]]:
    """Where in `question` a description may stand."""
    end = len(question.rstrip(" ?.!"))
    articles = [match.start() for match in _ARTICLE.finditer(question)]
    clauses = [match.span() for match in _CLAUSE.finditer(question)]
    for place in _IT.finditer(question):
        starts = [start for start in articles if start < place.start()]
        yield from ((start, place.end()) for start in starts)
        clause = max((a for a, b in clauses if b <= place.start()), default=-1)
        yield from ((start, end) for start in starts if start <= clause)
        owned = _OWNED.match(question, place.end())
        if owned:
            yield place.start(), owned.end()


def described(question: str, view: str) -> str | None:
    """The description in `question`, without names, that says what `view` does; None for none.

    "What is the currency of the home country of it?" asks for something of "the home country of it": who
    answers needs that fact, and what it leads to is left to what the model knows.
    """
    view_words = set(f.content_words(view))
    descriptions = (
        inner
        for outer, inner in splits(question)
        if _OF_IT.search(outer) and set(f.content_words(inner)) == view_words
    )
    return next(descriptions, None) if view_words else None


def asks_beyond(question: str, view: str) -> bool:
    """Whether `question`, without names, asks for more of what it describes in the words of `view`.

    "Which language is spoken in the home country of it?" does. "Which company is the maker of it?" and "Tell
    me the maker of it" ask for the maker itself.
    """
    view_words = set(f.content_words(view))
    outers = (
        outer
        for outer, inner in splits(question)
        if view_words and set(f.content_words(_POSSESSIVE.sub("", inner))) == view_words
    )
    return any(
        not _IS_IT.search(outer) and (_OF_IT.search(outer) or len(f.content_words(outer)) > 1)
        for outer in outers
    )


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
