"""The product's own arms read what the product would read, and leave the base's answers to the rest."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from lte_runtime.answer import prompt
from lte_runtime.answer.scope.gate import lexical_calibration
from lte_runtime.errors import BadRequest, Refused
from ops.lab.baselines import base as reading
from ops.lab.baselines.base import BaselineModel, Sample
from ops.lab.evals import arms
from ops.lab.evals.arms import Kit
from tests.unit.answer.engine import tiny
from tests.unit.lab.baselines.conftest import EDITS, supplies

STRANGER = "Why do cats purr at night?"


@pytest.fixture(params=["llama", "qwen2"])
def kit(request: pytest.FixtureRequest, tmp_path: Path) -> Kit:
    directory = tiny.save_model(tmp_path / "model", request.param)
    adapter = tiny.save_adapter(tmp_path / "adapter", directory, request.param)
    base = BaselineModel.load(directory)
    given = supplies(base, tmp_path / "cache")
    gate = lexical_calibration(given.encoder.fingerprint)
    return Kit(given, gate, arms.adapted(base, adapter), "align-000001")


def read(base: BaselineModel, facts: list[str], asked: str, target: str) -> list[reading.Forced]:
    ids = prompt.build(base.tokenizer, asked, facts, max_tokens=arms.room(base)).token_ids
    return reading.forced(base, [Sample(ids, reading.target_ids(base, target))])


def fact(number: int) -> str:
    return f"{EDITS[number].prompt} {EDITS[number].target}."


@pytest.mark.parametrize("name", ["ours", "no-adapter"])
def test_a_question_in_scope_is_read_with_its_fact_others_by_the_base(kit: Kit, name: str) -> None:
    base, adapted = kit.supplies.base, kit.adapted
    assert adapted is not None
    reader = adapted if name == "ours" else base
    asked, target = EDITS[0].prompt, EDITS[0].target
    plain = read(base, [], asked, target)
    with arms.arm(name, kit) as editor:
        assert editor.forced([(asked, target)]) == plain, "before any edit"
        editor.edit(EDITS[:1])
        editor.edit(EDITS[1:4])
        assert editor.forced([(asked, target)]) == read(reader, [fact(0)], asked, target)
        assert editor.forced([(STRANGER, target)]) == read(base, [], STRANGER, target)
        said = editor.answer([STRANGER, asked], max_new_tokens=4)
        assert said[0] == reading.answers(base, [reading.question(base, STRANGER)], 4)[0].strip()
        editor.undo()
        assert editor.forced([(asked, target)]) == plain


def test_the_adapter_reads_otherwise(kit: Kit) -> None:
    assert kit.adapted is not None
    asked, target = EDITS[0].prompt, EDITS[0].target
    assert read(kit.adapted, [fact(0)], asked, target) != read(kit.supplies.base, [fact(0)], asked, target)


def test_the_reference_puts_the_three_nearest_facts_before_every_question(kit: Kit) -> None:
    adapted, encoder = kit.adapted, kit.supplies.encoder
    assert adapted is not None
    with arms.arm("lte-reference", kit) as editor:
        editor.edit(EDITS)
        facts = [fact(number) for number in range(len(EDITS))]
        scores = encoder.encode([STRANGER], query=True)[0] @ encoder.encode(facts).T
        best = sorted(range(len(facts)), key=lambda at: -scores[at])[:3]
        assert editor.forced([(STRANGER, "Riga")]) == read(
            adapted, [facts[at] for at in best], STRANGER, "Riga"
        )
        assert len(editor.answer([STRANGER], max_new_tokens=2)) == 1
        editor.undo()
        assert editor.forced([(STRANGER, "Riga")]) == read(kit.supplies.base, [], STRANGER, "Riga")


def test_arms_that_cannot_be_made_say_why(make_base: Callable[..., BaselineModel], tmp_path: Path) -> None:
    given = supplies(make_base(), tmp_path)
    without = Kit(given, lexical_calibration(given.encoder.fingerprint))
    with pytest.raises(Refused, match="ours needs"), arms.arm("ours", without):
        pass
    with pytest.raises(BadRequest, match="no method magic"):
        arms.check(["ours", "magic"])
