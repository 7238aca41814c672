"""FT and FT-L on tiny models of each architecture: they learn, they keep the bound, they leave no trace."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from lte_runtime.errors import Refused
from ops.lab.baselines import network
from ops.lab.baselines.base import BaselineModel
from ops.lab.baselines.ft import Descent, Ft, FtParams
from ops.lab.baselines.ft_l import FtL, FtLParams
from ops.lab.baselines.weights import WeightEditor
from tests.unit.lab.baselines.conftest import ARCHITECTURES, EDITS, same_bits, weights_of

FAST = Descent(rate=5e-3, epochs=60)


def success(editor: WeightEditor) -> float:
    """Share of the edits that hold when each is made alone."""
    held = 0
    for one in EDITS:
        editor.edit([one])
        held += all(editor.forced([(one.prompt, one.target)])[0].right)
        editor.undo()
    return held / len(EDITS)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_ft_learns_single_edits_and_undo_restores_every_bit(
    architecture: str, make_base: Callable[..., BaselineModel]
) -> None:
    base = make_base(architecture)
    before = weights_of(base)
    assert success(WeightEditor(base, Ft(FtParams(descent=FAST)))) >= 0.9
    assert same_bits(base, before)
    assert not any(value.requires_grad or value.grad is not None for value in base.model.parameters())


def test_a_batch_is_answered_freely_and_closed(make_base: Callable[..., BaselineModel]) -> None:
    editor = WeightEditor(make_base(), Ft(FtParams(descent=FAST)))
    editor.edit(EDITS[:4])
    assert editor.answer([one.prompt for one in EDITS[:4]]) == [one.target for one in EDITS[:4]]


def test_ft_touches_the_chosen_blocks_alone(make_base: Callable[..., BaselineModel]) -> None:
    base = make_base()
    before = weights_of(base)
    editor = WeightEditor(base, Ft(FtParams(layers=(1,), descent=FAST)))
    editor.edit(EDITS[:4])
    changed = {
        name for name, value in base.model.state_dict().items() if not torch.equal(value, before[name])
    }
    assert changed
    assert all(".layers.1." in name for name in changed)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_ft_l_stays_in_its_box_over_a_sequence_of_edits(
    architecture: str, make_base: Callable[..., BaselineModel]
) -> None:
    base = make_base(architecture)
    before = weights_of(base)
    tuned = network.weight(base.model, 1)
    start = tuned.detach().clone()
    bound = 2e-3
    editor = WeightEditor(base, FtL(FtLParams(layer=1, bound=bound, descent=FAST)))
    for one in EDITS[:3]:
        editor.edit([one])
    moved = (tuned - start).abs()
    # The bound is reached (the edits pull hard), and passed by no more than the rounding of the sum.
    assert bound * 0.99 <= float(moved.max()) <= bound + float(start.abs().max()) * 2**-23
    changed = [
        name for name, value in base.model.state_dict().items() if not torch.equal(value, before[name])
    ]
    assert len(changed) == 1
    editor.undo()
    assert same_bits(base, before)


def test_ft_l_with_a_wide_box_learns(make_base: Callable[..., BaselineModel]) -> None:
    wide = FtLParams(layer=1, bound=10.0, descent=FAST)
    assert success(WeightEditor(make_base(), FtL(wide))) >= 0.9


def test_the_same_seed_gives_the_same_weights(make_base: Callable[..., BaselineModel]) -> None:
    first, second = make_base(), make_base()
    for base in (first, second):
        WeightEditor(base, Ft(FtParams(descent=Descent(epochs=3, batch=2)))).edit(EDITS)
    assert same_bits(second, weights_of(first))


def test_unknown_layers_and_shapes_are_refused(make_base: Callable[..., BaselineModel]) -> None:
    base = make_base()
    with pytest.raises(Refused, match="no layer 2"):
        network.projection(base.model, 2)
    with pytest.raises(Refused, match="no MLP output projection"):
        network.projection(_nameless(base), 0)


def _nameless(base: BaselineModel) -> Any:
    """The model with its projections under another name."""
    mlp: Any
    for block in network.blocks(base.model):
        mlp = block.mlp
        mlp.squeeze = mlp.down_proj
        del mlp.down_proj
    return base.model
