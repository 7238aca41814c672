"""Chains of edits: how they are made, and how they are counted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from lte_runtime.answer.scope.gate import lexical_calibration
from ops.lab.baselines.base import BaselineModel
from ops.lab.baselines.protocol import EditRequest, Forced
from ops.lab.evals import multihop
from ops.lab.evals.arms import Kit
from ops.lab.evals.multihop import Chain, questions
from tests.unit.lab.baselines.conftest import supplies


class Knows:
    """Answers from a table."""

    def __init__(self, table: dict[str, str]) -> None:
        self._table = table

    def edit(self, requests: Sequence[EditRequest]) -> None:
        raise NotImplementedError

    def answer(self, prompts: Sequence[str], *, max_new_tokens: int = 32) -> list[str]:  # noqa: ARG002
        return [self._table.get(text, "") for text in prompts]

    def forced(self, pairs: Sequence[tuple[str, str]]) -> list[Forced]:
        raise NotImplementedError

    def undo(self) -> None:
        raise NotImplementedError


def test_each_target_is_the_next_subject_and_questions_lead_to_the_last() -> None:
    made = multihop.chains(5, seed=3)
    assert made == multihop.chains(5, seed=3)
    assert made != multihop.chains(5, seed=4)
    assert [len(one.edits) for one in made] == [2] * 5 + [3] * 5 + [4] * 5
    for one in made:
        for first, second in zip(one.edits, one.edits[1:], strict=False):
            assert second.subject == first.target
        assert all(one.edits[0].subject in asked for asked in one.questions)
        assert all(edit.subject not in asked for edit in one.edits[1:] for asked in one.questions)
    assert questions("X", ["owner", "town", "mayor"])[0] == "What is the mayor of the town of the owner of X?"


def test_one_right_question_is_enough_and_hops_are_counted_apart() -> None:
    edits = (EditRequest("X", "The owner of X is", "Y"), EditRequest("Y", "The town of Y is", "Z"))
    made = [Chain(edits, ("a?", "b", "c."))]
    found = multihop.figures(Knows({"b": "Z", "The town of Y is": "z."}), made)
    shares = {"right": 1.0, "each_hop_right": 0.5, "all_hops_right": 0.0}
    assert found["2 hops"] == {"n": 1, **shares, "contains": shares}
    nothing = {"right": None, "each_hop_right": None, "all_hops_right": None}
    assert found["3 hops"] == {"n": 0, **nothing, "contains": nothing}


def test_a_value_in_a_sentence_is_counted_beside_exact_matches() -> None:
    edits = (EditRequest("X", "The owner of X is", "Y"), EditRequest("Y", "The town of Y is", "Z"))
    answers = {"a?": "It is Z.", "The owner of X is": "the owner Y", "The town of Y is": "Z"}
    shares = multihop.figures(Knows(answers), [Chain(edits, ("a?", "b", "c."))])["2 hops"]
    assert (shares["right"], shares["each_hop_right"], shares["all_hops_right"]) == (0.0, 0.5, 0.0)
    assert shares["contains"] == {"right": 1.0, "each_hop_right": 1.0, "all_hops_right": 1.0}


def test_methods_are_asked_about_the_same_chains(
    make_base: Callable[..., BaselineModel], tmp_path: Path
) -> None:
    given = supplies(make_base(), tmp_path)
    kit = Kit(given, lexical_calibration(given.encoder.fingerprint))
    found = multihop.run(kit, ["ice", "no-adapter"], count=1)["methods"]
    assert {name: one["sets"]["4 hops"]["n"] for name, one in found.items()} == {"ice": 1, "no-adapter": 1}
