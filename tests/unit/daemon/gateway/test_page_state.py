"""What the page keeps between requests, and what it sends."""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path

from daemon.gateway.page import rendering
from daemon.gateway.page.sessions import LIFETIME_S, MOST_SESSIONS, Sessions

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
