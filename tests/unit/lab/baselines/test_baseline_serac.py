"""SERAC against its equations: the scope's probability, and who answers what."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lte_runtime.answer.encoder.stub import StubEncoder
from ops.lab.baselines import base as reading
from ops.lab.baselines import serac
from ops.lab.baselines.base import BaselineModel
from ops.lab.baselines.scope import ScopeClassifier, ScopeTraining, pair_loss, tensor, train_scope
from ops.lab.baselines.serac import CounterfactualTraining, Serac, SeracParams
from tests.unit.lab.baselines.conftest import EDITS, material, same_bits, weights_of

SHORT = SeracParams(
    threshold=0.5,
    scope=ScopeTraining(lessons=40, epochs=4, rate=3e-3, scale=1.0),
    counterfactual=CounterfactualTraining(steps=25, batch=8, rate=3e-3),
)


def editor(base: BaselineModel, directory: Path, params: SeracParams = SHORT) -> Serac:
    return Serac(base, params, StubEncoder(), material(), directory, lambda *_: None)


def test_the_probability_falls_with_the_square_of_the_distance() -> None:
    classifier = ScopeClassifier(3, 2.0).requires_grad_(False)
    a, b = torch.tensor([[1.0, 0.0, 0.0]]), torch.tensor([[1.0, 0.25, 0.0]])
    assert float(classifier(a, a)) == 0.0
    assert float(classifier(a, b)) == pytest.approx(-0.25)
    assert float(classifier.table(a, b)) == pytest.approx(math.exp(-0.25))
    loss = pair_loss(torch.tensor([-0.25, -0.25]), torch.tensor([True, False]))
    assert float(loss) == pytest.approx((0.25 - math.log(1 - math.exp(-0.25))) / 2)
    assert math.isfinite(float(pair_loss(torch.zeros(1), torch.tensor([False]))))


def test_the_scope_learns_to_tell_own_questions_from_others() -> None:
    lessons = material().lessons(random.Random(1), 120)
    encoder = StubEncoder()
    done: list[float] = []
    classifier = train_scope(encoder, lessons, ScopeTraining(epochs=6, rate=3e-3, scale=1.0), done.append)
    fresh = material().lessons(random.Random(2), 40)
    told = tensor(encoder.encode([one.request.statement for one in fresh]))
    own = tensor(encoder.encode([one.request.prompt for one in fresh], query=True))
    other = tensor(encoder.encode([one.unrelated[0] for one in fresh], query=True))
    gap = (classifier(told, own).exp() - classifier(told, other).exp()).mean()
    assert float(gap) > 0.3
    assert done[-1] == 1.0


@pytest.mark.parametrize("architecture", ["llama", "qwen2"])
def test_out_of_scope_is_the_base_itself_in_scope_the_other_model(
    architecture: str, make_base: Callable[..., BaselineModel], tmp_path: Path
) -> None:
    base = make_base(architecture)
    before = weights_of(base)
    found = editor(base, tmp_path, replace(SHORT, threshold=0.4))
    request = EDITS[0]
    stranger = EDITS[5].prompt
    plain = reading.forced(base, [reading.sample(base, stranger, "Riga", end=False)])
    own = reading.forced(base, [reading.sample(base, request.prompt, request.target, end=False)])
    assert found.forced([(request.prompt, request.target)]) == own, "no edit, no scope"
    found.edit([request])
    assert found.scopes([request.prompt, stranger]) == [request, None]
    read = found.forced([(stranger, "Riga"), (request.prompt, request.target)])
    assert read[0] == plain[0]
    assert read[1] != own[0]
    given = serac.conditioned_prompt(SHORT.form, request, request.prompt)
    learner = serac.trained_counterfactual(base, SHORT, material(), tmp_path, lambda *_: None)
    sample = reading.Sample(reading.question(base, given), reading.target_ids(base, request.target))
    assert read[1:] == reading.forced(learner, [sample])
    said = found.answer([stranger, request.prompt], max_new_tokens=4)
    assert said[0] == reading.answers(base, [reading.question(base, stranger)], 4)[0]
    found.undo()
    assert found.forced([(request.prompt, request.target)]) == own
    assert same_bits(base, before)


def test_a_later_edit_of_a_prompt_replaces_the_earlier_one(
    make_base: Callable[..., BaselineModel], tmp_path: Path
) -> None:
    found = editor(make_base(), tmp_path, replace(SHORT, threshold=0.0))
    later = replace(EDITS[0], target="Olav Lie")
    found.edit([EDITS[0], EDITS[1]])
    found.edit([later])
    assert found.scopes([EDITS[0].prompt]) == [later]


def test_the_counterfactual_model_learns_and_is_kept(
    make_base: Callable[..., BaselineModel], tmp_path: Path
) -> None:
    base = make_base()
    losses: list[float] = []
    steps: list[int] = []

    def watch(what: str, done: int, _: int) -> None:
        losses.append(float(what.rsplit(" ", 1)[1]))
        steps.append(done)

    made = serac.trained_counterfactual(base, SHORT, material(), tmp_path, watch)
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])
    assert len(steps) == SHORT.counterfactual.steps
    again = serac.trained_counterfactual(base, SHORT, material(), tmp_path, watch)
    assert len(steps) == SHORT.counterfactual.steps
    assert same_bits(again, weights_of(made))
    assert not same_bits(base, weights_of(made))
