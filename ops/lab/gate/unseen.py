"""The scope gate on facts that nobody trains on: `unseen.jsonl`, read for nothing but the final measurement.

No training, threshold or choice of a gate may read the file, and nothing here prints single questions: who
works on a gate must not learn what it gets wrong. A test keeps other modules from naming the file.

The file has one fact a line, written by hand without the tables of the training data:

`{"id", "language", "domain", "event": {"subject", "relation", "target"[, "subject_aliases"]},
"questions": [2 rephrasings], "near": [2 questions that no fact of the file answers]}`.

Of `near`, the first asks for the same kind of answer or with the relation's words, the second for another
matter of the same subject. 150 facts are English, 15 in each of ten domains; German, French and Spanish have
25 each.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from lte_runtime.answer.retriever import Retriever
from lte_runtime.answer.scope.gate import GateCalibration, threshold_for
from lte_runtime.errors import BadRequest
from lte_runtime.progress import Progress, silent
from lte_runtime.types import Encoder, Question, Retrieval, Scope, ScopeMode
from ops.lab.evals.tally import wilson
from ops.lab.scratch import memory_of

Figures = dict[str, Any]

FILE = Path(__file__).with_name("unseen.jsonl")
CLOSED_AT_LEAST = 0.95
"""Share of near questions that stay closed at the second threshold of the figures."""


@dataclass(frozen=True, slots=True)
class UnseenFact:
    """One line of the file."""

    id: str
    language: str
    domain: str
    event: Mapping[str, Any]
    questions: tuple[str, ...]
    near: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Judged:
    """A question with the gate's score of it, in [0, 1], and what was answered from.

    `opened` is the decision at the served threshold, `cites_right` whether it then cites the fact that the
    question asks for, `would_cite_right` whether an open gate does; both are False for near questions.
    `sure`: the answer must say the value.
    `alike`: the first of two near questions. `ms`: milliseconds that the decision took.
    """

    fact: UnseenFact
    inside: bool
    alike: bool
    score: float
    opened: bool
    cites_right: bool
    would_cite_right: bool
    ms: float
    sure: bool = False


def read(path: Path = FILE) -> list[UnseenFact]:
    """The facts of the file; `BadRequest` with the line for what is none."""
    facts = []
    for number, line in enumerate(path.read_text("utf-8").splitlines(), start=1):
        try:
            row = json.loads(line)
            questions, near = tuple(row.pop("questions")), tuple(row.pop("near"))
            facts.append(UnseenFact(questions=questions, near=near, **row))
        except (ValueError, TypeError, KeyError) as error:
            raise BadRequest(f"{path}:{number} is not a fact with questions: {error!r}") from None
    return facts


def measure(
    facts: Sequence[UnseenFact],
    encoder: Encoder,
    calibration: GateCalibration,
    progress: Progress = silent,
) -> Figures:
    """All facts go into one memory, then every question is judged as `Retrieve` judges it.

    `{"facts", "threshold", "p50_ms", "all": figures, "languages": {name: figures}, "domains": {...}}`; the
    domains are those of the English facts. See `figures`.
    """
    judged: list[Judged] = []
    questions = sum(len(fact.questions) + len(fact.near) for fact in facts)
    with memory_of([fact.event for fact in facts], encoder) as memory:
        retriever = Retriever(memory, encoder, calibration)
        for fact in facts:
            for place, text in enumerate((*fact.questions, *fact.near)):
                judged.append(_judge(retriever, fact, place, text))
                progress("unseen questions", len(judged), questions)
    english = [row for row in judged if row.fact.language == "en"]
    return {
        "facts": len(facts),
        "threshold": calibration.threshold,
        "p50_ms": round(median(row.ms for row in judged), 2),
        "all": figures(judged),
        "languages": _grouped((row.fact.language, row) for row in judged),
        "domains": _grouped((row.fact.domain, row) for row in english),
    }


def _judge(retriever: Retriever, fact: UnseenFact, place: int, text: str) -> Judged:
    """The served decision, then the same question with the gate held open, for what other thresholds give."""
    inside = place < len(fact.questions)
    begun = time.perf_counter()
    served = retriever.retrieve(Question(text), None)
    ms = (time.perf_counter() - begun) * 1e3
    held_open = retriever.retrieve(Question(text, scope=ScopeMode.EDITED), None)
    return Judged(
        fact=fact,
        inside=inside,
        alike=place == len(fact.questions),
        score=served.gate.score,
        opened=served.gate.scope is Scope.EDITED,
        cites_right=inside and _cites(served, fact),
        would_cite_right=inside and _cites(held_open, fact),
        ms=ms,
        sure=served.gate.sure,
    )


def _cites(retrieval: Retrieval, fact: UnseenFact) -> bool:
    parts = tuple(fact.event[name] for name in ("subject", "relation", "target"))
    cited = (citation.fact for citation in retrieval.citations)
    return any((f.subject, f.relation, f.target) == parts for f in cited)


def _grouped(rows: Iterable[tuple[str, Judged]]) -> dict[str, Figures]:
    groups: dict[str, list[Judged]] = {}
    for name, row in rows:
        groups.setdefault(name, []).append(row)
    return {name: figures(group) for name, group in groups.items()}


def figures(judged: Sequence[Judged]) -> Figures:
    """Shares with their 95 % intervals (Wilson) of questions and of near questions.

    `open`: opened with the right fact, `another_fact`: opened without it, `closed`: near questions left to
    the base model, `closed_alike`: those of them that ask for the same kind of answer; `sure` and
    `sure_near`: questions and near ones whose answer must say the value. All these at the served threshold;
    `open_at_95_closed` at the lowest one that keeps that share of near questions closed. `auc`: how often a
    question has a higher score than a near one.
    """
    inside = [row for row in judged if row.inside]
    near = [row for row in judged if not row.inside]
    threshold = threshold_for(
        [row.score for row in judged], [row.inside for row in judged], closed_at_least=CLOSED_AT_LEAST
    )
    return {
        "open": _share(row.cites_right for row in inside),
        "another_fact": _share(row.opened and not row.cites_right for row in inside),
        "closed": _share(not row.opened for row in near),
        "closed_alike": _share(not row.opened for row in near if row.alike),
        "sure": _share(row.cites_right and row.sure for row in inside),
        "sure_near": _share(row.sure for row in near),
        "open_at_95_closed": _share(row.would_cite_right and row.score >= threshold for row in inside),
        "threshold_at_95_closed": round(threshold, 6),
        "auc": _area([row.score for row in inside], [row.score for row in near]),
    }


def _share(outcomes: Iterable[bool]) -> Figures:
    results = list(outcomes)
    low, high = wilson(sum(results), len(results))
    return {"share": round(sum(results) / len(results), 4), "low": low, "high": high, "n": len(results)}


def _area(higher: Sequence[float], lower: Sequence[float]) -> float:
    """Area under the ROC curve: the share of pairs in the right order, ties counted half."""
    above, below = np.array(higher)[:, None], np.array(lower)
    return round(float((above > below).mean() + (above == below).mean() / 2), 4)


COLUMNS = ("group", "n", "open", "another fact", "closed", "closed, alike", "open at 95 % closed", "AUC")


def rows(result: Figures) -> list[tuple[object, ...]]:
    """The result for people, a row of `COLUMNS` for all questions, each language and each domain."""
    groups = {"all": result["all"], **result["languages"], **result["domains"]}
    keys = ("open", "another_fact", "closed", "closed_alike", "open_at_95_closed")
    return [
        (name, group["open"]["n"], *(_text(group[key]) for key in keys), f"{group['auc']:.3f}")
        for name, group in groups.items()
    ]


def _text(share: Figures) -> str:
    return f"{share['share']:.3f} ({share['low']:.2f}-{share['high']:.2f})"
