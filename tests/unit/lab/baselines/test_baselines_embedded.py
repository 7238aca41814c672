"""Every baseline on a real model: edits make their targets likelier, and are undone bit for bit."""

from __future__ import annotations

import random

import pytest
from real_parts import QWEN2

from lte_runtime.align.stock.sources import load
from lte_runtime.answer.encoder.stub import StubEncoder
from ops.lab.baselines import registry
from ops.lab.baselines.base import BaselineModel
from ops.lab.baselines.ft_l import FtLParams
from ops.lab.baselines.material import Lesson, LessonMaterial
from ops.lab.baselines.memit import MemitParams
from ops.lab.baselines.mend import MendParams, MendTraining
from ops.lab.baselines.registry import Supplies
from ops.lab.baselines.rome import RomeParams
from ops.lab.baselines.scope import ScopeTraining
from ops.lab.baselines.serac import CounterfactualTraining, SeracParams
from ops.lab.recipes.generator import Generator
from tests.unit.lab.baselines.conftest import same_bits, weights_of

pytestmark = pytest.mark.model

SHORT = {
    "rome": RomeParams(layer=1, prefixes=0),
    "memit": MemitParams(layers=(0, 1), prefixes=0, strength=0.01),
    "ft-l": FtLParams(layer=3, bound=0.2),
    "mend": MendParams(training=MendTraining(blocks=1, rank=16, steps=2, batch=2, calibration=8)),
    "serac": SeracParams(
        threshold=0.0,
        scope=ScopeTraining(lessons=8, epochs=1),
        counterfactual=CounterfactualTraining(steps=2, batch=2),
    ),
}


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Supplies:
    material = LessonMaterial(Generator(load(None)), "stock", text_rows=150)
    return Supplies(BaselineModel.load(QWEN2), StubEncoder(), material, tmp_path_factory.mktemp("kept"))


@pytest.fixture(scope="module")
def lesson(given: Supplies) -> Lesson:
    """A remembered fact with another target, such as one more capital of the same kind."""
    rng = random.Random(1)
    lessons = iter(lambda: given.material.lessons(rng, 1)[0], None)
    return next(one for one in lessons if one.request.subject and one.request.subject in one.request.prompt)


@pytest.mark.parametrize("name", registry.METHODS)
def test_an_edit_makes_its_target_likelier_and_is_undone(name: str, given: Supplies, lesson: Lesson) -> None:
    before = weights_of(given.base)
    editor = registry.editor(name, given, SHORT.get(name))
    pair = (lesson.request.prompt, lesson.request.target)
    (plain,) = editor.forced([pair])
    editor.edit([lesson.request])
    (edited,) = editor.forced([pair])
    if name == "mend":
        assert edited != plain, "two steps teach it no more than that it moves something"
    else:
        assert edited.logprob > plain.logprob + 0.5
    if name in ("ft", "rome"):
        assert all(edited.right)
    editor.undo()
    assert editor.forced([pair]) == [plain]
    assert same_bits(given.base, before)
