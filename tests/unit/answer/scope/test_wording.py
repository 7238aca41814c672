"""The map between questions and views: learnt by contrast, repeatable, kept in a file."""

from __future__ import annotations

import numpy as np
import pytest

from lte_runtime.answer.encoder import StubEncoder
from lte_runtime.answer.scope import wording
from lte_runtime.answer.scope.wording import Contrast, WordingPair

STUB = StubEncoder()
VIEWS = ("The chief editor of it", "The price of it", "The opening hours of it", "The owner of it")
ASKING = (
    ("Who edits it?", "Whose pen decides there?"),
    ("How much is it?", "What do they charge?"),
    ("When may I visit it?", "From when till when is it accessible?"),
    ("To whom does it belong?", "Whose property is it?"),
)
PAIRS = [
    *(
        WordingPair(text, view, fits=True, kind="k")
        for view, texts in zip(VIEWS, ASKING, strict=True)
        for text in texts
    ),
    WordingPair("Who sold it?", VIEWS[3], fits=False, opposite=True, kind="k"),
    WordingPair("Who stopped editing it?", VIEWS[0], fits=False, opposite=True, kind="k"),
]
HOW = Contrast(rank=16, steps=150, batch=12, rate=1e-2, dropped=0.1)


@pytest.fixture(scope="module")
def learnt() -> wording.Wording:
    return wording.learn(PAIRS, VIEWS, STUB, HOW)


def cosines(found: wording.Wording, question: str) -> list[float]:
    asked = STUB.encode([question], query=True)[0]
    return [found.features(asked, view)["wording_cosine"] for view in STUB.encode(VIEWS)]


def test_questions_come_nearest_to_the_view_that_they_ask_for(learnt: wording.Wording) -> None:
    for place, texts in enumerate(ASKING):
        for text in texts:
            assert int(np.argmax(cosines(learnt, text))) == place


def test_the_view_that_is_asked_for_has_the_larger_share_and_margin(learnt: wording.Wording) -> None:
    asked = STUB.encode(["How much is it?"], query=True)[0]
    price, owner = (learnt.features(asked, STUB.encode([VIEWS[i]])[0]) for i in (1, 3))
    assert price["wording_share"] > owner["wording_share"]
    assert price["wording_margin"] > 0 > owner["wording_margin"]
    assert price["wording"] > owner["wording"]


def test_questions_about_an_end_are_told_from_others(learnt: wording.Wording) -> None:
    ended, asked = STUB.encode(["Who sold it?", "Whose property is it?"], query=True)
    owner = STUB.encode([VIEWS[3]])[0]
    assert learnt.features(ended, owner)["opposite"] > learnt.features(asked, owner)["opposite"]


def test_equal_arguments_give_equal_maps(learnt: wording.Wording) -> None:
    again = wording.learn(PAIRS, VIEWS, STUB, HOW)
    assert np.array_equal(again.left_factor, learnt.left_factor)
    assert (again.scale, again.shift) == (learnt.scale, learnt.shift)


def test_rows_are_the_features_of_each_question_with_its_view(learnt: wording.Wording) -> None:
    questions = STUB.encode([texts[0] for texts in ASKING], query=True)
    views = STUB.encode(VIEWS)
    for row, question, view in zip(learnt.rows(questions, views), questions, views, strict=True):
        assert row == pytest.approx(learnt.features(question, view), abs=1e-5)


def test_a_map_survives_its_file_in_half_floats(learnt: wording.Wording) -> None:
    kept = wording.unpacked(learnt.packed)
    asked, view = STUB.encode(["Who edits it?"], query=True)[0], STUB.encode([VIEWS[0]])[0]
    assert kept.features(asked, view) == pytest.approx(dict(learnt.features(asked, view)), abs=0.02)
    assert kept.packed == wording.unpacked(kept.packed).packed
