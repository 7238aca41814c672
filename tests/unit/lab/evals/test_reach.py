"""Where ROME fails: in a world where its search can reach every target."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from lte_runtime.align.stock.split import held_out
from lte_runtime.errors import NotFound
from ops.lab.baselines import search
from ops.lab.baselines.registry import Supplies
from ops.lab.baselines.rome import RomeParams
from ops.lab.evals import reach
from tests.unit.lab.baselines import world
from tests.unit.lab.baselines.conftest import material, same_bits, supplies, weights_of
from tests.unit.lab.baselines.test_baseline_rome_memit import ROME


@pytest.mark.parametrize("steps", [0, 40])
def test_a_search_that_stops_too_soon_is_told_from_a_place_that_cannot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    rows = [
        {
            "subject": one.subject,
            "prompt": one.prompt,
            "target_new": one.target,
            "portability": {},
            "locality": {},
        }
        for one in world.EDITS
    ]
    (tmp_path / "zsre.json").write_text(json.dumps(rows), encoding="utf-8")
    given = supplies(world.random_base("llama"), tmp_path)
    before = weights_of(given.base)
    params: RomeParams = replace(ROME, prefixes=0, search=replace(ROME.search, steps=steps))
    monkeypatch.setattr(search, "tuned", lambda _supplies: {"rome": params})
    found = reach.run(tmp_path, given, limit=6)
    short = found["1-4"]
    assert short["n"] == min(6, sum(held_out(one.subject) for one in world.EDITS))
    assert short["free"] is not None
    assert short["free"] > 0.8
    assert short["vector"] == short["inserted"]
    assert (short["vector"] == short["free"]) == (steps > 0)
    assert found["9-99"] == {"n": 0, "vector": None, "inserted": None, "free": None}
    assert same_bits(given.base, before)


def test_without_a_set_it_says_so(tmp_path: Path) -> None:
    given = Supplies(world.random_base("llama"), None, material(), tmp_path)  # type: ignore[arg-type]
    with pytest.raises(NotFound, match="no KnowEdit set"):
        reach.run(tmp_path, given, limit=1)
