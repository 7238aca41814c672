"""Questions over an edit and a remembered fact: how they are made, and how they are counted."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from lte_runtime.align.stock.sources import StockFact, stock_facts
from lte_runtime.answer.scope.gate import lexical_calibration
from ops.lab.baselines.base import BaselineModel
from ops.lab.baselines.protocol import EditRequest
from ops.lab.evals import compose
from ops.lab.evals.arms import Kit
from ops.lab.evals.compose import Composed
from ops.lab.evals.verdict import Verdict, contained
from tests.unit.lab.baselines.conftest import supplies
from tests.unit.lab.evals.test_multihop import Knows

CAPITAL = StockFact(
    "country_capital", "Norway", "Oslo", ("Kristiania",), ("Where?", "The capital of Norway is")
)


def test_the_edit_leads_to_the_subject_and_the_question_does_not_name_it() -> None:
    one = compose.composed(CAPITAL, random.Random(0))
    assert one is not None
    assert one.edit.target == "Norway"
    assert one.edit.subject in one.question
    assert "Norway" not in one.question
    assert "capital of the " in one.question
    assert one.accepted == ("Oslo", "Kristiania")


def test_relations_that_nothing_leads_to_are_left_out_and_enough_remain() -> None:
    rng = random.Random(0)
    made = [compose.composed(fact, rng) for fact in stock_facts()]
    assert sum(one is None for one in made) > 100
    assert sum(one is not None for one in made) > 600
    asked = [one for one in made if one is not None]
    assert 0.1 < sum(one.unseen for one in asked) / len(asked) < 0.4


def test_right_answers_and_first_hops_are_counted_apart() -> None:
    edits = [EditRequest(name, f"The home country of {name} is", "Norway") for name in ("A1", "B2")]
    made = [Composed(edit, f"capital {edit.subject}?", ("Oslo",), edit.subject == "A1") for edit in edits]
    answers = {"capital A1?": "oslo", "capital B2?": "It is Oslo.", "The home country of B2 is": "Norway"}
    found = compose.figures(compose.answered(Knows(answers), made))
    assert (found["n"], found["right"], found["first_hop"]) == (2, 0.5, 0.5)
    assert found["interval"][0] <= 0.5 <= found["interval"][1]
    assert found["unseen"] == {"n": 1, "right": 1.0, "interval": (1.0, 1.0)}
    assert found["contains"] == {
        "right": 1.0,
        "interval": (1.0, 1.0),
        "unseen": {"n": 1, "right": 1.0, "interval": (1.0, 1.0)},
        "first_hop": 0.5,
    }


def test_a_lead_is_over_the_same_questions() -> None:
    ours = [read(right) for right in (True, True, False, True)]
    other = [read(right) for right in (True, False, False, False)]
    found = compose.leads({"ours": ours, "no-adapter": other})
    assert list(found) == ["no-adapter"]
    apart, low, high = found["no-adapter"]
    assert apart == 0.5
    assert 0.0 <= low < 0.5 < high <= 1.0
    assert compose.leads({"no-adapter": other}) == {}
    assert compose.leads({"ours": ours, "no-adapter": other}, score=contained)["no-adapter"][0] == 0.0


def read(right: bool) -> compose.Read:
    return compose.Read(Verdict(right, True, False), Verdict(True, True, False), False)


def test_only_what_the_base_knows_is_asked(
    make_base: Callable[..., BaselineModel], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = supplies(make_base(), tmp_path)
    kit = Kit(given, lexical_calibration(given.encoder.fingerprint))
    stock = given.material.generator.sources.stock
    known = {fact.questions[0]: f"It is {fact.target}." for fact in stock[::2]}
    half = next(iter(known))
    known |= {fact.questions[-1]: fact.target for fact in stock[::2] if fact.questions[0] != half}
    monkeypatch.setattr(compose, "BRIDGES", {"code": ("site",), "port": ("ship",)})
    monkeypatch.setattr(compose, "base_answers", lambda _, asked, __: [known.get(q, "") for q in asked])
    made = compose.questions(kit, 10, seed=0)
    assert len(made) == len(stock[::2]) - 1, "in both phrasings, in a sentence or alone"
    assert compose.questions(kit, 2, seed=0) == made[:2]
    result = compose.run(kit, ["ice"], count=10)
    assert result["lead"] == result["lead_contains"] == {}
    found = result["methods"]["ice"]["sets"]["compose"]
    assert found["n"] == len(made)
