"""MEND against its equations, on tiny models of each architecture."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor

from ops.lab.baselines import base as reading
from ops.lab.baselines import mend
from ops.lab.baselines.base import BaselineModel, Sample
from ops.lab.baselines.low_rank import Factors, changed, mlp_places
from ops.lab.baselines.mend import Hypernetwork, Mend, MendParams, MendTraining
from ops.lab.baselines.weights import WeightEditor
from tests.unit.lab.baselines.conftest import ARCHITECTURES, EDITS, material, same_bits, weights_of

SHORT = MendTraining(
    blocks=1, rank=8, steps=30, batch=6, calibration=16, rate=2e-3, first_step=1e-3, edit=1.0
)


def row(base: BaselineModel, number: int = 0) -> Sample:
    return reading.sample(base, EDITS[number].prompt, EDITS[number].target, end=True)


def untrained(base: BaselineModel) -> Hypernetwork:
    """Normalised by what it sees here, with matrices that do something."""
    places = mlp_places(base.model, 1)
    network = Hypernetwork(places, SHORT)
    inputs, deltas = mend.gradients(base, places, [row(base, number) for number in range(4)])
    network.normalise_by(
        {p.name: torch.cat([inputs[p.name], deltas[p.name]], -1).flatten(0, 1) for p in places}
    )
    with torch.no_grad():
        for name, value in network.named_parameters():
            if name.endswith((".u1", ".u2")):
                value.normal_(0.0, 0.1)
    return network.requires_grad_(False)


def edits_of(
    base: BaselineModel, network: Hypernetwork, number: int = 0
) -> tuple[Mapping[str, Tensor], dict[str, Factors]]:
    places = mlp_places(base.model, 1)
    inputs, deltas = mend.gradients(base, places, [row(base, number)])
    return deltas, network(inputs, deltas)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_inputs_and_deltas_are_the_gradient_taken_apart(
    architecture: str, make_base: Callable[..., BaselineModel]
) -> None:
    base = make_base(architecture)
    places, asked = mlp_places(base.model, 1), row(base)
    inputs, deltas = mend.gradients(base, places, [asked])
    for place in places:
        place.weight.requires_grad_(True)
    reading.losses(reading.logits(base, [(*asked.prompt, *asked.target)]), [asked]).sum().backward()
    for place in places:
        whole = torch.einsum("btn,btm->nm", deltas[place.name], inputs[place.name])
        found = place.weight.grad
        assert found is not None
        torch.testing.assert_close(found.T if place.turned else found, whole, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("architecture", ["llama", "qwen2"])
def test_the_edit_is_of_rank_one_for_each_token(
    architecture: str, make_base: Callable[..., BaselineModel]
) -> None:
    base = make_base(architecture)
    deltas, changes = edits_of(base, untrained(base))
    for name, change in changes.items():
        tokens = int((deltas[name].abs().amax(-1) > 0).sum())
        each = torch.einsum("tn,tm->tnm", change.outputs[0], change.inputs[0]).double()
        ranks = [int(torch.linalg.matrix_rank(one, rtol=1e-5)) for one in each]
        assert max(ranks) == 1
        assert sum(ranks) == tokens
        torch.testing.assert_close(each.sum(0), change.total().double(), rtol=1e-4, atol=1e-6)


def test_an_untouched_network_is_the_identity(make_base: Callable[..., BaselineModel]) -> None:
    """Section 3.2: it begins as a step along the normalised gradient."""
    base = make_base()
    places = mlp_places(base.model, 1)
    network = Hypernetwork(places, SHORT).requires_grad_(False)
    inputs, deltas = mend.gradients(base, places, [row(base)])
    for name, change in network(inputs, deltas).items():
        plain = torch.einsum("btn,btm->nm", deltas[name], inputs[name])
        torch.testing.assert_close(change.total(), -SHORT.first_step * plain, rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_row_under_its_change_is_the_row_in_changed_weights(
    architecture: str, make_base: Callable[..., BaselineModel]
) -> None:
    base = make_base(architecture)
    places = mlp_places(base.model, 1)
    network = untrained(base)
    rows = [(*one.prompt, *one.target) for one in (row(base, 0), row(base, 1))]
    inputs, deltas = mend.gradients(base, places, [row(base, 0), row(base, 1)])
    with torch.no_grad(), changed(places, network(inputs, deltas)):
        together = reading.logits(base, rows)
    for number, ids in enumerate(rows):
        _, alone = edits_of(base, network, number)
        before = weights_of(base)
        with torch.no_grad():
            for place in places:
                place.matrix.add_(alone[place.name].total())
            expected = reading.logits(base, [ids])[0]
        torch.testing.assert_close(together[number, : len(ids)], expected, rtol=1e-2, atol=1e-3)
        base.model.load_state_dict(before)


@pytest.mark.parametrize("architecture", ["llama", "qwen2"])
def test_training_pays_undo_is_exact_and_the_network_is_kept(
    architecture: str, make_base: Callable[..., BaselineModel], tmp_path: Path
) -> None:
    base = make_base(architecture)
    before = weights_of(base)
    said: list[str] = []

    def editor() -> WeightEditor:
        learnt = Mend(MendParams(training=SHORT), material(), tmp_path, lambda what, *_: said.append(what))
        return WeightEditor(base, learnt)

    first, lessons = editor(), material().lessons(random.Random("held"), 12)
    first.edit([])
    pairs = [(one.request.prompt, one.request.target) for one in lessons]
    plain = [one.logprob for one in first.forced(pairs)]
    gained = []
    for one, pair, was in zip(lessons, pairs, plain, strict=True):
        first.edit([one.request])
        gained.append(first.forced([pair])[0].logprob - was)
        first.undo()
    assert sum(gained) / len(gained) > 1.0, "in nats"
    assert same_bits(base, before)
    trained = len(said)
    assert trained == SHORT.steps
    first.edit([lessons[0].request])
    changed_once = first.forced(pairs[:1])
    first.undo()
    again = editor()
    again.edit([lessons[0].request])
    assert again.forced(pairs[:1]) == changed_once
    assert len(said) == trained, "read from disk"
    again.undo()
    assert same_bits(base, before)
