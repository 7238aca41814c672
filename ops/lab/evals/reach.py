"""Where ROME fails on single edits: in the search for the value, in writing it, or in what any value can say.

For each edit three shares of the target's tokens that are the likeliest: with the searched vector itself
added at the place, after the closed form has written it into the weights, and with the vector of a search
that nothing bounds. What the last misses, no rank-one change at that place can say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from lte_runtime.align.stock.split import held_out
from lte_runtime.errors import NotFound
from lte_runtime.progress import Progress, silent
from lte_runtime.scoring import mean
from ops.lab.baselines import base as reading
from ops.lab.baselines import search
from ops.lab.baselines.base import BaselineModel
from ops.lab.baselines.closed_form import factor
from ops.lab.baselines.network import steered, weight
from ops.lab.baselines.protocol import EditRequest
from ops.lab.baselines.registry import Supplies
from ops.lab.baselines.rome import RomeParams, associate, insert
from ops.lab.baselines.search import share
from ops.lab.baselines.subject import sampled_prefixes, views
from ops.lab.baselines.value import find_delta
from ops.lab.baselines.weights import OriginalWeights
from ops.lab.evals.compare import RUNNING, Result
from ops.lab.evals.knowedit import SETS, read

FREE: dict[str, Any] = {"steps": 600, "rate": 0.3, "clamp": 40.0, "kl": 0.0, "decay": 0.0}
"""Of `ValueSearch`: as far as it can go."""
SHARES = ("vector", "inserted", "free")
LENGTHS = ((1, 4), (5, 8), (9, 99))
"""Tokens of a target, from and to."""

Row = Mapping[str, float]


def run(data: Path, supplies: Supplies, limit: int, progress: Progress = silent) -> Result:
    """`{"1-4": {"n", "vector", "inserted", "free"}, ...}` by the target's tokens: `limit` edits a set.

    Raises `NotFound` when no set is in the folder.
    """
    names = [name for name in SETS if name != RUNNING and (data / f"{name}.json").is_file()]
    if not names:
        raise NotFound(f"no KnowEdit set in {data}")
    base, params = supplies.base, search.tuned(supplies).get("rome", RomeParams())
    root = factor(supplies.moments.get([params.layer])[params.layer], params.damping)
    prefixes = sampled_prefixes(base, params.prefixes, params.prefix_tokens, params.seed)
    rows: list[Row] = []
    for name in names:
        records = [record for record in read(data / f"{name}.json") if held_out(record.subject)][:limit]
        for done, record in enumerate(records, start=1):
            request = EditRequest(record.subject, record.prompt, record.target)
            rows.append(reached(base, request, prefixes, params, root))
            progress(name, done, len(records))
    return {f"{low}-{high}": _summed(rows, low, high) for low, high in LENGTHS}


def _summed(rows: Sequence[Row], low: int, high: int) -> dict[str, float | None]:
    selected = [row for row in rows if low <= row["tokens"] <= high]
    return {"n": len(selected), **{name: mean(row[name] for row in selected) for name in SHARES}}


def reached(
    base: BaselineModel, request: EditRequest, prefixes: Sequence[str], params: RomeParams, root: Tensor
) -> Row:
    """The three shares of one edit, and its target's tokens; the weights are as they were afterwards."""
    sample = reading.sample(base, request.prompt, request.target, end=False)
    seen = views(base, request, prefixes, end=params.end, place=params.place)
    association = associate(base, request, prefixes, params)
    free = find_delta(base, params.layer, seen, replace(params.search, **FREE))

    def right() -> float:
        return share(reading.forced(base, [sample])[0])

    row: dict[str, float] = {"tokens": len(sample.target)}
    for name, delta in (("vector", association.residual), ("free", free)):
        with steered(base, params.layer, seen.places[:1], delta):
            row[name] = right()
    originals = OriginalWeights()
    originals.keep([weight(base.model, params.layer)])
    insert(base, params.layer, association, root)
    row["inserted"] = right()
    originals.restore()
    return row
