"""`lte dlq`: records that were no edits."""

from __future__ import annotations

from typing import Annotated

import typer

from daemon.cli import connect, output
from daemon.cli.exits import FAILED
from daemon.cli.options import AdminSocket, ConfigFile, Json
from lte_runtime.errors import BadRequest

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Records that were no edits.")

# One call replays this many.
_MOST = 1000


@app.command("list")
def list_(
    limit: Annotated[int, typer.Option(min=1, help="Most records shown.")] = 100,
    json_: Json = False,
    admin_socket: AdminSocket = None,
    config: ConfigFile = None,
) -> None:
    """Quarantined records with their reasons.

    Example: lte dlq list --json | jq .[].code
    """
    with connect.client(connect.find(connect.flags(admin_socket=admin_socket), config)) as daemon:
        found = list(connect.paged(daemon.dead_letters, "dead_letters", limit))
    if json_:
        output.as_json(found)
        return
    rows = ((d["id"], d["code"], d["state"], _where(d), d["size_bytes"], d["message"]) for d in found)
    output.table(("id", "code", "state", "position", "bytes", "reason"), rows)


@app.command()
def show(
    id_: Annotated[int, typer.Argument(metavar="ID")],
    json_: Json = False,
    admin_socket: AdminSocket = None,
    config: ConfigFile = None,
) -> None:
    """One record as it came: key, value, headers, reason.

    Example: lte dlq show 17
    """
    with connect.client(connect.find(connect.flags(admin_socket=admin_socket), config)) as daemon:
        record = daemon.dead_letter(id_)
    if json_:
        output.as_json(record)
    else:
        output.pairs(record)


@app.command()
def replay(
    ids: Annotated[list[int] | None, typer.Argument(metavar="[ID]...")] = None,
    all_: Annotated[bool, typer.Option("--all", help="The first 1000 that were not replayed yet.")] = False,
    json_: Json = False,
    admin_socket: AdminSocket = None,
    config: ConfigFile = None,
) -> None:
    """Decode and apply records again, at their original positions; after an upgrade, say.

    Example: lte dlq replay 17 18
    """
    if bool(ids) == all_:
        raise BadRequest("name the records by their ids, or take --all")
    with connect.client(connect.find(connect.flags(admin_socket=admin_socket), config)) as daemon:
        chosen = list(ids or [])
        if all_:
            listed = connect.paged(daemon.dead_letters, "dead_letters", _MOST)
            chosen = [record["id"] for record in listed if record["state"] != "replayed"]
        reply = daemon.replay_dead_letters(chosen)
    if json_:
        output.as_json(reply)
    else:
        applied = len(reply["applied_edit_ids"])
        output.note(f"{reply['records']} replayed, {applied} applied, {reply['rejected']} still no edits")
    if reply["rejected"]:
        raise typer.Exit(FAILED)


def _where(record: dict[str, dict[str, object]]) -> str:
    at = record["position"]
    return f"{record['topic']}/{at['partition']}/{at['offset']}"
