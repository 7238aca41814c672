"""The table behind docs/decisions/001-vector-index.md: shapes of the graph by recall, time and memory.

Facts are real encoded views. Near copies are groups of 50 around such a view, at cosine 0.98 to each other,
and come sorted by group; their recall is given as they come, and after a rebuild in mixed order.

`python -m ops.bench.index_grid [FACTS] [GROUPS]` prints it as Markdown.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass

import numpy as np

from lte_runtime.answer.encoder import load_encoder
from lte_runtime.index.hnsw import GraphShape
from lte_runtime.index.vector_index import VectorIndex
from lte_runtime.types import Vectors
from ops.bench.recall import QUICK, K, RecallPlan, fact_vectors
from ops.bench.result import SEED

COPIES, DISTANCE = 50, 0.14
SHAPES = (
    GraphShape(16, 100, 128),
    GraphShape(16, 200, 256),
    GraphShape(24, 200, 256),
    GraphShape(32, 100, 256),
    GraphShape(32, 200, 128),
    GraphShape(32, 200, 256),
)


@dataclass(frozen=True)
class GridRow:
    """Recall@3 before and after a rebuild, processor ms per insert and search, bytes per vector."""

    recall: float
    rebuilt: float
    insert_ms: float
    search_ms: float
    size: float


def main() -> None:
    sizes = [int(text) for text in sys.argv[1:]]
    facts, groups = (
        (*sizes, QUICK.facts, QUICK.rewritten)[:2] if len(sizes) != 1 else (sizes[0], QUICK.rewritten)
    )
    plan = RecallPlan(facts=facts, rounds=0, share=0.0, rewritten=groups, times=50, questions=1000)
    encoder = load_encoder()
    views, questions = fact_vectors(encoder, plan, _say)
    copies = near_copies(views[:groups])
    print(f"{facts} facts; {groups} groups of {COPIES} near copies\n")
    print("| M | ef build | ef search | facts | copies | copies, rebuilt | insert ms | search ms | bytes |")
    print("|---:|---:|---:|---:|---:|---:|---:|---:|---:|")
    for shape in SHAPES:
        plain, hard = measure(views, questions, shape), measure(copies, copies[:: len(copies) // 1000], shape)
        recalls = (plain.recall, hard.recall, hard.rebuilt)
        print(
            f"| {shape.links} | {shape.ef_construction} | {shape.ef_search} | "
            f"{' | '.join(f'{figure:.4f}' for figure in recalls)} | "
            f"{plain.insert_ms:.2f} | {plain.search_ms:.2f} | {plain.size:.0f} |",
            flush=True,
        )


def near_copies(centres: Vectors) -> Vectors:
    """`COPIES` rows around each centre [n, d], group by group."""
    rng = np.random.default_rng(SEED)
    noise = rng.standard_normal((len(centres), COPIES, centres.shape[1]), np.float32)
    noise *= DISTANCE / np.linalg.norm(noise, axis=2, keepdims=True)
    rows = (centres[:, None] + noise).reshape(-1, centres.shape[1])
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def measure(rows: Vectors, questions: Vectors, shape: GraphShape) -> GridRow:
    """Fill one index and ask it; times are the processor's, so that a busy machine blurs them less."""
    index = VectorIndex(rows.shape[1], mode="hnsw", shape=shape)
    begin = time.process_time()
    for start in range(0, len(rows), 256):
        index.add(range(start, min(start + 256, len(rows))), rows[start : start + 256])
    filled = time.process_time()
    for question in questions:
        index.search(question[None], K)
    searched = time.process_time()
    recall = index.recall(questions, K)
    index.rebuild()
    rebuilt = index.recall(questions, K)
    inserting, searching = (filled - begin) * 1e3 / len(rows), (searched - filled) * 1e3 / len(questions)
    return GridRow(recall, rebuilt, inserting, searching, index.nbytes / index.live)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
