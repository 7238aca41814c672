"""`lte align` on a tiny random model with the stub encoder: the commands, not the figures."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from daemon.cli import align, connect, exits
from daemon.cli.app import app
from tests.unit.align.jobs import SMALL
from tests.unit.answer.engine import tiny

ROOT = Path(__file__).resolve().parents[4]
FACTS = [
    {"id": f"e{number}", "subject": subject, "relation": "owner", "target": target}
    | {"subject_aliases": [f"{subject[:2]}X"]}
    for number, (subject, target) in enumerate((("Bravex", "Tolmin"), ("Calder", "Ann Lee"), ("Dune", "Bo")))
]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save_model(tmp_path_factory.mktemp("base"))


@pytest.fixture(autouse=True)
def _tiny(tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LTE_ENCODER__MODEL", "stub")
    monkeypatch.setenv("LTE_MODEL__PATH", str(base))
    monkeypatch.setenv("LTE_MODEL__DEVICE", "cpu")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    Path("facts.jsonl").write_text("".join(json.dumps(fact) + "\n" for fact in FACTS), "utf-8")


def _lte(*arguments: str) -> int:
    try:
        return exits.guarded(lambda: app(args=list(arguments), prog_name="lte"))
    except SystemExit as end:
        return int(end.code or 0)


def test_data_shows_samples_with_their_facts_and_writes_the_rows(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("align", "data", "--facts", "facts.jsonl", "--cases", "60", "--explain", "--out", "rows")
    assert _lte(*arguments, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    lines = Path("rows/rows.jsonl").read_text("utf-8").splitlines()
    assert told["rows"] == len(lines) == sum(told["kinds"].values())
    assert told["samples"]["rephrased"][0]["facts"]
    assert set(told["edit_ids"]) <= {"e0", "e1", "e2"}
    assert _lte(*arguments) == 0
    shown = capsys.readouterr().out
    assert told["data_hash"] in shown
    sample = told["samples"]["rephrased"][0]
    assert sample["question"] in shown
    assert f"1. {sample['facts'][0]}" in shown


@pytest.mark.slow
@pytest.mark.timeout(900)  # starts a process that imports torch, on a machine that may be busy
def test_train_judges_the_adapter_and_goes_on_where_it_was(capsys: pytest.CaptureFixture[str]) -> None:
    changes = [part for name, value in SMALL.items() for part in ("--set", f"{name}={value}")]
    arguments = ("align", "train", "--facts", "facts.jsonl", "--preset", "demo", "--out", "job", *changes)
    assert _lte(*arguments, "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["status"], result["error"]) == ("done", None)
    assert Path("job/adapter/adapter_model.safetensors").exists()
    kinds = {probe.rpartition("-")[0] for probe in result["judged"]["candidate"]}
    assert kinds == {"edit_success", "generality", "locality", "general", "safety", "plain"}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("data", "--facts", "gone.jsonl"), "gone.jsonl"),
        (("data", "--facts", "facts.jsonl", "--preset", "huge"), "no preset"),
        (("train", "--facts", "facts.jsonl", "--set", "cases"), "name=value"),
        (("train", "--facts", "facts.jsonl", "--set", "nothing=1"), "nothing"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    arguments: tuple[str, ...], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _lte("align", *arguments) == exits.USAGE
    error = capsys.readouterr().err
    assert told in error
    assert not Path("align-job").exists()


def test_a_stub_model_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LTE_MODEL__PATH", "stub")
    assert _lte("align", "data", "--facts", "facts.jsonl") == exits.REFUSED


class _Daemon:
    """Two pages of edits: a current one, a superseded one, a retraction, a current one asked by prompt."""

    def list_edits(self, *, page_size: int, page_token: str) -> dict[str, Any]:
        assert page_size > 0
        if not page_token:
            old = FACTS[0] | {"op": "assert", "state": "superseded", "target": "Old"}
            return {"edits": [FACTS[0] | {"op": "assert", "state": "current"}, old], "next_page_token": "x"}
        gone = {"id": "r", "op": "retract", "state": "retraction", "subject": "Dune", "relation": "owner"}
        asked = {"id": "q", "op": "assert", "state": "current", "prompt": "Who?", "target": "Bo"}
        return {"edits": [gone, asked], "next_page_token": ""}


def test_without_a_file_the_daemons_current_facts_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connect, "client", lambda _where: nullcontext(_Daemon()))
    found, beside = align._facts(None, None, None, None, None)
    assert [(fact.edit_id, fact.target) for fact in found] == [("e0", "Tolmin"), ("q", "Bo")]
    assert beside == ()
