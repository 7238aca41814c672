"""Many questions at once, against the best static batch of `transformers.generate`."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from daemon.settings import Settings
from lte_runtime.answer.engine.torch_session import left_pad
from lte_runtime.types import GenerateRequest
from ops.bench.answer import aligned_model, edited_prompts, new_answerer
from ops.bench.result import BenchResult, interleave, machine, today

AT_ONCE = 64
NEW = 12
SIZES = (64, 32, 16, 8)
BAR = "ratio >= 2"


def run(quick: bool, progress: Callable[[str], None], settings: Settings | None = None) -> BenchResult:
    """`ours` and `peer` are answers a second for 64 edited questions that come together, of at most 12
    tokens; the peer gives as many tokens as ours needed for the longest."""
    facts, repeats = (200, 1) if quick else (2_000, 5)
    settings = settings or Settings()
    with tempfile.TemporaryDirectory() as name:
        progress(f"filling the memory with {facts} facts")
        answerer, engine = new_answerer(Path(name), facts, settings)
        prompts = [prompt.token_ids for prompt in edited_prompts(answerer, engine, AT_ONCE)]
        requests = [GenerateRequest(prompt, True, NEW) for prompt in prompts]
        longest = max(len(engine.generate(request).token_ids) for request in requests)
        model = aligned_model(settings)

        def ours() -> float:
            begin = time.perf_counter()
            for future in [engine.submit(request) for request in requests]:
                future.result()
            return len(requests) / (time.perf_counter() - begin)

        progress("the best size of a static batch")
        size = max(SIZES, key=lambda size: _peer(model, prompts, longest, size))
        progress(f"{repeats} turns of {len(requests)} questions on each side")
        pair = interleave(ours, lambda: _peer(model, prompts, longest, size), repeats, higher=True)
        engine.close()
    return BenchResult(
        name="concurrency",
        ours=pair.ours.median,
        peer=pair.peer.median,
        ratio=pair.ratios.median,
        unit="answers/s, 64 at once",
        n=len(requests) * repeats,
        bar=BAR,
        machine=machine(),
        date=today(),
        extra={"engine": engine.runtime, "peer_batch": size, "ratio_spread": pair.ratios.to_json()},
    )


def _peer(model: Any, prompts: Sequence[tuple[int, ...]], new: int, size: int) -> float:
    """Answers a second in batches of `size`, rows of like length together."""
    order = sorted(prompts, key=len)
    begin = time.perf_counter()
    for start in range(0, len(order), size):
        ids, mask = left_pad(order[start : start + size], torch.device("cpu"))
        with torch.inference_mode():
            model.generate(ids, attention_mask=mask, max_new_tokens=new, min_new_tokens=new, do_sample=False)
    return len(order) / (time.perf_counter() - begin)
