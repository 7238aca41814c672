"""Recall@3 of the index against reading every row, on real encoded facts: filled, churned, rewritten."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lte_runtime.answer.encoder import load_encoder
from lte_runtime.facts.keys import statement_of, view_of
from lte_runtime.index.hnsw import GraphShape
from lte_runtime.index.vector_index import VectorIndex
from lte_runtime.types import Encoder, Vectors
from ops.bench.result import SEED, BenchResult, machine, today
from ops.bench.texts import events, target

BAR = ">= 0.99"
CACHE = Path(__file__).resolve().parents[2] / ".cache" / "bench"
K = 3
ARRIVED = "sorted_copies_as_they_come"
_BLOCK = 2048
Progress = Callable[[str], None]


@dataclass(frozen=True)
class RecallPlan:
    """Sizes: facts in the index, share exchanged per round, facts rewritten how often, questions asked."""

    facts: int
    rounds: int
    share: float
    rewritten: int
    times: int
    questions: int


FULL = RecallPlan(facts=100_000, rounds=5, share=0.2, rewritten=1600, times=50, questions=1000)
QUICK = RecallPlan(facts=6_000, rounds=5, share=0.2, rewritten=100, times=50, questions=300)


def run(quick: bool, progress: Progress) -> BenchResult:
    """`ours` is the worst recall of all stages; each stage's own is in `extra`."""
    plan = QUICK if quick else FULL
    recalls = stages(plan, GraphShape(), progress)
    return BenchResult(
        name="recall",
        ours=min(figure for stage, figure in recalls.items() if stage != ARRIVED),
        peer=None,
        ratio=None,
        unit="recall@3, the worst stage",
        n=plan.facts,
        bar=BAR,
        machine=machine(),
        date=today(),
        extra={
            **{f"recall_{stage}": figure for stage, figure in recalls.items()},
            "questions": plan.questions,
            "facts_rewritten": plan.rewritten,
            "times": plan.times,
        },
    )


def stages(plan: RecallPlan, shape: GraphShape, progress: Progress) -> dict[str, float]:
    """Recall by stage.

    The last stages keep all versions of the rewritten facts live, harder than any use: as they come by round,
    sorted by fact as they come, and sorted after the rebuild that the poor figure asks for.
    """
    encoder = load_encoder()
    views, questions = fact_vectors(encoder, plan, progress)
    index = VectorIndex(encoder.dimension, mode="hnsw", shape=shape)
    progress(f"filling the index with {plan.facts} facts")
    _fill(index, views[: plan.facts])
    recalls = {"filled": index.recall(questions, K)}
    recalls["churned"] = _churn(index, views, questions, plan, progress)
    del index, views
    versions = version_vectors(encoder, plan, progress)
    recalls["rewritten"] = _rewrite(versions, plan, shape, progress)
    recalls["near_copies"] = _near_copies(versions, plan, shape, progress)[0]
    by_fact = versions.reshape(plan.times, plan.rewritten, -1).swapaxes(0, 1).reshape(len(versions), -1)
    recalls[ARRIVED], recalls["sorted_copies"] = _near_copies(by_fact, plan, shape, progress)
    return recalls


def fact_vectors(encoder: Encoder, plan: RecallPlan, progress: Progress) -> tuple[Vectors, Vectors]:
    """Views of the facts, a fifth more than the index holds, and questions about the first ones."""
    drawn = list(events(int(plan.facts * (1 + plan.share)), SEED))
    views = [view_of(event["subject"], event["relation"]) for event in drawn]
    question_texts = [
        f"What is the {event['relation']} of {event['subject']}?" for event in drawn[: plan.questions]
    ]
    return (
        _encoded(encoder, views, "views", progress),
        _encoded(encoder, question_texts, "questions", progress, query=True),
    )


def version_vectors(encoder: Encoder, plan: RecallPlan, progress: Progress) -> Vectors:
    """Statements of each rewritten fact with ever another target: [rewritten * times, d], by round."""
    rng = random.Random(SEED + 1)
    drawn = list(events(plan.rewritten, SEED + 1))
    texts = [
        statement_of(event["subject"], event["relation"], "", target(rng))
        for _ in range(plan.times)
        for event in drawn
    ]
    return _encoded(encoder, texts, "versions", progress)


def _churn(
    index: VectorIndex, views: Vectors, questions: Vectors, plan: RecallPlan, progress: Progress
) -> float:
    """The worst recall over rounds that each exchange a share of the live facts."""
    rng = random.Random(SEED)
    live, spare = list(range(plan.facts)), list(range(plan.facts, len(views)))
    worst = 1.0
    for turn in range(plan.rounds):
        progress(f"churn {turn + 1} of {plan.rounds}")
        rng.shuffle(live)
        gone, live = live[: len(spare)], live[len(spare) :]
        index.remove(gone)
        for start in range(0, len(spare), _BLOCK):
            index.add(spare[start : start + _BLOCK], views[spare[start : start + _BLOCK]])
        live, spare = live + spare, gone
        worst = min(worst, index.recall(questions, K))
        _maintain(index)
    return min(worst, index.recall(questions, K))


def _rewrite(versions: Vectors, plan: RecallPlan, shape: GraphShape, progress: Progress) -> float:
    """Every fact gets a new vector `times` times, under its own id."""
    progress(f"rewriting {plan.rewritten} facts {plan.times} times")
    index = VectorIndex(versions.shape[1], mode="hnsw", shape=shape)
    for turn in range(plan.times):
        index.add(range(plan.rewritten), versions[turn * plan.rewritten : (turn + 1) * plan.rewritten])
        _maintain(index)
    return index.recall(_sample(versions, plan), K)


def _near_copies(
    versions: Vectors, plan: RecallPlan, shape: GraphShape, progress: Progress
) -> tuple[float, float]:
    """Recall as the rows have come, and after the upkeep that it asks for."""
    progress(f"{len(versions)} near copies at once")
    index = VectorIndex(versions.shape[1], mode="hnsw", shape=shape)
    _fill(index, versions, 256)
    before = index.recall(_sample(versions, plan), K)
    _maintain(index)
    return before, index.recall(_sample(versions, plan), K)


def _sample(versions: Vectors, plan: RecallPlan) -> Vectors:
    chosen = np.random.default_rng(SEED).choice(
        len(versions), min(plan.questions, len(versions)), replace=False
    )
    return np.asarray(versions[chosen], np.float32)


def _fill(index: VectorIndex, rows: Vectors, block: int = _BLOCK) -> None:
    for start in range(0, len(rows), block):
        index.add(range(start, min(start + block, len(rows))), rows[start : start + block])


def _maintain(index: VectorIndex) -> None:
    if index.needs_rebuild():
        index.rebuild(threads=2)


def _encoded(
    encoder: Encoder, texts: Sequence[str], what: str, progress: Progress, *, query: bool = False
) -> Vectors:
    """Vectors of the texts; kept under .cache/bench by encoder and content, as encoding takes longest."""
    digest = hashlib.sha256("\n".join((encoder.fingerprint, *texts)).encode()).hexdigest()[:16]
    file = CACHE / f"{what}-{digest}.npy"
    if file.is_file():
        return np.asarray(np.load(file, allow_pickle=False), np.float32)
    parts = []
    for start in range(0, len(texts), _BLOCK):
        progress(f"encoding {what}: {start} of {len(texts)}")
        parts.append(encoder.encode(texts[start : start + _BLOCK], query=query))
    rows = np.concatenate(parts)
    CACHE.mkdir(parents=True, exist_ok=True)
    np.save(file, rows, allow_pickle=False)
    return rows
