"""`lte index rekey`: what people and programs read of it, and when it says no."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import spellings
from test_rekey import unpacked

from daemon.cli import exits
from daemon.cli.app import app

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return unpacked(spellings.PUBLISHERS, tmp_path)


@pytest.fixture
def rekey(
    state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Run:
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[int, str, str]:
        words = ["index", "rekey", "--state-dir", str(state), *arguments]
        try:
            code = exits.guarded(lambda: app(args=words, prog_name="lte"))
        except SystemExit as end:
            code = int(end.code or 0)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def test_a_dry_run_lists_what_would_be_joined(rekey: Run) -> None:
    code, out, err = rekey("--dry-run")
    assert code == exits.OK
    columns, first, second, *_ = out.splitlines()
    assert columns == "key\twritten as\tpublishers\tedits"
    assert first == "\t".join(
        ("default/dun-laoghaire depot/opening time", "default/dun–laoghaire depot/opening time", "shop", "1")
    )
    assert second.endswith("cms\t1")
    assert "12 of 44 keys would get another form" in err
    assert "would be joined: 9 keys, 1 of different publishers" in err


def test_publishers_are_joined_on_a_word_and_listed_afterwards(rekey: Run) -> None:
    code, _, err = rekey()
    assert code == exits.REFUSED
    assert "lte index rekey --join-publishers" in err
    code, out, _ = rekey("--json", "--dry-run")
    before = json.loads(out)
    assert (before["pending"], before["changed"]) == (True, 12)
    code, out, _ = rekey("--json", "--join-publishers")
    assert code == exits.OK
    assert json.loads(out) == before | {"pending": False}
    code, out, err = rekey("--json")
    after = json.loads(out)
    assert code == exits.OK
    counts = ("joined_count", "across_publishers_count")
    assert [after[name] for name in counts] == [before[name] for name in counts] == [9, 1]
    assert (after["pending"], after["changed"], after["keys"]) == (False, 0, 33)
    assert after["joined"][0]["key"] == before["joined"][0]["key"]
    _, _, err = rekey()
    assert "the 33 keys have the form of this version" in err


def test_a_directory_without_a_store_is_named(rekey: Run, state: Path) -> None:
    (state / "edits.db").unlink()
    code, _, err = rekey("--dry-run")
    assert code == exits.NOT_FOUND
    assert "there is no store at" in err
