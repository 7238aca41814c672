"""The bench of a GPU on the CPU: every phase runs and counts what it says."""

from __future__ import annotations

import pytest

from lte_runtime.errors import Refused
from ops.bench import gpu

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


def test_the_tiny_shape_runs_through_all_phases() -> None:
    said: list[str] = []
    made = gpu.run(False, said.append, shape="tiny", seconds=0.4).to_json()
    assert min(made["ours"], made["peer"]) > 0
    assert made["padded_per_s"] >= made["ours"]
    assert made["budget"] == 512
    blocks = 2 * (2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 64)
    # Between no answer token and 24 of 150 with the head's weights.
    least = 4 * blocks * made["ours"] / 1e12
    assert least < made["useful_tflops"] < least + 4 * 512 * 32 * made["ours"] * 24 / 150 / 1e12
    assert made["beside_n"] > 0
    assert made["beside_p99_ms"] >= made["beside_p50_ms"] > 0
    assert len(said) == 9


def test_the_large_shape_says_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu.torch.cuda, "is_available", lambda: False)
    with pytest.raises(Refused, match="needs a GPU"):
        gpu.run(True, lambda _: None)
