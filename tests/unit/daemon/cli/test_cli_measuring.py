"""`lte gate` and `lte eval` with the stub encoder and model: the commands, not the figures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from daemon.cli import exits
from daemon.cli.app import app
from lte_runtime.answer.encoder import load_encoder
from lte_runtime.answer.scope import gate
from ops.lab.gate import gate_data
from tests.unit.answer.engine import tiny

RECORD = {
    "subject": "Velmora Systems",
    "prompt": "Who is the CEO of Velmora Systems?",
    "target_new": "Ina Torvald",
    "rephrase_prompt": "Velmora Systems is led by which CEO?",
    "portability": {"Subject_Aliasing": [{"prompt": "Velmora's CEO is", "ground_truth": ["Ina Torvald"]}]},
    "locality": {"Relation_Specificity": [{"prompt": "Where is Velmora Systems?", "ground_truth": ["Oslo"]}]},
}


@pytest.fixture(autouse=True)
def _stubs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LTE_ENCODER__MODEL", "stub")
    monkeypatch.setenv("LTE_MODEL__PATH", "stub")


def _lte(*arguments: str) -> int:
    try:
        return exits.guarded(lambda: app(args=list(arguments), prog_name="lte"))
    except SystemExit as end:
        return int(end.code or 0)


def test_gate_calibrate_writes_a_calibration_of_the_configured_encoder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = gate_data.generate(1, worlds=6)
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    assert _lte("gate", "calibrate", "--data", "rows.jsonl", "-o", "gate.json", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    written = gate.load(tmp_path / "gate.json")
    assert written.encoder == load_encoder("stub").fingerprint
    assert told["threshold"] == written.threshold
    assert written.report


def test_gate_calibrate_names_a_file_that_is_not_there() -> None:
    assert _lte("gate", "calibrate", "--data", "gone.jsonl") == exits.USAGE


def test_eval_knowedit_prints_figures_of_each_method_and_set(capsys: pytest.CaptureFixture[str]) -> None:
    Path("zsre.json").write_text(json.dumps([RECORD]), "utf-8")
    arguments = ("eval", "knowedit", "--data", ".", "--split", "all", "--limit", "1")
    assert _lte(*arguments, "--json") == 0
    methods = json.loads(capsys.readouterr().out)["methods"]
    assert set(methods) == {"ours", "no-adapter"}
    figures = methods["ours"]["sets"]["zsre"]
    assert figures["n"] == 1
    assert set(figures) >= {"edit_success", "generality", "portability", "locality", "fluency"}

    assert _lte(*arguments, "--method", "ours") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "method\tset\tfigure\tvalue\tcontains"
    (edited,) = (line.split("\t") for line in lines if "\tedit_success\t" in line)
    assert edited[3:] == ["1.000", "1.000"]
    assert "contains." not in "".join(lines), "they stand in their own column"
    assert all(line.startswith("ours\tzsre\t") for line in lines[1:])


def test_eval_retrieval_needs_no_model(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LTE_MODEL__PATH", "no-such-model")
    Path("zsre.json").write_text(json.dumps([RECORD]), "utf-8")
    assert _lte("eval", "retrieval", "--data", ".", "--split", "all", "--json") == 0
    figures = json.loads(capsys.readouterr().out)["methods"]["retrieval"]["sets"]["zsre"]
    assert figures["n"] == 1
    assert set(figures["found"]) == {"edit", "rephrase", "alias"}


def test_eval_without_data_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert _lte("eval", "knowedit", "--data", "nowhere") == exits.NOT_FOUND
    assert "nowhere" in capsys.readouterr().err


def test_methods_are_searched_compared_and_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny.save_model(tmp_path / "model")
    monkeypatch.setenv("LTE_MODEL__PATH", str(tmp_path / "model"))
    monkeypatch.setenv("LTE_MODEL__ADAPTER", "none")
    Path("zsre.json").write_text(json.dumps([RECORD]), "utf-8")
    assert _lte("eval", "search", "--method", "ft", "--trials", "1", "--edits", "2", "--json") == 0
    assert json.loads(capsys.readouterr().out)["methods"]["ft"]["forced"] > 0.0
    assert len(Path(".cache/baselines/search.jsonl").read_text("utf-8").splitlines()) == 1

    asked = ("eval", "knowedit", "--data", ".", "--split", "all", "--mode", "single")
    assert _lte(*asked, "-m", "ft", "-m", "no-adapter", "--samples", "samples.jsonl", "--json") == 0
    printed = capsys.readouterr().out
    methods = json.loads(printed)["methods"]
    assert {name: one["settings"] for name, one in methods.items()} == {
        "ft": "searched",
        "no-adapter": "default",
    }
    assert methods["ft"]["sets"]["zsre"]["forced"]["edit_success"] > 0.0
    assert len(Path("samples.jsonl").read_text("utf-8").splitlines()) == 2

    Path("single.json").write_text(printed, "utf-8")
    assert _lte("eval", "report", "single.json", "-o", "page.md") == 0
    assert "| ft |" in Path("page.md").read_text("utf-8")
    assert _lte("eval", "report", "--data", ".", "-m", "ice", "--mode", "batch:1", "-o", "other.md") == 0
    assert "mode batch:1" in Path("other.md").read_text("utf-8")
    assert _lte("eval", "report") == exits.USAGE


def test_the_stub_has_no_weights_to_compare_methods_on(capsys: pytest.CaptureFixture[str]) -> None:
    Path("zsre.json").write_text(json.dumps([RECORD]), "utf-8")
    assert _lte("eval", "knowedit", "--data", ".", "--method", "rome") != 0
    assert "stub" in capsys.readouterr().err


def test_every_method_can_be_named() -> None:
    from ops.lab.cli.eval import Compared
    from ops.lab.evals import arms

    assert tuple(one.value for one in Compared if one is not Compared.ALL) == arms.ALL
