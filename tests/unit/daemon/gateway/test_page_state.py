"""What the page keeps between requests, and what it sends."""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path

from google.protobuf.timestamp_pb2 import Timestamp

from daemon.gateway.page import rendering
from daemon.gateway.page.reading_history import MOST_NAMES, MOST_POINTS, ReadingHistory
from daemon.gateway.page.sessions import LIFETIME_S, MOST_SESSIONS, Sessions
from daemon.rpc.gen.lte.v1 import admin_service_pb2 as admin

ROOT = Path(__file__).resolve().parents[4]
PAGE = ROOT / "daemon" / "gateway" / "page"


def test_a_session_gives_its_token_until_it_ends() -> None:
    sessions = Sessions()
    session_id = sessions.open("secret", now_s=0.0)
    assert "secret" not in session_id
    assert sessions.token(session_id, LIFETIME_S - 1) == "secret"
    assert sessions.token(session_id, LIFETIME_S) is None
    assert sessions.token(session_id, 0.0) is None
    assert sessions.token(None, 0.0) is None


def test_a_closed_session_gives_nothing() -> None:
    sessions = Sessions()
    session_id = sessions.open("secret", 0.0)
    sessions.close(session_id)
    sessions.close(session_id)
    assert sessions.token(session_id, 0.0) is None


def test_the_oldest_of_too_many_sessions_ends() -> None:
    sessions = Sessions()
    ids = [sessions.open(f"token {number}", 0.0) for number in range(MOST_SESSIONS + 1)]
    assert sessions.token(ids[0], 0.0) is None
    assert sessions.token(ids[1], 0.0) == "token 1"


def report(value: float, second: int, *names: str) -> admin.GetDriftResponse:
    time = Timestamp(seconds=second)
    return admin.GetDriftResponse(
        readings=[admin.DriftReading(name=name, value=value, n=1, time=time) for name in names]
    )


def test_a_reading_is_noted_once() -> None:
    past = ReadingHistory()
    past.note(report(0.9, 1, "alias"))
    past.note(report(0.9, 1, "alias"))
    assert past.note(report(0.8, 2, "alias")) == {"alias": ((1000, 0.9), (2000, 0.8))}


def test_a_reading_of_nothing_is_not_noted() -> None:
    empty = admin.DriftReading(name="choice", value=0.0, n=0, time=Timestamp(seconds=1))
    assert ReadingHistory().note(admin.GetDriftResponse(readings=[empty])) == {}


def test_the_history_of_readings_is_bounded() -> None:
    past = ReadingHistory()
    for second in range(MOST_POINTS + 5):
        points = past.note(report(second, second + 1, "alias"))
    assert len(points["alias"]) == MOST_POINTS
    assert points["alias"][0][1] == 5
    names = [f"name {number}" for number in range(MOST_NAMES + 5)]
    assert len(past.note(report(0, 1, *names))) == MOST_NAMES


def test_htmx_is_the_file_that_was_published() -> None:
    digest = hashlib.sha384((PAGE / "static" / "htmx.min.js").read_bytes()).digest()
    assert f"sha384-{base64.b64encode(digest).decode()}" == rendering.HTMX_INTEGRITY
    assert rendering.HTMX_INTEGRITY.removeprefix("sha384-") in (ROOT / "NOTICE").read_text("utf-8")


def test_templates_hold_no_script_style_or_handler_inline() -> None:
    for template in (PAGE / "templates").iterdir():
        text = template.read_text("utf-8")
        inline = re.findall(r"<style| style=| on\w+=|hx-on|\|safe|Markup|javascript:", text)
        assert inline == [], template.name
        assert all("src=" in tag for tag in text.split("<script")[1:]), template.name


def test_only_files_of_the_page_are_sent() -> None:
    assert rendering.static_file("page.css").media_type == "text/css"
    assert rendering.static_file("../routes.py").status_code == 404
    assert rendering.static_file("page.html").status_code == 404
