"""Templates to responses. Everything that goes into a template is escaped; nothing is inline but text."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastapi import Request
from fastapi.responses import HTMLResponse, Response
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from daemon.gateway.page.sessions import LIFETIME_S, LONGEST_TOKEN
from daemon.gateway.page.views import formats

_HERE = Path(__file__).parent
HTMX_INTEGRITY = "sha384-Qp9rdC8H7EqOoX+nR0P3RPG2Noji+qdwJlGpfzwQJsfOpp3sGwIdSP9xO3+UlEhn"
"""Of `static/htmx.min.js`, htmx.org 4.0.1 as published: a browser refuses another file."""

# Characters. A question's bound is the daemon's; names are far below what it takes.
LONGEST_QUESTION = 8192
LONGEST_NAME = 512
_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'; object-src 'none'",
    # Without a referrer a browser names no origin either, and the gateway refuses such a POST.
    "Referrer-Policy": "same-origin",
}
_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_STATIC = {path.name: path.read_bytes() for path in (_HERE / "static").iterdir() if path.suffix in _TYPES}


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for function in (
        formats.ago,
        formats.count,
        formats.figure,
        formats.iso,
        formats.label,
        formats.short,
        formats.size,
        formats.span,
    ):
        environment.filters[function.__name__] = function
    environment.globals.update(
        htmx_integrity=HTMX_INTEGRITY,
        longest_question=LONGEST_QUESTION,
        longest_name=LONGEST_NAME,
        longest_token=LONGEST_TOKEN,
        session_hours=round(LIFETIME_S / 3600),
    )
    return environment


_TEMPLATES = _environment()


def html(template: str, values: Mapping[str, Any], status: int = 200) -> HTMLResponse:
    """A page, or a part of one for htmx."""
    now_ms = time.time_ns() // 1_000_000
    text = _TEMPLATES.get_template(template).render(now_ms=now_ms, **values)
    return HTMLResponse(text, status, _HEADERS)


def part(request: Request, template: str, values: Mapping[str, Any], status: int = 200) -> HTMLResponse:
    """A part for htmx; on a page of its own for a browser that followed the link itself."""
    if request.headers.get("hx-request") == "true":
        return html(template, values, status)
    return html("part_page.html", {**values, "part": template}, status)


def static_file(name: str) -> Response:
    """A file of `static/`; 404 for any other name."""
    body = _STATIC.get(name)
    if body is None:
        return Response(status_code=404)
    headers = {**_HEADERS, "Cache-Control": "no-cache"}
    return Response(body, media_type=_TYPES[Path(name).suffix], headers=headers)
