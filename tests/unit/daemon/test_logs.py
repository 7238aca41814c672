"""Logs: shape, and no fact text at INFO."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from daemon import logs


@pytest.fixture(autouse=True)
def _restore() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def _lines(level: str) -> list[dict[str, object]]:
    stream = io.StringIO()
    logs.configure(level, "json", stream)
    log = structlog.get_logger("daemon.ingest.ingest")
    log.info("applied", edit_id="e-1", statement="The CEO of Acme is Ann Lee.", subject="Acme")
    logging.getLogger("daemon.other").info("counted", extra={"question": "Who leads Acme?", "n": 3})
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_info_lines_carry_ids_and_no_fact_text() -> None:
    applied, counted = _lines("info")
    assert applied["event"] == "applied"
    assert applied["edit_id"] == "e-1"
    assert applied["level"] == "info"
    assert counted["n"] == 3
    printed = json.dumps([applied, counted])
    assert "Ann Lee" not in printed
    assert "Acme" not in printed


def test_debug_shows_text() -> None:
    applied, _ = _lines("debug")
    assert applied["statement"] == "The CEO of Acme is Ann Lee."


def test_level_is_kept() -> None:
    assert _lines("warning") == []


def test_an_exception_is_one_json_line() -> None:
    stream = io.StringIO()
    logs.configure("info", "json", stream)
    try:
        raise ValueError("broken")
    except ValueError:
        structlog.get_logger("x").exception("failed", job="snapshot")
    (line,) = stream.getvalue().splitlines()
    assert "ValueError: broken" in json.loads(line)["exception"]
