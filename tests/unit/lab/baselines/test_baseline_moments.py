"""Key statistics: against the sum by hand, and on disk."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch

from lte_runtime.errors import BadRequest
from ops.lab.baselines import moments, network
from ops.lab.baselines.base import BaselineModel

TEXTS = [(5, 9, 12, 40, 7), (8, 3), (), (77, 1, 30)] * 20


def test_the_mean_over_all_real_tokens(make_base: Callable[..., BaselineModel]) -> None:
    base = make_base()
    calls: list[tuple[str, int, int]] = []
    found = moments.estimate(base, [0, 1], TEXTS, lambda *call: calls.append(call))
    for layer in (0, 1):
        rows = [network.keys(base, [text], [layer])[layer][0] for text in TEXTS if text]
        tokens = torch.cat(rows)
        torch.testing.assert_close(found[layer], tokens.T @ tokens / len(tokens), rtol=1e-4, atol=1e-5)
    assert [done for _, done, _ in calls] == [1, 2]


def test_texts_without_a_token_are_refused(make_base: Callable[..., BaselineModel]) -> None:
    with pytest.raises(BadRequest, match="not empty"):
        moments.estimate(make_base(), [0], [()], lambda *_: None)


def test_kept_on_disk_and_made_anew_when_damaged(
    make_base: Callable[..., BaselineModel], tmp_path: Path
) -> None:
    base = make_base()
    passes: list[int] = []

    def texts() -> Sequence[Sequence[int]]:
        passes.append(1)
        return TEXTS

    def known(source: str = "a", of: BaselineModel = base) -> moments.Moments:
        return moments.Moments(of, texts, source=source, directory=tmp_path)

    first = known().get([0])[0]
    assert torch.equal(known().get([0])[0], first)
    assert len(passes) == 1
    assert sorted(known().get([0, 1])) == [0, 1]
    assert len(passes) == 2
    for path in tmp_path.glob("*layer000.safetensors"):
        path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert torch.equal(known().get([0])[0], first)
    assert len(passes) == 3
    known(source="b").get([0])
    known(of=make_base(seed=1)).get([0])
    assert len(passes) == 5
