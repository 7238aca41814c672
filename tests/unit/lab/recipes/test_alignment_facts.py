"""The facts file of the shipped adapter: the training half, nothing withheld, readable by the trainer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lte_runtime.align.data.facts import load
from lte_runtime.align.stock.split import held_out
from ops.lab.recipes import alignment_facts

TOWNS = [f"Town {number}" for number in range(20)]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "knowedit"
    folder.mkdir()
    rivers = [
        {
            "subject": town,
            "prompt": f"The river of {town} is",
            "target_new": f"Łek {number}",
            "rephrase_prompt": f"Which river flows through {town}?",
        }
        for number, town in enumerate(TOWNS)
    ]
    ships = [
        {"subject": town, "prompt": f"The captain of {town} is", "target_new": "Ida Moen"} for town in TOWNS
    ]
    for name, records in (("zsre", rivers), ("wiki_recent", ships), ("wiki_counterfact", [])):
        (folder / f"{name}.json").write_text(json.dumps(records), encoding="utf-8")
    return tmp_path


def test_the_trainer_reads_the_training_half_without_withheld_families(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert alignment_facts.main(["--data", str(data)]) == 0
    printed = capsys.readouterr().out
    path = tmp_path / "facts.jsonl"
    path.write_text(printed, encoding="utf-8")
    loaded = load(path)
    assert loaded == tuple(alignment_facts.facts(data)), "nothing is lost on the way"
    assert [fact.subject for fact in loaded] == [town for town in TOWNS if not held_out(town)]
    assert 3 < len(loaded) < 17
    first = loaded[0]
    assert (first.relation, first.rephrased) == ("river", (f"Which river flows through {first.subject}?",))
    assert first.target in printed, "letters stay readable"


def test_missing_data_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert alignment_facts.main(["--data", str(tmp_path)]) == 2
    assert "zsre.json" in capsys.readouterr().err
