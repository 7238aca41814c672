"""The API as one page of plain HTML, made from its OpenAPI schema: no script, nothing of other sites."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

router = APIRouter(include_in_schema=False)
PATH = "/docs"
_STYLE = (
    "body{font:16px/1.5 sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}"
    "code{background:#8882;padding:0 .2rem}"
    "td,th{padding:.2rem .8rem .2rem 0;text-align:left;vertical-align:top}"
    ":root{color-scheme:light dark}"
)
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'"


@router.get(PATH)
async def api_page(request: Request) -> HTMLResponse:
    schema = request.app.openapi()
    head = "<!doctype html><html lang='en'><meta charset='utf-8'><title>lte API</title>"
    intro = (
        f"<style>{_STYLE}</style><h1>lte API</h1><p>The schema for programs: "
        "<a href='/openapi.json'><code>/openapi.json</code></a>. Errors have OpenAI's form.</p>"
    )
    body = "".join(_operations(schema))
    return HTMLResponse(head + intro + body, headers={"Content-Security-Policy": _POLICY})


def _operations(schema: Any) -> Iterator[str]:
    for path, methods in schema["paths"].items():
        for method, operation in methods.items():
            yield f"<h2><code>{method.upper()} {escape(path)}</code></h2>"
            yield f"<p>{escape(operation.get('description', ''))}</p>"
            yield _table("parameter", operation.get("parameters", ()))
            content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
            yield _table("body", _fields(schema, content.get("schema", {})))


def _fields(schema: Any, part: Any) -> Iterator[Any]:
    """The properties of a body, as parameters are written."""
    name = part.get("$ref", "").removeprefix("#/components/schemas/")
    resolved = schema["components"]["schemas"][name] if name else part
    required = resolved.get("required", ())
    for field, about in resolved.get("properties", {}).items():
        description = about.get("description", "")
        yield {"name": field, "schema": about, "description": description, "required": field in required}


def _table(kind: str, rows: Any) -> str:
    lines = "".join(map(_row, rows))
    return f"<table><tr><th>{kind}</th><th>type</th><th></th><th></th></tr>{lines}</table>" if lines else ""


def _row(row: Any) -> str:
    required = "required" if row.get("required") else ""
    texts = map(escape, (_type(row["schema"]), required, row.get("description", "")))
    return f"<tr><td><code>{escape(row['name'])}</code></td><td>{'</td><td>'.join(texts)}</td></tr>"


def _type(schema: Any) -> str:
    kinds = schema.get("anyOf") or [schema]
    names = [str(kind.get("type") or kind.get("$ref", "").rpartition("/")[2] or "any") for kind in kinds]
    return " or ".join(name for name in names if name != "null")
