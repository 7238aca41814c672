"""ICE: which facts it puts where, and that it leaves the model alone; and the registry of all baselines."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from lte_runtime.answer.encoder.stub import StubEncoder
from lte_runtime.errors import BadRequest
from ops.lab.baselines import base as reading
from ops.lab.baselines import registry
from ops.lab.baselines.base import BaselineModel
from ops.lab.baselines.ft_l import FtLParams
from ops.lab.baselines.ice import Ice, IceParams
from ops.lab.baselines.memit import MemitParams
from ops.lab.baselines.mend import MendParams, MendTraining
from ops.lab.baselines.protocol import EditRequest, Forced
from ops.lab.baselines.rome import RomeParams
from ops.lab.baselines.scope import ScopeTraining
from ops.lab.baselines.serac import CounterfactualTraining, SeracParams
from tests.unit.lab.baselines.conftest import EDITS, same_bits, supplies, weights_of

FORM = "Imagine that {facts} {question}"


def plain(base: BaselineModel, text: str) -> list[Forced]:
    """A target behind `text`, read by the model alone: likelihoods tell prompts apart, answers may not."""
    return reading.forced(base, [reading.sample(base, text, "Ines", end=False)])


def test_the_nearest_fact_stands_before_the_question(make_base: Callable[..., BaselineModel]) -> None:
    base = make_base()
    before = weights_of(base)
    ice = Ice(base, IceParams(form=FORM), StubEncoder())
    asked = EDITS[0].prompt
    assert ice.forced([(asked, "Ines")]) == plain(base, asked)
    ice.edit(EDITS)
    given = f"Imagine that {asked} Ines Calder. {asked}"
    assert plain(base, given) != plain(base, asked)
    assert ice.forced([(asked, "Ines")]) == plain(base, given)
    assert ice.answer([asked], max_new_tokens=4) == reading.answers(base, [reading.question(base, given)], 4)
    ice.undo()
    assert ice.forced([(asked, "Ines")]) == plain(base, asked)
    assert same_bits(base, before)


def test_the_nearest_comes_last_and_a_later_edit_replaces(make_base: Callable[..., BaselineModel]) -> None:
    base = make_base()
    ice = Ice(base, IceParams(facts=2, form="{facts} | {question}"), StubEncoder())
    asked = EDITS[0].prompt
    ice.edit([EDITS[0]])
    ice.edit([EDITS[7], EditRequest(EDITS[0].subject, asked, "Olav Lie")])
    given = f"The coach of Team Falke is Ida Moen. {asked} Olav Lie. | {asked}"
    assert ice.forced([(asked, "Ines")]) == plain(base, given)


SHORT = {
    "rome": RomeParams(prefixes=1, layer=0),
    "memit": MemitParams(prefixes=1, layers=(0,)),
    "mend": MendParams(training=MendTraining(blocks=1, rank=4, steps=2, batch=2, calibration=4)),
    "serac": SeracParams(
        threshold=0.0,
        scope=ScopeTraining(lessons=8, epochs=1),
        counterfactual=CounterfactualTraining(steps=2, batch=2),
    ),
}
"""Hardly trained: what is asked here is that each method edits, answers and undoes."""


@pytest.mark.parametrize("name", registry.METHODS)
def test_every_method_edits_answers_and_undoes(
    name: str, make_base: Callable[..., BaselineModel], tmp_path: Path
) -> None:
    base = make_base()
    before = weights_of(base)
    editor = registry.editor(name, supplies(base, tmp_path), SHORT.get(name))
    asked, target = EDITS[0].prompt, EDITS[0].target
    read = editor.forced([(asked, target)])
    editor.edit([])
    assert editor.forced([(asked, target)]) == read
    editor.edit(EDITS[:1])
    assert editor.forced([(asked, target)]) != read
    assert len(editor.answer([asked, EDITS[1].prompt], max_new_tokens=4)) == 2
    editor.undo()
    assert editor.forced([(asked, target)]) == read
    assert same_bits(base, before)


def test_unknown_names_and_foreign_parameters_are_refused(
    make_base: Callable[..., BaselineModel], tmp_path: Path
) -> None:
    base = make_base()
    given = supplies(base, tmp_path)
    with pytest.raises(BadRequest, match="no baseline nothing"):
        registry.editor("nothing", given)
    with pytest.raises(BadRequest, match="ft does not take"):
        registry.editor("ft", given, FtLParams())
