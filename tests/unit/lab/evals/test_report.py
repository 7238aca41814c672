"""Tables and pictures of compared methods."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from lte_runtime.errors import BadRequest, NotFound
from ops.lab.evals import report, tally

SIDE = {"edit": 0.5, "rephrase": None, "portability": {}, "locality": {"Forgetfulness": [1.0]}}
SAMPLE = {
    "free": SIDE,
    "contains": {**SIDE, "edit": 0.75},
    "additions": [0.25],
    "forced": SIDE,
    "belief": None,
    "rouge_l": None,
    "fluency": 451.2,
}


def result(mode: str, **more: Any) -> dict[str, Any]:
    figures = (
        tally.figures([SAMPLE] * 4) | {"seconds_per_edit": 0.25, "peak_mb": 512.0, "seconds": 900.0} | more
    )
    measured = {"sets": {"zsre": figures}, "settings": "default"}
    head = {"mode": mode, "split": "held-out", "limit": 4, "seed": 0, "base": "ab" * 32, "model": "llama"}
    lead = {"zsre": {"rome": [0.125, -0.25, 0.5]}}
    return {**head, "methods": {"rome": measured, "ours": {**measured, "settings": "searched"}}, "lead": lead}


def saved(tmp_path: Path, *results: dict[str, Any]) -> list[Path]:
    paths = [tmp_path / f"{number}.json" for number in range(len(results))]
    for path, one in zip(paths, results, strict=True):
        path.write_text(json.dumps(one), encoding="utf-8")
    return paths


def test_the_section_is_replaced_and_the_rest_of_the_page_stays(tmp_path: Path) -> None:
    page = tmp_path / "evaluation.md"
    page.write_text(f"# Mine\n\n{report.BEGIN}\nold\n{report.END}\n\nbehind\n", encoding="utf-8")
    paths = saved(tmp_path, result("single"), result("sequential:4", retested={"1": 1.0, "4": 0.25}))
    report.write(page, paths, "two cores")
    text = page.read_text(encoding="utf-8")
    assert text.startswith("# Mine\n")
    assert text.endswith("behind\n")
    assert "old" not in text
    assert "Machine: two cores." in text
    assert (
        "LLaMA, mode single (held-out part, at most 4 edits of a set, seed 0, base abababababab, 0.50 h)"
        in text
    )
    rows = [line for line in text.splitlines() if line.startswith("| rome")]
    assert rows.pop(0) == "| rome | 0.750 | +0.125 [-0.25, +0.50] |", "the summary of a mode stands first"
    assert rows[0].startswith("| rome | 0.500 [0.50, 0.50] |  |  | 1.000 [1.00, 1.00] |")
    assert " | 0.750 [0.75, 0.75] |  |  | 0.250 | " in rows[0], "values in sentences, and additions"
    assert rows[0].endswith("| 0.250 | 512 | +0.125 [-0.25, +0.50] |  | default |")
    assert "| rome | 1.000 | 0.250 |" in rows
    report.write(page, paths, "two cores")
    assert page.read_text(encoding="utf-8") == text, "written once more it is the same"


def test_pictures_are_sound_and_the_page_stands_alone(tmp_path: Path) -> None:
    page = tmp_path / "evaluation.md"
    report.write(page, saved(tmp_path, result("batch:10")), "m < n")
    drawn = ElementTree.parse(tmp_path / "evaluation-llama-batch-10-4.svg").getroot()
    assert sum(one.get("height") == "10" for one in drawn) == 4 + 2 * 2, "legend, and two bars a method"
    whole = (tmp_path / "evaluation.html").read_text(encoding="utf-8")
    assert "m &lt; n" in whole
    assert "<td>rome</td>" in whole
    assert "<svg" in whole


def test_results_of_one_mode_are_one_table() -> None:
    later = result("batch") | {"base": "ab" * 6, "hours": 0.25}
    later["methods"] = {"serac": later["methods"]["rome"]}
    later["lead"] = {"zsre": {"serac": [0.25, 0.125, 0.5]}}
    other = result("batch") | {"limit": None}
    first, second = report.joined([result("batch"), later, other])
    assert first["limit"] is None, "all edits of a set come first"
    assert list(second["methods"]) == ["ours", "serac", "rome"]
    assert second["lead"] == {"zsre": {"rome": [0.125, -0.25, 0.5], "serac": [0.25, 0.125, 0.5]}}
    assert report.hours(second) == 0.75
    again = result("batch", seconds_per_edit=3.0) | {"date": "2026-01-02"}
    again["methods"] = {
        name: {"sets": {"wikibio": one["sets"]["zsre"]}} for name, one in again["methods"].items()
    }
    (whole,) = report.joined([result("batch"), again])
    assert list(whole["methods"]["rome"]["sets"]) == ["zsre", "wikibio"]
    assert whole["methods"]["ours"]["sets"]["wikibio"]["seconds_per_edit"] == 3.0
    assert "2026-01-02, 0.50 h)" in report.headline(again)


def test_results_before_the_second_score_leave_its_cells_empty(tmp_path: Path) -> None:
    earlier = result("single")
    for measured in earlier["methods"].values():
        figures = measured["sets"]["zsre"]
        measured["sets"]["zsre"] = {
            key: figures[key] for key in figures if key not in ("contains", "invented_additions")
        }
    later = result("batch") | {"lead_contains": {"zsre": {"rome": [0.5, 0.25, 0.75]}}}
    page = tmp_path / "page.md"
    report.write(page, saved(tmp_path, earlier, later), "m")
    before, after = page.read_text(encoding="utf-8").split("mode batch")
    assert "| 0.750 [0.75, 0.75] |" not in before
    assert "| 0.750 [0.75, 0.75] |" in after
    assert "| +0.500 [+0.25, +0.75] | default |" in after


def test_what_is_no_result_is_refused(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    with pytest.raises(NotFound):
        report.write(page, [tmp_path / "none.json"], "")
    with pytest.raises(BadRequest, match="--mode"):
        report.write(page, saved(tmp_path, {"methods": {}}), "")
    (tmp_path / "bad.json").write_text("{", encoding="utf-8")
    with pytest.raises(BadRequest, match="not JSON"):
        report.write(page, [tmp_path / "bad.json"], "")
    assert report.machine().split()[1] == "cores"
