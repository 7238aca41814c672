"""The comparison counts as it says, on a made-up method whose answers are known and on tiny models."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lte_runtime.answer.scope.gate import lexical_calibration
from lte_runtime.errors import BadRequest, NotFound
from ops.lab.baselines.base import BaselineModel
from ops.lab.baselines.protocol import EditRequest, Forced
from ops.lab.evals import arms, compare, cost
from ops.lab.evals.arms import Kit
from ops.lab.evals.compare import ComparisonPlan, mode_of
from tests.unit.lab.baselines.conftest import supplies


def record(name: str, target: str, **more: Any) -> dict[str, Any]:
    made = {
        "subject": name,
        "prompt": f"Who leads {name}?",
        "target_new": target,
        "rephrase_prompt": f"{name} is led by",
        "portability": {},
        "locality": {},
    }
    return made | more


RECORDS = [
    record("Arlen", "Old"),
    record(
        "Sedge", "Reyl", portability={"Reasoning": [{"prompt": "Who leads Arlen?", "ground_truth": "Moen"}]}
    ),
    record("Orm", "Keel", locality={"Forgetfulness": [{"prompt": "Where is Orm?", "ground_truth": "x"}]}),
    record("Arlen", "Moen"),
]


class Parrot:
    """Knows the prompts that it was told; the last `memory` of them."""

    def __init__(self, memory: int = 100) -> None:
        self.memory = memory
        self.told: dict[str, str] = {}
        self.undone = 0
        self.batches: list[int] = []
        self.tokens: dict[str, int] = {}

    def edit(self, requests: Sequence[EditRequest]) -> None:
        self.batches.append(len(requests))
        self.told |= {one.prompt: one.target for one in requests}
        self.told = dict(list(self.told.items())[-self.memory :])

    def answer(self, prompts: Sequence[str], *, max_new_tokens: int = 32) -> list[str]:
        self.tokens |= dict.fromkeys(prompts, max_new_tokens)
        return [self.told.get(text, "nothing") for text in prompts]

    def forced(self, pairs: Sequence[tuple[str, str]]) -> list[Forced]:
        return [Forced((self.told.get(text) == target, True), -1.0) for text, target in pairs]

    def undo(self) -> None:
        self.told.clear()
        self.undone += 1


@pytest.fixture
def kit(make_base: Callable[..., BaselineModel], tmp_path: Path) -> Kit:
    given = supplies(make_base(), tmp_path / "cache")
    return Kit(given, lexical_calibration(given.encoder.fingerprint))


@pytest.fixture
def parrot(monkeypatch: pytest.MonkeyPatch) -> Parrot:
    made = Parrot()

    @contextmanager
    def arm(*_: object) -> Iterator[Parrot]:
        yield made

    monkeypatch.setattr(arms, "arm", arm)
    return made


def plan(tmp_path: Path, mode: str, **more: Any) -> ComparisonPlan:
    (tmp_path / "zsre.json").write_text(json.dumps(RECORDS), encoding="utf-8")
    return ComparisonPlan(tmp_path, ["ice"], ["zsre"], mode_of(mode), split="all", **more)


def figures(chosen: ComparisonPlan, kit: Kit) -> dict[str, Any]:
    found: dict[str, Any] = compare.run(chosen, kit)["methods"]["ice"]["sets"]["zsre"]
    return found


def test_all_edits_are_made_first_and_the_last_of_a_prompt_counts(
    tmp_path: Path, kit: Kit, parrot: Parrot
) -> None:
    found = figures(plan(tmp_path, "batch"), kit)
    assert parrot.batches == [1, 3], "the first is made once and undone, for what a method works out once"
    assert found["n"] == 3
    assert found["edit_success"] == 1.0
    assert found["generality"] == 0.0
    assert found["portability"] == {"Reasoning": 1.0}, "the other edit is there too"
    assert found["locality"] == 0.0, "the parrot says nothing, the base something"
    assert found["forced"]["edit_success"] == 1.0
    assert compare.run(plan(tmp_path, "batch"), kit)["lead"] == {"zsre": {}}, "ours was not measured"
    assert found["forced"]["generality"] == 0.5, "a share of tokens"
    assert found["seconds_per_edit"] >= 0
    assert found["peak_mb"] > 1
    assert found["interval"]["edit_success"] == (1.0, 1.0)


def test_a_value_in_a_sentence_counts_where_the_one_before_the_edit_is_not_beside_it(
    tmp_path: Path, kit: Kit, parrot: Parrot, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = plan(tmp_path, "batch")
    changed = [
        record("Orm", "Keel", ground_truth="Old Keel"),
        record("Sedge", "Reyl", ground_truth=["Moen"], rephrase_prompt="Who leads Sedge today?"),
    ]
    (tmp_path / "zsre.json").write_text(json.dumps(changed), encoding="utf-8")
    said = {
        "Who leads Orm?": "Old Keel leads Orm.",
        "Orm is led by": "Keel, a sailor",
        "Who leads Sedge?": "Reyl leads Sedge, not Moen",
        "Who leads Sedge today?": "Reyl leads Sedge.",
    }
    monkeypatch.setattr(parrot, "answer", lambda asked, **_: [said[q] for q in asked])
    found = figures(replace(chosen, decode="free", fluency_edits=0), kit)
    assert (found["edit_success"], found["generality"]) == (0.0, 0.0)
    assert found["contains"]["edit_success"] == 0.0, "the value before the edit stands there"
    assert found["contains"]["generality"] == 1.0
    assert found["invented_additions"] == 0.75, "Old; a sailor; not Moen"


def test_single_edits_are_alone_and_batches_are_filled(tmp_path: Path, kit: Kit, parrot: Parrot) -> None:
    found = figures(plan(tmp_path, "single"), kit)
    assert parrot.batches == [1, 1, 1, 1]
    assert parrot.undone == 4
    assert found["portability"] == {"Reasoning": 0.0}, "the other edit is not there"
    parrot.batches.clear()
    figures(plan(tmp_path, "batch:5"), kit)
    assert parrot.batches == [1, 5]
    parrot.batches.clear()
    figures(plan(tmp_path, "batch:2"), kit)
    assert parrot.batches == [1, 2, 2]


def test_batches_of_a_size_draw_from_all_sets(tmp_path: Path, kit: Kit, parrot: Parrot) -> None:
    other = [record(name, "Vey") for name in ("Tarn", "Ulm", "Wick")]
    (tmp_path / "wiki_recent.json").write_text(json.dumps(other), encoding="utf-8")
    samples = tmp_path / "samples.jsonl"
    chosen = replace(plan(tmp_path, "batch:4", samples=samples), sets=["zsre", "wiki_recent"])
    for _ in range(2):
        found = compare.run(chosen, kit)["methods"]["ice"]["sets"]
        assert parrot.batches == [1, 4, 4], "six edits and two generated ones; then from the samples"
        assert {name: one["n"] for name, one in found.items()} == {"zsre": 3, "wiki_recent": 3}
        assert found["wiki_recent"]["edits"] == 4
        assert found["zsre"]["edit_success"] == found["wiki_recent"]["edit_success"] == 1.0
    groups = [json.loads(line) for line in samples.read_text(encoding="utf-8").splitlines()]
    sets = [{one["set"] for one in group["samples"]} for group in groups]
    assert {"zsre", "wiki_recent"} in sets, "mixed"


def test_a_sequence_asks_all_earlier_edits_again(tmp_path: Path, kit: Kit, parrot: Parrot) -> None:
    parrot.memory = 2
    found = figures(plan(tmp_path, "sequential"), kit)
    assert parrot.batches == [1, 1, 1, 1]
    assert found["retested"] == {"1": 1.0, "3": 0.6667}
    assert found["retested_contains"] == {"1": 1.0, "3": 0.6667}
    assert found["edit_success"] == 0.6667


def test_a_sequence_that_is_too_short_begins_with_generated_edits(
    tmp_path: Path, kit: Kit, parrot: Parrot
) -> None:
    parrot.memory = 3
    found = figures(plan(tmp_path, "sequential:10"), kit)
    assert parrot.batches == [1] * 11
    assert found["retested"] == {"1": 1.0, "10": 0.3}, "the generated ones are asked again too"
    assert found["edit_success"] == 1.0, "the set's own come last"
    assert found["edits"] == 10


def test_running_text_is_long_and_scored_by_overlap(tmp_path: Path, kit: Kit, parrot: Parrot) -> None:
    text = record(
        "Orm", "It lies by the sea", locality={"Relation_Specificity": [{"prompt": "Where is Orm?"}]}
    )
    (tmp_path / "wikibio.json").write_text(json.dumps([text]), encoding="utf-8")
    chosen = ComparisonPlan(tmp_path, ["ice"], ["wikibio"], split="all", fluency_edits=0)
    found = compare.run(chosen, kit)["methods"]["ice"]["sets"]["wikibio"]
    assert found["rouge_l"] == 1.0
    assert parrot.tokens["Who leads Orm?"] == compare.RUNNING_TOKENS
    assert parrot.tokens["Where is Orm?"] == compare.ANSWER_TOKENS, "as the base was asked"


@pytest.mark.usefixtures("parrot")
def test_one_way_of_decoding_leaves_the_other_empty(tmp_path: Path, kit: Kit) -> None:
    free = figures(plan(tmp_path, "batch", decode="free"), kit)
    assert free["forced"]["edit_success"] is None
    assert free["belief"] is None
    forced = figures(plan(tmp_path, "batch", decode="teacher-forced"), kit)
    assert forced["edit_success"] is None
    assert forced["forced"]["edit_success"] == 1.0


def test_what_the_samples_hold_is_not_measured_again(tmp_path: Path, kit: Kit, parrot: Parrot) -> None:
    samples = tmp_path / "samples.jsonl"
    first = figures(plan(tmp_path, "single", samples=samples), kit)
    lines = samples.read_text(encoding="utf-8").splitlines()
    assert len(lines) == 3
    assert json.loads(lines[0])["samples"][0]["said"]["Who leads Sedge?"] == "Reyl"
    parrot.batches.clear()
    samples.write_text("\n".join(lines[:2]) + '\n{"key": "cut o', encoding="utf-8")
    again = figures(plan(tmp_path, "single", samples=samples), kit)
    assert parrot.batches == [1, 1]
    assert again["edit_success"] == first["edit_success"]
    parrot.batches.clear()
    figures(plan(tmp_path, "single", samples=samples), kit)
    assert parrot.batches == []


def test_a_real_method_on_a_tiny_model(tmp_path: Path, kit: Kit) -> None:
    chosen = ComparisonPlan(
        tmp_path, ["ft", "no-adapter"], ["zsre", "none"], mode_of("single"), split="all", limit=2
    )
    (tmp_path / "zsre.json").write_text(json.dumps(RECORDS), encoding="utf-8")
    found = compare.run(chosen, kit)
    assert list(found["methods"]) == ["ft", "no-adapter"]
    ft = found["methods"]["ft"]["sets"]["zsre"]
    assert ft["n"] == 2
    assert ft["forced"]["edit_success"] == 1.0
    assert ft["edit_success"] == 1.0
    assert found["methods"]["ft"]["settings"] == "default"


def test_wrong_plans_are_refused(tmp_path: Path, kit: Kit) -> None:
    for text in ("single:3", "batch:0", "batch:x", "often"):
        with pytest.raises(BadRequest):
            mode_of(text)
    with pytest.raises(NotFound):
        compare.run(ComparisonPlan(tmp_path, ["ice"], ["zsre"]), kit)
    with pytest.raises(BadRequest, match="no method magic"):
        compare.run(ComparisonPlan(tmp_path, ["magic"], ["zsre"]), kit)


def test_cost_reads_the_peak_and_does_without(tmp_path: Path) -> None:
    (tmp_path / "status").write_text("Name: x\nVmHWM:\t    2048 kB\n", encoding="utf-8")
    with cost.measured(tmp_path) as spent:
        pass
    assert spent.peak_mb == 2.0
    assert spent.seconds >= 0
    assert cost.peak_mb(tmp_path / "none") > 1
    assert not cost.forget_peak(tmp_path / "none")
