"""The search gives each method the same budget, logs every trial, and goes on where it was killed."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest
from real_parts import QWEN2

from ops.lab.baselines import registry, search
from ops.lab.baselines.base import BaselineModel
from ops.lab.baselines.ice import IceParams
from ops.lab.baselines.rome import RomeParams
from ops.lab.baselines.search import SearchBudget
from tests.unit.lab.baselines.conftest import supplies

SMALL = SearchBudget(trials=3, edits=3)


@pytest.mark.parametrize("name", registry.METHODS)
@pytest.mark.parametrize("count", [1, 2, 32])
def test_settings_are_seeded_equal_in_number_and_fit_the_model(name: str, count: int) -> None:
    found = search.settings(name, count, SearchBudget(trials=8))
    assert found == search.settings(name, count, SearchBudget(trials=8))
    assert found != search.settings(name, count, SearchBudget(trials=8, seed=1))
    assert len(found) == 8
    for params in found:
        layers = asdict(params).get("layers") or (asdict(params).get("layer", 0),)
        assert max(layers) < count
        assert search.rebuilt(params, json.loads(json.dumps(asdict(params)))) == params


def test_every_trial_is_logged_and_none_is_made_twice(
    make_base: Callable[..., BaselineModel], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given, log = supplies(make_base(), tmp_path), tmp_path / "log.jsonl"
    params, line = search.search("ice", given, SMALL, log)
    lines = [json.loads(text) for text in log.read_text(encoding="utf-8").splitlines()]
    assert len(lines) == SMALL.trials
    assert line["score"] == max(one["score"] for one in lines)
    assert all(0 <= one[part] <= 1 for one in lines for part in ("edit", "forced", "generality", "locality"))
    log.write_text("".join(json.dumps(one) + "\n" for one in lines[:2]), encoding="utf-8")
    made: list[str] = []
    real = registry.editor
    monkeypatch.setattr(registry, "editor", lambda name, *more: made.append(name) or real(name, *more))
    assert search.search("ice", given, SMALL, log) == (params, line)
    assert made == ["ice"]


def test_what_an_earlier_search_chose_is_tried_too(
    make_base: Callable[..., BaselineModel], tmp_path: Path
) -> None:
    given = supplies(make_base(), tmp_path)
    earlier = IceParams(form="As is known, {facts} {question}")
    search.keep_tuned(given, {"ice": (earlier, {"score": 0.5, "params": asdict(earlier)})})
    search.search("ice", given, SMALL, tmp_path / "log.jsonl")
    lines = [json.loads(text) for text in (tmp_path / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(lines) == SMALL.trials + 1
    assert lines[-1]["params"] == asdict(earlier)


def test_the_best_settings_are_found_again_for_the_same_base_only(
    make_base: Callable[..., BaselineModel], tmp_path: Path
) -> None:
    given = supplies(make_base(), tmp_path)
    assert search.tuned(given) == {}
    chosen = RomeParams(layer=1, prefixes=0)
    search.keep_tuned(given, {"rome": (chosen, {"score": 0.5, "params": asdict(chosen)})})
    other = IceParams(facts=2)
    search.keep_tuned(given, {"ice": (other, {"score": 0.5, "params": asdict(other)})})
    assert search.tuned(given) == {"rome": chosen, "ice": other}
    assert search.tuned(supplies(make_base(seed=1), tmp_path)) == {}


def test_the_settings_of_the_small_model_are_kept_with_the_project(tmp_path: Path) -> None:
    base = BaselineModel.load(QWEN2)
    found = search.tuned(supplies(base, tmp_path))
    assert set(found) == set(registry.METHODS)
    line = {"rome": (RomeParams(layer=1), {"score": 0.5, "params": asdict(RomeParams(layer=1))})}
    search.keep_tuned(supplies(base, tmp_path), line)
    assert search.tuned(supplies(base, tmp_path)) == {**found, "rome": RomeParams(layer=1)}, "a later search"


def test_a_method_that_changes_nothing_keeps_all_and_edits_none(
    make_base: Callable[..., BaselineModel], tmp_path: Path
) -> None:
    given = supplies(make_base(), tmp_path)
    lessons = search.edit_lessons(given, SMALL)
    assert lessons == search.edit_lessons(given, SMALL)
    assert all(one.request.subject in one.request.prompt for one in lessons)
    # Without facts put before it, every question is the base's own.
    found = search.trial(registry.editor("ice", given, IceParams(form="{question}")), given, lessons)
    assert found.locality == 1.0
    assert found.edit == 0.0
    tuned = search.trial(registry.editor("ft", given), given, lessons)
    assert tuned.edit == 1.0
    assert tuned.score > found.score


def test_edits_are_made_so_many_together_and_undone_before_the_next(
    make_base: Callable[..., BaselineModel], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = supplies(make_base(), tmp_path)
    lessons = search.edit_lessons(given, SMALL)
    editor = registry.editor("ft", given)
    made: list[int] = []
    edit, undo = editor.edit, editor.undo
    monkeypatch.setattr(editor, "edit", lambda requests: made.append(len(requests)) or edit(requests))
    monkeypatch.setattr(editor, "undo", lambda: made.append(0) or undo())
    search.trial(editor, given, lessons)
    search.trial(editor, given, lessons, together=2)
    assert made == [1, 0, 1, 0, 1, 0, 2, 0, 1, 0]
