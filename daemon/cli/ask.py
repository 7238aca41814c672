"""`lte ask`: a question, its answer, and on request the evidence."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Annotated, Any

import typer

from daemon.cli import connect, output
from daemon.cli.options import Address, ConfigFile, Json, Namespace, Socket, Timeout
from lte_runtime.errors import BadRequest

app = typer.Typer(add_completion=False)


class ScopeOption(StrEnum):
    AUTO = "auto"
    EDITED = "edited"
    BASE = "base"


@app.command()
def ask(
    question: Annotated[str, typer.Argument(help="The question; - reads it from stdin.")],
    namespace: Namespace = "default",
    explain: Annotated[bool, typer.Option("--explain", "-e", help="Show scores, gate and timings.")] = False,
    stream: Annotated[bool, typer.Option("--stream", help="Print the answer while it is generated.")] = False,
    as_of: Annotated[
        str | None, typer.Option("--as-of", help="Answer from the facts that were valid at this time.")
    ] = None,
    at_least: Annotated[
        list[str] | None,
        typer.Option("--at-least", help="Wait for TOPIC_ID/PARTITION/OFFSET. Repeatable."),
    ] = None,
    scope: Annotated[ScopeOption, typer.Option(help="auto: the gate decides.")] = ScopeOption.AUTO,
    max_new_tokens: Annotated[int | None, typer.Option(min=1, help="Longest answer in tokens.")] = None,
    json_: Json = False,
    timeout: Timeout = None,
    address: Address = None,
    socket: Socket = None,
    config: ConfigFile = None,
) -> None:
    """Ask a question; the answer cites the edits it rests on.

    Examples:

    lte ask "Who is the CEO of Acme Corp?" --explain

    lte ask "Who was the CEO of Acme Corp?" --as-of 2024-06-30
    """
    request_fields: dict[str, Any] = {
        "question": sys.stdin.read().strip() if question == "-" else question,
        "namespace": namespace,
        "max_new_tokens": max_new_tokens,
        "at_least": [position(text) for text in at_least or []],
        "as_of": as_of,
        "scope": scope.value,
    }
    where = connect.find(connect.flags(address, socket, timeout=timeout), config)
    with connect.client(where) as daemon:
        if stream and not json_:
            reply = _print_stream(daemon.answer_stream(**request_fields))
        else:
            reply = daemon.answer(**request_fields)
            if not json_:
                print(reply["text"])
    if json_:
        output.as_json(reply)
    else:
        _show_evidence(reply, explain)


def _print_stream(parts: Iterable[str | dict[str, Any]]) -> dict[str, Any]:
    """Print pieces as they come; the last message holds the whole answer."""
    for part in parts:
        if isinstance(part, dict):
            print()
            return part
        print(part, end="", flush=True)
    raise AssertionError("the stream ended without its last message")


def _show_evidence(reply: Mapping[str, Any], explain: bool) -> None:
    for flag in ("stale", "gap"):
        if reply[flag]:
            output.note(f"warning: {flag}: {_FLAGS[flag]}")
    if reply["citations"]:
        _citations(reply["citations"])
    if explain:
        output.pairs(_explanation(reply), "Why")


_FLAGS = {
    "stale": "no broker has answered for a while; Kafka may hold newer facts",
    "gap": "history is missing; see `lte status` and `lte accept-gap`",
}


def _citations(citations: Sequence[Mapping[str, Any]]) -> None:
    """The table of citations; with the time in which they held where they are earlier values."""
    columns, rows = ["hop", "statement", "edit", "score", "position"], list(map(_citation, citations))
    if any(cited["superseded"] for cited in citations):
        columns.append("held")
        rows = [(*row, _held(cited)) for row, cited in zip(rows, citations, strict=True)]
    output.table(columns, rows, "Citations")
    for name, (shown, members) in _cut_lists(citations).items():
        output.note(f"warning: only {shown} of the {members} values of {name} were shown to the model")


def _held(cited: Mapping[str, Any]) -> str:
    if not cited["superseded"]:
        return "now"
    return f"{cited['held_from'] or '?'} to {cited['held_until'] or '?'}"


def _cut_lists(citations: Sequence[Mapping[str, Any]]) -> dict[str, tuple[int, int]]:
    """Sets of which fewer values are cited than they have: the cited number and the full one, by name."""
    cited_of: dict[str, list[int]] = {}
    for cited in citations:
        key = cited["key"] or {}
        name = " ".join(filter(None, (key.get("relation"), "of", key.get("subject"))))
        cited_of.setdefault(f"the {name}", []).append(cited["members"])
    return {name: (len(counts), counts[0]) for name, counts in cited_of.items() if len(counts) < counts[0]}


def _citation(cited: Mapping[str, Any]) -> tuple[object, ...]:
    at = cited["position"] or {}
    where = f"{at.get('partition')}/{at.get('offset')}"
    return cited["hop"], cited["statement"], cited["edit_id"], cited["score"], where


def _explanation(reply: Mapping[str, Any]) -> dict[str, object]:
    gate, adapter = reply["gate"] or {}, reply["adapter"] or {}
    stages = {f"{name} ms": value for name, value in reply["timings_ms"].items()}
    features = {f"feature {name}": value for name, value in (gate.get("features") or {}).items()}
    return {
        "scope": reply["scope"],
        "gate score": gate.get("score"),
        "gate threshold": gate.get("threshold"),
        "gate reason": gate.get("reason"),
        **features,
        "adapter": adapter.get("id", "none"),
        "engine": reply["runtime"],
        "index path": reply["index_path"],
        "finish": reply["finish"],
        **({"put right from": reply["corrected_from"]} if reply["corrected_from"] else {}),
        "watermarks": " ".join(f"{w['partition']}:{w['next_offset']}" for w in reply["watermarks"]),
        **stages,
    }


def position(text: str) -> dict[str, object]:
    """`TOPIC_ID/PARTITION/OFFSET`, as `lte publish --json` prints it. Raises `BadRequest`."""
    topic_id, _, offset = text.rpartition("/")
    topic_id, _, partition = topic_id.rpartition("/")
    if not (topic_id and partition.isdigit() and offset.isdigit()):
        raise BadRequest(f"--at-least {text!r} is not TOPIC_ID/PARTITION/OFFSET")
    return {"topic_id": topic_id, "partition": int(partition), "offset": int(offset)}
