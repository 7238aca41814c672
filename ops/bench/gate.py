"""What the relevance model adds to a question with eight candidates, against the same network in torch.

Ours reads the eight pairs in one batch on one core, as the gate does; no pair is met twice, so that nothing
comes from a cache. The peer is transformers' BERT of the same shape, with as many pairs of the same tokens.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import torch

from lte_runtime.answer.encoder.model_files import DEFAULT_NAMES, locate, read
from lte_runtime.answer.relevance import cross_encoder
from lte_runtime.answer.retriever import MOST_PAIRS
from lte_runtime.answer.scope.gate import default_calibration
from lte_runtime.facts.keys import view_of
from lte_runtime.templates import templates
from ops.bench.result import SEED, BenchResult, Spread, interleave, machine, percentile, today
from ops.bench.texts import events
from ops.lab.gate.train import Tokens, network

MOST_MS = 10.0
BAR = f"<= {MOST_MS:.0f} ms for {MOST_PAIRS} candidates"


def run(quick: bool, progress: Callable[[str], None]) -> BenchResult:
    """`ours` and `peer` are medians in milliseconds of a batch of `MOST_PAIRS` pairs."""
    batches, repeats = (20, 2) if quick else (100, 5)
    named = default_calibration()
    files = read(locate(DEFAULT_NAMES[0]))
    model = cross_encoder.load(Path(named.model), named.model_sha256, named.model_base)
    peer_model, tokens = network(files, frozen=0).eval(), Tokens(files)
    pairs = iter(_pairs(MOST_PAIRS * batches * (2 * repeats + 2)))
    times: list[float] = []

    def batch() -> list[tuple[str, str]]:
        return [next(pairs) for _ in range(MOST_PAIRS)]

    def timed(read_pairs: Callable[[list[tuple[str, str]]], object]) -> list[float]:
        times_ms = []
        for texts in [batch() for _ in range(batches)]:
            begin = time.perf_counter()
            read_pairs(texts)
            times_ms.append((time.perf_counter() - begin) * 1e3)
        return times_ms

    def ours() -> float:
        times.extend(timed(model.odds))
        return Spread.of(times[-batches:]).median

    def peer() -> float:
        with torch.inference_mode():
            return Spread.of(timed(lambda texts: peer_model(*tokens.batch(texts)))).median

    progress(f"{repeats} turns of {batches} batches of {MOST_PAIRS} pairs on each side")
    ours()
    peer()
    times.clear()
    pair = interleave(ours, peer, repeats, higher=False)
    return BenchResult(
        name="gate",
        ours=pair.ours.median,
        peer=pair.peer.median,
        ratio=pair.ratios.median,
        unit=f"ms for {MOST_PAIRS} pairs, p50",
        n=len(times),
        bar=BAR,
        machine=machine(),
        date=today(),
        extra={"p95_ms": percentile(times, 0.95), "ratio_spread": pair.ratios.to_json()},
    )


def _pairs(count: int) -> list[tuple[str, str]]:
    """Different questions beside the views of relations; a number in each keeps it from any cache."""
    relations = [event["relation"] for event in events(count, SEED)]
    mention = templates().view.mention
    return [
        (f"How much longer is the {relation} of {mention} known, {number}?", view_of(mention, other))
        for number, (relation, other) in enumerate(zip(relations, reversed(relations), strict=True))
    ]
