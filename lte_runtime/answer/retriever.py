"""From a question to the facts that answer it: look-up, relevance model, chains, gate."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from lte_runtime.answer import chain, former, name_claims
from lte_runtime.answer.budget import ENCODED_AT_ONCE, Budget
from lte_runtime.answer.chain import Path
from lte_runtime.answer.excerpt import READ_CHARS, cut
from lte_runtime.answer.relevance.load import relevance_of
from lte_runtime.answer.relevance.protocol import ASKS, BEYOND, EARLIER, Relevance
from lte_runtime.answer.scope import gate
from lte_runtime.facts.keys import DEFAULT_NAMESPACE
from lte_runtime.facts.subject_names import subject_names
from lte_runtime.names.mention import Mention, Mentions
from lte_runtime.names.normalise import key_form
from lte_runtime.names.tokens import digits, folded_name
from lte_runtime.types import (
    Candidate,
    Candidates,
    Cardinality,
    Citation,
    Encoder,
    Fact,
    Former,
    GateDecision,
    Question,
    Retrieval,
    Scope,
    ScopeMode,
    Vectors,
)


class Lookup(Protocol):
    """What the retriever needs of the edit memory."""

    def candidates(
        self, question: str, vector: Vectors | None, *, namespace: str, k: int = 8, at_ms: int | None = None
    ) -> Candidates: ...

    def facts_of_subject(
        self,
        name: str,
        *,
        namespace: str,
        at_ms: int | None = None,
        limit: int | None = None,
        vector: Vectors | None = None,
    ) -> tuple[Fact, ...]: ...

    def members_beside(
        self, fact: Fact, limit: int, at_ms: int | None = None
    ) -> tuple[tuple[Fact, ...], int]: ...

    def former_values(self, fact: Fact, limit: int, at_ms: int | None = None) -> tuple[Former, ...]: ...


MOST_PAIRS = 8
"""Pairs of a question and a view that the relevance model reads in one batch, those of the best cosines."""
NAMELESS_FROM = 0.4
"""Cosine from which a fact without a name is compared with the question at all."""


@dataclass(frozen=True, slots=True)
class RetrieverSettings:
    """`k` candidates per look-up; at most `max_paths` chains are compared.

    `max_siblings` bounds the keys that are read of one subject, and the facts that all subjects of a question
    together add to the candidates.
    `max_members` values of a set are put into the prompt and cited. With `history`, questions for an earlier
    value get `max_former` of them (small models confuse two), of the `seen_former` among which a question may
    name one.
    """

    k: int = 8
    max_paths: int = 32
    max_siblings: int = 64
    cached_views: int = 8192
    max_members: int = 16
    history: bool = True
    max_former: int = 1
    seen_former: int = 32


@dataclass(frozen=True, slots=True)
class Scored:
    """One path with its signals and the gate's probabilities.

    `score`: that what the path tells is asked for; `earlier`: a value that its fact had before; `beyond`:
    something else of what it tells.
    """

    path: Path
    signals: Mapping[str, float]
    score: float
    earlier: float
    beyond: float

    @property
    def mention(self) -> Mention | None:
        """Where the question names the subject of the path's first fact."""
        return self.path.first.named

    @property
    def hops(self) -> int:
        return len(self.path.facts)


_CACHED_CHARS = 256  # long texts come from outside, and would let a caller fill the memory


def _no_check() -> None: ...


class VectorCache:
    """Vectors of texts without names, the least recently used dropped; safe from several threads.

    Texts of more than `cached_chars` characters are not cached.
    """

    def __init__(
        self, encoder: Encoder, size: int, *, query: bool = False, cached_chars: int = _CACHED_CHARS
    ) -> None:
        self._encoder, self._size, self._query, self._cached_chars = encoder, size, query, cached_chars
        self._vectors: OrderedDict[str, Vectors] = OrderedDict()
        self._lock = threading.Lock()

    def of(
        self, texts: Iterable[str], once: str | None = None, check: Callable[[], None] = _no_check
    ) -> dict[str, Vectors]:
        """Vector [dimension] of each text and of `once`, which is not cached.

        Unknown ones go to the encoder in calls of `ENCODED_AT_ONCE`, with `check` before each.
        """
        unique_texts = list(dict.fromkeys(texts if once is None else (*texts, once)))
        with self._lock:
            vectors = {t: self._vectors[t] for t in unique_texts if t in self._vectors}
        missing = [t for t in unique_texts if t not in vectors]
        for start in range(0, len(missing), ENCODED_AT_ONCE):
            check()
            part = missing[start : start + ENCODED_AT_ONCE]
            vectors |= dict(zip(part, self._encoder.encode(part, query=self._query), strict=True))
        self._store({t: v for t, v in vectors.items() if t != once and len(t) <= self._cached_chars})
        return vectors

    def _store(self, vectors: Mapping[str, Vectors]) -> None:
        with self._lock:
            for text, vector in vectors.items():
                self._vectors[text] = vector
                self._vectors.move_to_end(text)
            while len(self._vectors) > self._size:
                self._vectors.popitem(last=False)


class Retriever:
    """Finds, chains and gates. Holds no state but caches; safe from several threads.

    `relevance` is the one that the calibration names, unless it is given.
    """

    def __init__(
        self,
        memory: Lookup,
        encoder: Encoder,
        calibration: gate.GateCalibration,
        settings: RetrieverSettings | None = None,
        relevance: Relevance | None = None,
    ) -> None:
        self._memory, self._gate = memory, calibration
        self._relevance = relevance or relevance_of(calibration)
        self._settings = settings or RetrieverSettings()
        self._views = VectorCache(encoder, self._settings.cached_views, cached_chars=READ_CHARS)
        self._masked = VectorCache(encoder, self._settings.cached_views, query=True)

    def read(self, text: str, budget: Budget | None = None) -> EncodedQuestion:
        """A question encoded, which needs no memory; of a long one `excerpt.cut` of it."""
        budget, begun = budget or Budget(), time.perf_counter()
        excerpt = cut(text)
        budget.afford(excerpt)
        vectors = self._masked.of((), once=excerpt, check=budget.check)
        return EncodedQuestion(excerpt, vectors, (time.perf_counter() - begun) * 1e3)

    def retrieve(
        self,
        q: Question,
        at_ms: int | None,
        encoded: EncodedQuestion | None = None,
        budget: Budget | None = None,
    ) -> Retrieval:
        """Facts for `q` as valid at `at_ms` (None = now), the gate's word, and milliseconds per stage.

        `encoded` is what `read` made of its text, with the same `budget`; raises what `Budget.check` raises.
        """
        budget = budget or Budget()
        q, encoded = _keyed(q), encoded or self.read(q.text, budget)
        marks = [time.perf_counter()]
        candidates = self._candidates(q, encoded, at_ms, budget)
        marks.append(time.perf_counter())
        subjects = self._subjects(encoded, q.namespace, at_ms, budget)
        singles = _with_siblings(candidates.items, subjects.facts_of, self._settings.max_siblings)
        marks.append(time.perf_counter())
        comparable = singles if q.scope is ScopeMode.EDITED else [c for c in singles if _is_near(c, q.text)]
        scored = self._scored_paths(comparable, subjects, encoded, budget)
        best = best_of(scored, self._gate)
        decision = gate.decide(
            best.signals if best else None, self._gate, q.scope, best.score if best else 0.0
        )
        earlier = self._earlier(q, encoded, scored, decision, at_ms)
        decision, citations = earlier or (decision, self._citations(best, scored, decision, at_ms))
        citations = tuple(map(name_claims.marked, citations))
        composed = not earlier and best is not None and self._tells_a_part(best)
        marks.append(time.perf_counter())
        stages = zip(("search", "chain", "gate"), marks, marks[1:], strict=False)
        stage_ms = {"encode": encoded.encode_ms, **{name: (b - a) * 1e3 for name, a, b in stages}}
        return Retrieval(citations, decision, candidates, stage_ms, composed)

    def scored_paths(
        self, q: Question, at_ms: int | None = None, budget: Budget | None = None
    ) -> list[Scored]:
        """All paths that the gate compares for `q`: what calibration learns from."""
        budget = budget or Budget()
        q, encoded = _keyed(q), self.read(q.text, budget)
        candidates = self._candidates(q, encoded, at_ms, budget)
        subjects = self._subjects(encoded, q.namespace, at_ms, budget)
        singles = _with_siblings(candidates.items, subjects.facts_of, self._settings.max_siblings)
        comparable = [c for c in singles if _is_near(c, q.text)]
        return self._scored_paths(comparable, subjects, encoded, budget)

    def _candidates(
        self, q: Question, encoded: EncodedQuestion, at_ms: int | None, budget: Budget
    ) -> Candidates:
        budget.check()
        vector = encoded.vector[None, :]
        return self._memory.candidates(
            encoded.text, vector, namespace=q.namespace, k=self._settings.k, at_ms=at_ms
        )

    def _subjects(
        self, encoded: EncodedQuestion, namespace: str, at_ms: int | None, budget: Budget
    ) -> Subjects:
        def facts_of(name: str, limit: int) -> tuple[Fact, ...]:
            return self._memory.facts_of_subject(
                name, namespace=namespace, at_ms=at_ms, limit=limit, vector=encoded.vector
            )

        return Subjects(facts_of, self._settings.max_siblings, budget)

    def _scored_paths(
        self, singles: Sequence[Candidate], subjects: Subjects, encoded: EncodedQuestion, budget: Budget
    ) -> list[Scored]:
        """Single facts, and chains where these do not answer: none of them is what is asked for, or more is
        asked of what one of them tells."""
        scored = self._scored([Path(c, (c.fact,)) for c in singles], encoded, budget)
        named = sorted((s for s in scored if s.mention), key=lambda s: -s.beyond)
        is_answered = any(s.score >= self._gate.threshold for s in scored)
        if not named or (is_answered and named[0].beyond < self._gate.beyond_from):
            return scored
        starts = [s.path.first for s in named]
        chains = chain.expand(starts, subjects.facts_of, max_paths=self._settings.max_paths)
        return scored + self._scored(chains, encoded, budget)

    def _scored(self, paths: Sequence[Path], encoded: EncodedQuestion, budget: Budget) -> list[Scored]:
        """The paths of the best cosines as the relevance model and the gate see them, see `MOST_PAIRS`."""
        if not paths:
            return []
        texts = _affordable([masked(encoded.text, path.first.named) for path in paths], encoded.text, budget)
        vectors = encoded.vectors
        vectors.update(self._masked.of(set(texts) - vectors.keys(), check=budget.check))
        views = self._views.of((path.view for path in paths), check=budget.check)
        likeness = [float(vectors[text] @ views[path.view]) for text, path in zip(texts, paths, strict=True)]
        nearest = sorted(range(len(paths)), key=lambda place: -likeness[place])
        pairs = [(texts[place], paths[place].view) for place in nearest]
        read = set(list(dict.fromkeys(pairs))[:MOST_PAIRS])
        chosen = [(place, pair) for place, pair in zip(nearest, pairs, strict=True) if pair in read]
        budget.check()
        odds = self._relevance.odds([pair for _, pair in chosen]).tolist()
        mentions = Mentions(encoded.text)
        return [
            self._weighed(encoded.text, paths[place], likeness[place], row, mentions)
            for (place, _), row in zip(chosen, odds, strict=True)
        ]

    def _weighed(
        self, text: str, path: Path, likeness: float, odds: Sequence[float], mentions: Mentions
    ) -> Scored:
        signals = _signals(text, path, likeness, odds, mentions)
        own = 0.0 if signals["inside"] else 1.0  # a longer name is another subject's
        earlier, beyond = (own * gate.probability(odds[head]) for head in (EARLIER, BEYOND))
        return Scored(path, signals, self._gate.probability(signals), earlier, beyond)

    def _tells_a_part(self, best: Scored) -> bool:
        """Whether the gate is open for what the path describes, and more is asked for than it tells."""
        return (
            best.beyond >= self._gate.beyond_from
            and self._gate.probability(best.signals) < self._gate.threshold
        )

    def _citations(
        self,
        best: Scored | None,
        scored: Sequence[Scored],
        decision: GateDecision,
        at_ms: int | None,
    ) -> tuple[Citation, ...]:
        if best is None or decision.scope is Scope.BASE:
            return ()
        tied = _tied(best, scored, self._gate)
        ends = [s.path.end for s in tied]
        best, *others = [s for s in tied if not name_claims.takes_subject(s.path.end, ends)] or tied
        citations: list[Citation] = []
        if others:
            for s in (best, *others):
                members, total = self._members(s.path.end, at_ms)
                citations += [Citation(_ambiguous(m), s.score, 1, total) for m in members]
            return tuple(citations)
        for hop, fact in enumerate(best.path.facts, start=1):
            members, total = self._members(fact, at_ms)
            if hop == 1 and best.path.first.ambiguous:
                members = [_ambiguous(member) for member in members]
            citations += [Citation(m, best.score, hop, total) for m in members]
        return tuple(citations)

    def _members(self, fact: Fact, at_ms: int | None) -> tuple[Sequence[Fact], int]:
        """The current facts of the same key, at most `max_members`, and how many there are."""
        if fact.cardinality is Cardinality.ONE:
            return [fact], 1
        members, total = self._memory.members_beside(fact, self._settings.max_members, at_ms)
        return (members, total) if members else ((fact,), 1)

    def _earlier(
        self,
        q: Question,
        encoded: EncodedQuestion,
        scored: Sequence[Scored],
        decision: GateDecision,
        at_ms: int | None,
    ) -> tuple[GateDecision, tuple[Citation, ...]] | None:
        """The gate's word and the evidence where a key's earlier value is asked for; None where it is not."""
        named = [s for s in scored if s.mention is not None and s.hops == 1]
        likeliest = max(named, key=lambda s: s.earlier, default=None)
        if not self._settings.history or likeliest is None or likeliest.mention is None:
            return None
        if likeliest.earlier < self._gate.earlier_from or likeliest.earlier <= decision.score:
            return None
        values = self._memory.former_values(likeliest.path.end, self._settings.seen_former, at_ms)
        values = former.earlier(encoded.text, likeliest.mention, likeliest.path.end, values)
        closed = decision.scope is Scope.BASE or q.scope is ScopeMode.EDITED
        if closed and not values:
            return None
        scope, reason = (Scope.EDITED, former.REASON) if values else (Scope.BASE, former.UNKNOWN)
        citations = former.citations(values[: self._settings.max_former], likeliest.earlier)
        decision = GateDecision(scope, likeliest.earlier, self._gate.earlier_from, reason, likeliest.signals)
        return decision, citations


class Subjects:
    """The facts of subjects by their name, each read once, within the budget of one question."""

    def __init__(self, read: Callable[[str, int], tuple[Fact, ...]], most: int, budget: Budget) -> None:
        self._read, self._most, self._budget = read, most, budget
        self._facts: dict[str, tuple[Fact, ...]] = {}

    def facts_of(self, name: str) -> tuple[Fact, ...]:
        """At most `most` facts that bear the name."""
        if name not in self._facts:
            self._budget.check()
            facts = self._read(name, min(self._most, self._budget.keys))
            self._budget.keys -= len({fact.key for fact in facts})
            self._facts[name] = facts[: self._most]
        return self._facts[name]


def _keyed(q: Question) -> Question:
    """With the namespace in the form in which keys are stored."""
    return replace(q, namespace=key_form(q.namespace) or DEFAULT_NAMESPACE)


@dataclass(frozen=True, slots=True)
class EncodedQuestion:
    """What is read of a question, its vector [dimension] and that of it without a name, and the time."""

    text: str
    vectors: dict[str, Vectors]
    encode_ms: float

    @property
    def vector(self) -> Vectors:
        return self.vectors[self.text]


def masked(text: str, mention: Mention | None) -> str:
    """The question without the name; as it is where it names nothing."""
    return chain.mask(text, [(mention.start, mention.end)]) if mention else text


def _is_near(candidate: Candidate, text: str) -> bool:
    """Whether the question names the fact's subject, or may be about a fact that has no name."""
    is_nameless = not subject_names(candidate.fact) and candidate.dense >= NAMELESS_FROM
    return candidate.named is not None or is_nameless or _is_verbatim(candidate.fact, text)


def _is_verbatim(fact: Fact, text: str) -> bool:
    return bool(fact.prompt) and folded_name(fact.prompt) == folded_name(text)


def _signals(
    text: str, path: Path, likeness: float, odds: Sequence[float], mentions: Mentions
) -> dict[str, float]:
    """What the gate weighs, see `gate.SIGNALS`."""
    first, mention = path.facts[0], path.first.named
    nameless = not subject_names(first)
    target = mentions.of(cut(path.end.target))
    tells_target = (
        target is not None and target.named and not (mention and target.overlaps(mention.start, mention.end))
    )
    return {
        "asks": odds[ASKS] / gate.ODDS_SCALE,
        "likeness": likeness,
        "name": mention.score if mention else float(_is_verbatim(first, text)),
        "inside": float(mention is not None and mention.inside),
        "nameless": float(nameless),
        "codes": float(nameless and digits(text) != digits(first.prompt)),
        "prompted": float(not first.relation),
        "mentioned": float(tells_target),
        "hops": float(len(path.facts) - 1),
        gate.EARLIER: odds[EARLIER] / gate.ODDS_SCALE,
        gate.BEYOND: odds[BEYOND] / gate.ODDS_SCALE,
    }


def _with_siblings(
    candidates: Sequence[Candidate], facts_of: chain.FactsOfSubject, most: int
) -> list[Candidate]:
    """`candidates`, one per key, and at most `most` other facts of the subjects that the question names."""
    singles = {c.fact.key: c for c in reversed(candidates)}
    named = {c.fact.subject: c for c in candidates if c.fact.subject and c.named}
    most += len(singles)
    for subject, candidate in named.items():
        if len(singles) >= most:
            break
        for fact in facts_of(subject):
            if fact.key not in singles and len(singles) < most:
                singles[fact.key] = _sibling(candidate, fact)
    return list(singles.values())


def _sibling(candidate: Candidate, fact: Fact) -> Candidate:
    """A fact beside a candidate: what names the subject names it too, but not another one that bears the
    subject's name as an alias."""
    same = fact.key.subject == candidate.fact.key.subject
    return replace(candidate, fact=fact, mention=candidate.mention if same else None)


def _affordable(texts: Sequence[str], instead: str, budget: Budget) -> list[str]:
    """`texts`, with `instead` for each that is one too many to encode."""
    affordable = budget.affordable(texts)
    return [text if text in affordable else instead for text in texts]


def best_of(scored: Sequence[Scored], calibration: gate.GateCalibration) -> Scored | None:
    """The path that the gate decides on.

    A path whose `beyond` is likely tells only a part of what is asked: a longer one is preferred where one
    answers, and where none does, the longest that leads there counts as likely as that.
    """
    best = max(scored, key=lambda s: (s.score, s.signals["asks"]), default=None)
    leading = [s for s in scored if s.mention and s.beyond >= calibration.beyond_from]
    if best is None or not leading:
        return best
    partial = {s.path.facts for s in leading}
    longer = [s for s in scored if s.score >= calibration.threshold and _goes_on(s.path.facts, partial)]
    if longer:
        return max(longer, key=lambda s: s.score)
    if best.score >= calibration.threshold:
        return best
    last = max(leading, key=lambda s: (s.hops, s.beyond))
    return replace(last, score=max(last.beyond, calibration.threshold))


def _goes_on(facts: tuple[Fact, ...], partial: set[tuple[Fact, ...]]) -> bool:
    return any(facts[:size] in partial for size in range(1, len(facts)))


def _tied(best: Scored, scored: Sequence[Scored], calibration: gate.GateCalibration) -> list[Scored]:
    """The best path and those that the same name in the question means as well: other subjects, equal fit.

    Subjects that are called so come before those that only have it as an alias: a model that reads several
    facts mostly answers from the first, and anybody can publish an alias.
    """
    if best.mention is None or best.hops > 1:
        return [best]
    place, margin = (best.mention.start, best.mention.end), calibration.tie_margin / gate.ODDS_SCALE
    tied = [best] + [
        s
        for s in scored
        if s.mention is not None
        and (s.mention.start, s.mention.end) == place
        and s.hops == 1
        and s.path.end.subject != best.path.end.subject
        and s.score >= calibration.threshold
        and best.signals["asks"] - s.signals["asks"] <= margin
    ]
    return sorted(tied, key=_by_alias)


def _by_alias(scored: Scored) -> bool:
    """Whether the question names the subject by another name than its own."""
    return scored.mention is None or folded_name(scored.path.end.subject) != scored.mention.name


def _ambiguous(fact: Fact) -> Fact:
    return replace(fact, flags=(*fact.flags, name_claims.AMBIGUOUS))
