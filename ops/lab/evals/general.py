"""General ability before and after alignment: perplexity on running text that no training saw.

The texts are the passages of KnowEdit's WikiBio, or lines of a file. Lower is better; `bits_per_byte` can be
compared between tokenizers.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from lte_runtime.answer import prompt
from lte_runtime.errors import NotFound
from lte_runtime.progress import Progress
from ops.lab.baselines.base import BaselineModel
from ops.lab.evals.arms import Kit

LONGEST = 256
"""Tokens of a text that are read."""


def texts(path: Path) -> list[str]:
    """Lines of a file, or the passages of `wikibio.json` in a folder; raises `NotFound` without either."""
    if path.is_dir():
        path = path / "wikibio.json"
    if not path.is_file():
        raise NotFound(f"there is no text file at {path}")
    content = path.read_text(encoding="utf-8")
    if path.suffix == ".json":
        return [record["text"] for record in json.loads(content)]
    return [line for line in content.splitlines() if line.strip()]


@torch.no_grad()
def surprise(base: BaselineModel, row: Sequence[int]) -> float:
    """Negative log-likelihood of a row of ids from its second on, in nats."""
    ids = torch.tensor(row, device=base.device)
    scores: torch.Tensor = base.model(input_ids=ids[None], use_cache=False).logits[0, :-1]
    return float(cross_entropy(scores.float(), ids[1:], reduction="sum"))


def perplexity(base: BaselineModel, passages: Sequence[str]) -> dict[str, float | int]:
    """`{"n", "tokens", "perplexity", "bits_per_byte"}` over the texts' next tokens, each text by itself."""
    most = min(LONGEST, base.context)
    rows = [ids for text in passages if len(ids := prompt.untrusted(base.tokenizer, text)[:most]) > 1]
    loss = sum(surprise(base, row) for row in rows)
    tokens = sum(len(row) - 1 for row in rows)
    size = sum(len(base.tokenizer.decode(row[1:]).encode()) for row in rows)
    return {
        "n": len(rows),
        "tokens": tokens,
        "perplexity": math.exp(loss / tokens),
        "bits_per_byte": loss / math.log(2) / size,
    }


def run(kit: Kit, path: Path, *, limit: int | None = None, progress: Progress) -> dict[str, Any]:
    """`{"methods": {"no-adapter" | "ours": {"sets": {"running text": {...}}}}}`: before and after."""
    passages = texts(path)[:limit]
    readers = {"no-adapter": kit.supplies.base} | ({"ours": kit.adapted} if kit.adapted else {})
    methods = {}
    for number, (name, reader) in enumerate(readers.items()):
        progress("running text", number, len(readers))
        methods[name] = {"sets": {"running text": perplexity(reader, passages)}}
    progress("running text", len(readers), len(readers))
    return {"methods": methods}
