"""What `lte ask` shows beside the answer."""

from __future__ import annotations

from typing import Any

import pytest

from daemon.cli import ask


def cited(edit: str, **fields: Any) -> dict[str, Any]:
    key = {"subject": "vask depot", "relation": "article"}
    common = {"edit_id": edit, "statement": "s", "hop": 1, "score": 1.0, "position": None, "key": key}
    return {**common, "members": 1, "superseded": False, "held_from": None, "held_until": None, **fields}


def test_a_cut_list_is_a_warning(capsys: pytest.CaptureFixture[str]) -> None:
    ask._citations([cited("a", members=3), cited("b", members=3)])
    assert "only 2 of the 3 values of the article of vask depot" in capsys.readouterr().err
    ask._citations([cited("a", members=2), cited("b", members=2)])
    assert "warning" not in capsys.readouterr().err


def test_earlier_values_are_shown_with_the_time_in_which_they_held(
    capsys: pytest.CaptureFixture[str],
) -> None:
    ask._citations([cited("a", superseded=True, held_until="2021-01-01T00:00:00.000Z")])
    assert "? to 2021-01-01T00:00:00.000Z" in capsys.readouterr().out
