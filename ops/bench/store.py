"""Durable upsert plus read-your-write of one fact, against chromadb on disk, with the same vectors given.

The vectors are those of the facts' texts, encoded beforehand: the store is measured, not the encoder, but a
graph is as deep as its data make it (rows drawn at random have no neighbours, and cost both sides more).
Both sides ask with the vector of the fact that they have just written; ours looks its name up as well.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from lte_runtime.answer.encoder import load_encoder
from lte_runtime.facts.events import EventLimits, decode
from lte_runtime.facts.keys import view_of
from lte_runtime.memory.edit_memory import EditMemory, EditMemorySettings
from lte_runtime.types import Batch, Edit, Position, RawRecord, TopicPartition, Vectors
from ops.bench.result import SEED, BenchResult, Spread, interleave, machine, percentile, today
from ops.bench.texts import events

BAR = "ratio >= 5"
Fact = Mapping[str, str]


class _Given:
    """An encoder whose vectors were made before. `last` is the newest vector [1, d]."""

    dimension = 384
    fingerprint = "bench-given"

    def __init__(self, texts: Sequence[str]) -> None:
        self._vectors = dict(zip(texts, load_encoder().encode(texts), strict=True))
        self.last: Vectors = np.zeros((1, self.dimension), np.float32)

    def encode(self, texts: Sequence[str], *, query: bool = False) -> Vectors:  # noqa: ARG002
        rows = np.stack([self._vectors[text] for text in texts])
        self.last = rows[-1:]
        return rows

    def windows(self, text: str) -> Sequence[str]:
        return (text,)


def run(quick: bool, progress: Callable[[str], None]) -> BenchResult:
    """`ours` and `peer` are the medians, in milliseconds, of one upsert and the query that finds it."""
    stock, turns, repeats = (2_000, 50, 3) if quick else (10_000, 200, 5)
    with tempfile.TemporaryDirectory() as name:
        facts = list(events(stock + turns * repeats, SEED))
        progress(f"encoding {len(facts)} facts")
        encoder = _Given([_view(fact) for fact in facts])
        progress(f"filling both stores with {stock} facts")
        ours, ours_all = _ours(Path(name) / "ours", encoder, facts, stock, turns)
        peer, peer_all = _peer(Path(name) / "peer", encoder, facts, stock, turns)
        progress("measuring in turn")
        pair = interleave(ours, peer, repeats, higher=False)
    extra = {
        "ours_spread": pair.ours.to_json(),
        "peer_spread": pair.peer.to_json(),
        "ratio_spread": pair.ratios.to_json(),
        "ours_p99": percentile(ours_all, 0.99),
        "peer_p99": percentile(peer_all, 0.99),
        "stock": stock,
    }
    return BenchResult(
        name="store",
        ours=pair.ours.median,
        peer=pair.peer.median,
        ratio=pair.ratios.median,
        unit="ms per upsert and read of it",
        n=turns * repeats,
        bar=BAR,
        machine=machine(),
        date=today(),
        extra=extra,
    )


def _view(fact: Fact) -> str:
    return view_of(fact["subject"], fact["relation"])


def _ours(
    directory: Path, encoder: _Given, facts: Sequence[Fact], stock: int, turns: int
) -> tuple[Callable[[], float], list[float]]:
    memory = EditMemory.open(directory, encoder, EditMemorySettings())
    partition = TopicPartition("bench", 0)
    values = (json.dumps(fact).encode() for fact in facts)
    offset = 0

    def push(count: int) -> Edit:
        nonlocal offset
        records = [
            RawRecord("bench", Position("bench", 0, offset + i), None, next(values), (), 1_700_000_000_000)
            for i in range(count)
        ]
        edits = tuple(decode(record, EventLimits()) for record in records)
        offset += count
        memory.apply(Batch(edits, (), {partition: offset}))
        return edits[-1]

    for start in range(0, stock, 250):
        push(min(250, stock - start))
    times: list[float] = []

    def turn() -> float:
        for _ in range(turns):
            begin = time.perf_counter()
            edit = push(1)
            question = f"What is the {edit.relation} of {edit.subject}?"
            candidates = memory.candidates(question, encoder.last, namespace="default")
            assert any(item.fact.edit_id == edit.id for item in candidates.items), "own write not read"
            times.append((time.perf_counter() - begin) * 1e3)
        return Spread.of(times[-turns:]).median

    return turn, times


def _peer(
    directory: Path, encoder: _Given, facts: Sequence[Fact], stock: int, turns: int
) -> tuple[Callable[[], float], list[float]]:
    import chromadb

    client = chromadb.PersistentClient(str(directory))
    collection = client.create_collection("facts", embedding_function=None)
    done = 0

    def push(count: int) -> tuple[str, Vectors]:
        nonlocal done
        chosen = facts[done : done + count]
        vectors = encoder.encode([_view(fact) for fact in chosen])
        ids = [f"f{done + i}" for i in range(count)]
        collection.upsert(ids=ids, embeddings=vectors, documents=[json.dumps(fact) for fact in chosen])
        done += count
        return ids[-1], vectors[-1:]

    for start in range(0, stock, 250):
        push(min(250, stock - start))
    times: list[float] = []

    def turn() -> float:
        for _ in range(turns):
            begin = time.perf_counter()
            last, vector = push(1)
            neighbours = collection.query(query_embeddings=vector, n_results=3)
            assert last in neighbours["ids"][0], "own write not read"
            times.append((time.perf_counter() - begin) * 1e3)
        return Spread.of(times[-turns:]).median

    return turn, times
