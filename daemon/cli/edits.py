"""`lte edits`: what the edit memory holds, and why."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from typing import Annotated, Any

import typer

from daemon.cli import connect, output
from daemon.cli.key import Key, Prompt, Relation, Subject, key_parts
from daemon.cli.options import Address, ConfigFile, Json, Namespace, Socket

app = typer.Typer(add_completion=False, no_args_is_help=True, help="What the edit memory holds, and why.")

EditId = Annotated[str, typer.Argument(help="The edit's id.")]


@app.command("list")
def list_(
    namespace: Annotated[str | None, typer.Option("--namespace", "-n", help="Only this one.")] = None,
    subject: Annotated[str | None, typer.Option("--subject", "-s", help="Only this subject.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Most edits shown.")] = 100,
    json_: Json = False,
    address: Address = None,
    socket: Socket = None,
    config: ConfigFile = None,
) -> None:
    """Edits, newest first.

    Example: lte edits list -s "Acme Corp"
    """
    with connect.client(connect.find(connect.flags(address, socket), config)) as daemon:
        filters = {"namespace": namespace, "subject": subject}
        _show(connect.paged(daemon.list_edits, "edits", limit, **filters), json_)


@app.command()
def show(
    edit_id: EditId,
    json_: Json = False,
    address: Address = None,
    socket: Socket = None,
    config: ConfigFile = None,
) -> None:
    """One edit with everything that is known of it.

    Example: lte edits show 0b1f...
    """
    with connect.client(connect.find(connect.flags(address, socket), config)) as daemon:
        edit = daemon.get_edit(edit_id)
    if json_:
        output.as_json(edit)
    else:
        output.pairs({name: value for name, value in edit.items() if value not in (None, "", [])})


@app.command("dry-run")
def dry_run(
    subject: Subject = None,
    relation: Relation = None,
    target: Annotated[str | None, typer.Option("--target", "-t", help="The new value.")] = None,
    prompt: Prompt = None,
    retract: Annotated[bool, typer.Option("--retract", help="Withdraw the fact instead.")] = False,
    revision: Annotated[int | None, typer.Option(min=0, help="The edit's revision.")] = None,
    probes: Annotated[int, typer.Option(min=1, max=32, help="Most questions asked.")] = 16,
    namespace: Namespace = "default",
    json_: Json = False,
    address: Address = None,
    socket: Socket = None,
    config: ConfigFile = None,
) -> None:
    """Which answers an edit would change; nothing is published.

    Example: lte edits dry-run -s "Acme Corp" -r CEO -t "Ann Lee"
    """
    fact = {"subject": subject, "relation": relation, "target": target, "prompt": prompt}
    event: dict[str, Any] = {name: value for name, value in fact.items() if value is not None}
    event |= {"op": "retract" if retract else "assert", "namespace": namespace}
    if revision is not None:
        event["revision"] = revision
    with connect.client(connect.find(connect.flags(address, socket), config)) as daemon:
        effects = daemon.dry_run(event, max_probes=probes)
    if json_:
        output.as_json(effects)
        return
    if not effects["applied"]:
        output.note(f"questions would not see this edit; {effects['winner_id'] or 'nothing'} stands instead")
    rows = (
        (p["question"], p["before"], p["after"], "changes" if p["changed"] else "-")
        for p in effects["probes"]
    )
    output.table(("question", "now", "then", "answer"), rows, colours={"changes": "yellow"})


@app.command()
def history(
    key: Key = None,
    subject: Subject = None,
    relation: Relation = None,
    prompt: Prompt = None,
    namespace: Namespace = "default",
    limit: Annotated[int | None, typer.Option(min=1, help="Most edits shown; all without it.")] = None,
    json_: Json = False,
    address: Address = None,
    socket: Socket = None,
    config: ConfigFile = None,
) -> None:
    """All edits of one fact, the newest order first.

    Example: lte edits history -s "Acme Corp" -r CEO
    """
    parts = key_parts(namespace, subject, relation, prompt, key)
    filters = dict(zip(("namespace", "subject", "relation"), parts, strict=True))
    with connect.client(connect.find(connect.flags(address, socket), config)) as daemon:
        _show(connect.paged(daemon.history_page, "edits", limit or sys.maxsize, **filters), json_)


@app.command("why-not")
def why_not(
    edit_id: EditId,
    as_of: Annotated[str | None, typer.Option("--as-of", help="As things were valid then.")] = None,
    json_: Json = False,
    address: Address = None,
    socket: Socket = None,
    config: ConfigFile = None,
) -> None:
    """Why an edit is not what questions see, and which one is.

    Example: lte edits why-not 0b1f...
    """
    with connect.client(connect.find(connect.flags(address, socket), config)) as daemon:
        reply = daemon.why_not(edit_id, as_of=as_of)
    if json_:
        output.as_json(reply)
    else:
        output.pairs({"reason": reply["reason"], "winner": reply["winner_id"]})


def _show(edits: Iterable[dict[str, Any]], json_: bool) -> None:
    """Printed page by page while the daemon is asked for more."""
    if json_:
        output.as_json_list(edits)
    else:
        output.table(("edit", "state", "fact", "target", "at", "position"), _rows(edits))


def _rows(edits: Iterable[Mapping[str, Any]]) -> Iterable[tuple[object, ...]]:
    for edit in edits:
        fact = edit["prompt"] or f"{edit['subject']} / {edit['relation']}"
        at = edit["positions"][0] if edit["positions"] else {}
        where = f"{at.get('partition', '-')}/{at.get('offset', '-')}"
        yield edit["id"], edit["state"], fact, edit["target"], edit["timestamp"], where
