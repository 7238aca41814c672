"""From a question to the facts that answer it: look-up, chains, features, gate."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np

from lte_runtime.answer import chain, former
from lte_runtime.answer.budget import ENCODED_AT_ONCE, Budget
from lte_runtime.answer.chain import Path
from lte_runtime.answer.scope import features as f
from lte_runtime.answer.scope import gate
from lte_runtime.facts.keys import DEFAULT_NAMESPACE, normalise_key, view_of
from lte_runtime.names.mention import Mention
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


HOPS_FROM = 0.48
"""From here on a hop counts as asked for (mean of the cosine and the learnt one)."""


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
    """One path with its features and the gate's probability."""

    path: Path
    span: Mention | None
    features: Mapping[str, float]
    score: float


@dataclass(frozen=True, slots=True)
class PathFits:
    """Cosines of a path's view with the masked question, and how other paths compare; see `gate.FEATURES`."""

    likeness: float
    rival: float
    gain: float
    outdone: float


@dataclass(frozen=True, slots=True)
class PathFit:
    """How well paths fit a question without its name, as a whole view and hop by hop."""

    vectors: Mapping[str, Vectors]
    views: Mapping[str, Vectors]
    splits: Mapping[str, Sequence[tuple[str, str]]]
    gate: gate.GateCalibration
    _wording_fits: dict[tuple[str, str], float] = field(default_factory=dict)

    def path(self, question_text: str, path: Path) -> tuple[float, float]:
        """Likeness, and the gain over what less than the whole path would explain (0 for single facts)."""
        view_cosine = self._cosine(question_text, path.view)
        if len(path.facts) == 1:
            return view_cosine, 0.0
        by_hops = self._by_hops(question_text, path.facts)
        best_part = max(self._cosine(question_text, view) for view in path.parts)
        return max(view_cosine, by_hops), max(view_cosine - best_part, by_hops - HOPS_FROM)

    def _by_hops(self, question_text: str, facts: Sequence[Fact]) -> float:
        """The weakest hop of the best reading of `question_text` as a question about a described thing."""
        best = 0.0
        for outer, inner in self.splits.get(question_text, ()):
            description_fit = self._description_fit(inner, facts[:-1])
            best = max(best, min(self._wording_fit(outer, f.masked_view(facts[-1])), description_fit))
        return best

    def _description_fit(self, inner: str, facts: Sequence[Fact]) -> float:
        if len(facts) == 1:
            return self._wording_fit(inner, f.masked_view(facts[0]))
        return max(self._cosine(inner, chain.compose(facts)), self._by_hops(inner, facts))

    def _wording_fit(self, text: str, view: str) -> float:
        cached = self._wording_fits.get((text, view))
        if cached is not None:
            return cached
        features = self.gate.wording_features(self.vectors[text], self.views[view])
        cosine = self._cosine(text, view)
        likeness = (cosine + features.get("wording_cosine", cosine)) / 2
        self._wording_fits[text, view] = likeness
        return likeness

    def _cosine(self, text: str, view: str) -> float:
        return float(self.vectors[text] @ self.views[view])


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
    """Finds, chains and gates. Holds no state but caches of vectors; safe from several threads."""

    def __init__(
        self,
        memory: Lookup,
        encoder: Encoder,
        calibration: gate.GateCalibration,
        settings: RetrieverSettings | None = None,
    ) -> None:
        self._memory, self._gate = memory, calibration
        self._settings = settings or RetrieverSettings()
        self._views = VectorCache(encoder, self._settings.cached_views, cached_chars=f.READ_CHARS)
        self._masked = VectorCache(encoder, self._settings.cached_views, query=True)

    def read(self, text: str, budget: Budget | None = None) -> EncodedQuestion:
        """A question taken apart and encoded, which needs no memory; of a long one `features.cut` of it."""
        budget, begun = budget or Budget(), time.perf_counter()
        reading = QuestionReading(f.cut(text))
        texts = reading.text, reading.masked(None)
        budget.afford(*texts)
        vectors = self._masked.of(texts[1:], once=reading.text, check=budget.check)
        return EncodedQuestion(reading, vectors, (time.perf_counter() - begun) * 1e3)

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
        paths = self._paths(candidates.items, encoded, q.namespace, at_ms, budget)
        marks.append(time.perf_counter())
        scored = self._scored(paths, encoded, budget)
        best = best_of(scored, self._gate)
        decision = gate.decide(
            best.features if best else None, self._gate, q.scope, best.score if best else 0.0
        )
        earlier = self._earlier(q, encoded.reading, scored, decision, at_ms, budget)
        decision, citations = earlier or (decision, self._citations(best, scored, decision, at_ms))
        composed = not earlier and best is not None and _asks_beyond(encoded.reading, best)
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
        paths = self._paths(candidates.items, encoded, q.namespace, at_ms, budget)
        return self._scored(paths, encoded, budget)

    def _candidates(
        self, q: Question, encoded: EncodedQuestion, at_ms: int | None, budget: Budget
    ) -> Candidates:
        budget.check()
        text = encoded.reading.text
        return self._memory.candidates(
            text, encoded.vectors[text][None, :], namespace=q.namespace, k=self._settings.k, at_ms=at_ms
        )

    def _paths(
        self,
        candidates: Sequence[Candidate],
        encoded: EncodedQuestion,
        namespace: str,
        at_ms: int | None,
        budget: Budget,
    ) -> tuple[Path, ...]:
        """Single facts (the candidates and all others of a subject that is named) and chains from them."""
        vector = encoded.vectors[encoded.reading.text]
        most, facts_by_name = self._settings.max_siblings, dict[str, tuple[Fact, ...]]()

        def facts_of(name: str) -> tuple[Fact, ...]:
            if name not in facts_by_name:
                budget.check()
                limit = min(most, budget.keys)
                facts = self._memory.facts_of_subject(
                    name, namespace=namespace, at_ms=at_ms, limit=limit, vector=vector
                )
                budget.keys -= len({fact.key for fact in facts})
                facts_by_name[name] = facts[:most]
            return facts_by_name[name]

        singles = _with_siblings(candidates, facts_of, most)
        named = [c for c in singles if c.named]
        chains = chain.expand(named, facts_of, max_paths=self._settings.max_paths)
        return (*(Path(c, (c.fact,)) for c in singles), *chains)

    def _scored(self, paths: Sequence[Path], encoded: EncodedQuestion, budget: Budget) -> list[Scored]:
        reading = encoded.reading
        spans = [path.first.named for path in paths]
        texts = _affordable([reading.masked(span) for span in spans], reading.masked(None), budget)
        vectors = encoded.vectors | self._masked.of(set(texts) - encoded.vectors.keys(), check=budget.check)
        chained = dict.fromkeys(texts) if any(len(p.facts) > 1 for p in paths) else {}
        splits = {text: [pair for pair in chain.splits(text) if budget.afford(*pair)] for text in chained}
        halves = {half for pairs in splits.values() for split in pairs for half in split}
        vectors |= self._masked.of(halves - vectors.keys(), check=budget.check)
        views = self._views.of(
            (v for p in paths for v in (p.view, *p.parts, *map(f.masked_view, p.facts))), check=budget.check
        )
        fit = PathFit(vectors, views, splits, self._gate)
        fits_and_gains = [fit.path(text, path) for text, path in zip(texts, paths, strict=True)]
        gains = [gain for _, gain in fits_and_gains]
        chains = [(path, gain) for path, gain in zip(paths, gains, strict=True) if len(path.facts) > 1]
        outdone = [_outdone(path, chains) for path in paths]
        subquestions = [
            reworded if budget.afford(reworded) else text
            for reworded, text in zip(_subquestions(paths, spans, texts, outdone), texts, strict=True)
        ]
        vectors |= self._masked.of(set(subquestions) - vectors.keys(), check=budget.check)
        likeness = [
            like if now == text else fit.path(now, path)[0]
            for (like, _), now, text, path in zip(fits_and_gains, subquestions, texts, paths, strict=True)
        ]
        rivals = _rivals(paths, likeness)
        rows: list[dict[str, float]] = []
        wordings = self._wording_rows(paths, texts, subquestions, fit)
        for i, (path, span) in enumerate(zip(paths, spans, strict=True)):
            budget.check()
            fits = PathFits(likeness[i], rivals[i], gains[i], outdone[i])
            rows.append({**describe(reading, path, span, fits, subquestions[i]), **wordings[i]})
        scores = self._gate.probabilities(rows)
        return [Scored(*columns) for columns in zip(paths, spans, rows, scores, strict=True)]

    def _wording_rows(
        self, paths: Sequence[Path], texts: Sequence[str], subquestions: Sequence[str], fit: PathFit
    ) -> Sequence[Mapping[str, float]]:
        """By what is asked of each path; that an end or a change is asked for, the whole text tells."""
        if not paths:
            return ()
        views = np.stack([fit.views[path.view] for path in paths])
        of_subquestions = np.stack([fit.vectors[text] for text in subquestions])
        by_subquestion = self._gate.wording_rows(of_subquestions, views)
        if list(subquestions) == list(texts):
            return by_subquestion
        by_text = self._gate.wording_rows(np.stack([fit.vectors[text] for text in texts]), views)
        rows = zip(by_subquestion, by_text, strict=True)
        return [{**a, "opposite": b["opposite"]} if b else a for a, b in rows]

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
        citations: list[Citation] = []
        if len(tied) > 1:
            for s in tied:
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
        reading: QuestionReading,
        scored: Sequence[Scored],
        decision: GateDecision,
        at_ms: int | None,
        budget: Budget,
    ) -> tuple[GateDecision, tuple[Citation, ...]] | None:
        """The gate's word and the evidence where a key's earlier value is asked for; None where it is not.

        It is where words that point back are all that keeps the question from one about the current value.
        """
        if not (self._settings.history and f.backward(reading.words)) or _is_current(decision):
            return None
        named = [s for s in scored if s.span is not None and len(s.path.facts) == 1]
        nearest = max(named, key=lambda s: s.features["likeness"], default=None)
        if nearest is None or nearest.span is None:
            return None
        fact = nearest.path.end
        values = self._memory.former_values(fact, self._settings.seen_former, at_ms)
        earlier = former.earlier(reading.text, nearest.span, [fact], values)
        closed = decision.scope is Scope.BASE or q.scope is ScopeMode.EDITED
        if earlier is None or (closed and not earlier.values):
            return None
        best = self._about_current(replace(q, text=earlier.text), nearest, reading, at_ms, budget)
        if best is None:
            return None
        scope, reason = (Scope.EDITED, former.REASON) if earlier.values else (Scope.BASE, former.UNKNOWN)
        citations = former.citations(earlier.values[: self._settings.max_former], best.score)
        required_score = min(former.LIKELY, self._gate.threshold)
        return GateDecision(scope, best.score, required_score, reason, best.features), citations

    def _about_current(
        self, q: Question, nearest: Scored, reading: QuestionReading, at_ms: int | None, budget: Budget
    ) -> Scored | None:
        """The best path of `q`, where it is the fact of `nearest` and `q` asks for no more than that."""
        scored, fact = self.scored_paths(q, at_ms, budget.again()), nearest.path.end
        best = best_of(scored, self._gate)
        if best is None or len(best.path.facts) > 1 or best.path.end.key != fact.key:
            return None
        plain = QuestionReading(f.cut(q.text)).masked(best.span)
        required_score = former.required_score(
            reading.masked(nearest.span), plain, fact, nearest.path.view, self._gate.threshold
        )
        alone = len(_tied(best, scored, self._gate)) == 1
        return best if required_score is not None and best.score >= required_score and alone else None


def _keyed(q: Question) -> Question:
    """With the namespace in the form in which keys are stored."""
    return replace(q, namespace=normalise_key(q.namespace) or DEFAULT_NAMESPACE)


class QuestionReading:
    """One question taken apart."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.words = f.words(text)
        self._anchored = f.mask(text, f.anchors(text))

    def masked(self, span: Mention | None) -> str:
        """The question without the name, or without anything that looks like a name."""
        return self._anchored if span is None else f.mask(self.text, [(span.start, span.end)])


@dataclass(frozen=True, slots=True)
class EncodedQuestion:
    """A question taken apart, the vectors of its text and of the text without names, and the time it took."""

    reading: QuestionReading
    vectors: dict[str, Vectors]
    encode_ms: float


def _subquestions(
    paths: Sequence[Path], spans: Sequence[Mention | None], texts: Sequence[str], outdone: Sequence[float]
) -> list[str]:
    """What is asked of each path: the question without the name, or what it says in the fact's own words.

    That is a description in it that the fact gives, or the fact's noun for its verb. Where a longer path
    gives more of the question, that one is left to do so.
    """
    subquestions = []
    for path, span, text, longer in zip(paths, spans, texts, outdone, strict=True):
        alone = span is not None and len(path.facts) == 1 and not longer
        reworded = (chain.described(text, path.view) or f.nominal(text, path.view)) if alone else None
        subquestions.append(reworded or text)
    return subquestions


def describe(
    reading: QuestionReading, path: Path, span: Mention | None, fits: PathFits, subquestion: str | None = None
) -> dict[str, float]:
    """The features of one path, see `gate.FEATURES`; `subquestion` is what is asked of it (None: all)."""
    masked, view, first = reading.masked(span), path.view, path.facts[0]
    target = f.cut(path.end.target)
    subquestion = masked if subquestion is None else subquestion
    plain = f.cut(view_of(first.subject, first.relation, first.prompt))
    name, like = span.score if span else 0.0, fits.likeness
    return {
        "likeness": like,
        "likeness_squared": like * abs(like),
        "named_likeness": like if span else 0.0,
        "dense": path.first.dense if len(path.facts) == 1 else like,
        "name": name,
        "nameless": float(not f.names_of(first)),
        "codes": float(not span and f.codes_of(reading.text) != f.codes_of(plain)),
        "prompted": float(not first.relation),
        "prompted_dense": 0.0 if first.relation else max(0.0, path.first.dense - 0.8),
        "extended": f.extended(reading.text, span, view) if span else 0.0,
        "foreign": f.foreign(reading.text, span, (plain, view, *f.names_of(first))),
        "negation": float(f.negated(masked) != f.negated(view)),
        gate.TURNED: float(f.turned(masked, view)),
        "shift": float(f.shifted(masked) != f.shifted(view)),
        "mentioned": f.mentioned(reading.words, path.end.target),
        "kind_clash": f.kind_clash(subquestion, target),
        "shared": f.shared_words(subquestion, view),
        "swapped": f.swapped(subquestion, view),
        "rival": fits.rival,
        "hops": float(len(path.facts) - 1),
        "gain": fits.gain,
        "outdone": fits.outdone,
        f.kinds(subquestion, target): 1.0,
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


def _rivals(paths: Sequence[Path], likeness: Sequence[float]) -> list[float]:
    """For each path: how much better another fact of the same subject fits, 0 when there is none."""
    singles = [(p.end.subject, i) for i, p in enumerate(paths) if len(p.facts) == 1]
    rivals = []
    for i, path in enumerate(paths):
        others = [likeness[j] for subject, j in singles if subject == path.facts[0].subject and j != i]
        rivals.append(max(others, default=likeness[i]) - likeness[i])
    return rivals


def _outdone(path: Path, chains: Sequence[tuple[Path, float]]) -> float:
    """The gain of the best chain that begins with `path` and goes on, 0 when there is none."""
    size = len(path.facts)
    longer = (gain for p, gain in chains if len(p.facts) > size and p.facts[:size] == path.facts)
    return max(0.0, max(longer, default=0.0))


def best_of(scored: Sequence[Scored], calibration: gate.GateCalibration) -> Scored | None:
    """The likeliest path; a chain only counts when it fits better than each part of it.

    That a chain outdoes its first fact tells which of the two is asked for, not that neither is: the chosen
    chain is as likely in scope as that fact would be without it.
    """
    allowed = [s for s in scored if s.features["hops"] == 0 or s.features["gain"] >= calibration.hop_margin]
    best = max(allowed, key=lambda s: (s.score, s.features["likeness"], s.features["dense"]), default=None)
    if best is None or best.features["hops"] == 0:
        return best
    first = next((s for s in allowed if s.path.facts == best.path.facts[:1]), best)
    alone = calibration.probability({**first.features, "outdone": 0.0})
    return replace(best, score=max(best.score, alone))


def _tied(best: Scored, scored: Sequence[Scored], calibration: gate.GateCalibration) -> list[Scored]:
    """The best path and those that the same name in the question means as well: other subjects, equal fit."""
    if best.span is None or len(best.path.facts) > 1:
        return [best]
    return [best] + [
        s
        for s in scored
        if s is not best
        and s.span is not None
        and (s.span.start, s.span.end) == (best.span.start, best.span.end)
        and len(s.path.facts) == 1
        and s.path.end.subject != best.path.end.subject
        and s.score >= calibration.threshold
        and best.features["likeness"] - s.features["likeness"] <= calibration.tie_margin
    ]


def _asks_beyond(reading: QuestionReading, best: Scored) -> bool:
    """Whether the path tells only what the question describes ("the capital of the home country of it")."""
    return best.span is not None and chain.asks_beyond(reading.masked(best.span), best.path.view)


def _is_current(decision: GateDecision) -> bool:
    """Whether the gate is open and no word of time or rank stands in the question alone."""
    return decision.scope is Scope.EDITED and not decision.features.get("shift")


def _ambiguous(fact: Fact) -> Fact:
    return replace(fact, flags=(*fact.flags, "ambiguous"))
