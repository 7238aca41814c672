"""`lte dlq`: records that are not valid edits."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Annotated, Any

import typer

from daemon.cli import connect, output
from daemon.cli.exits import FAILED
from daemon.cli.options import AdminSocket, ConfigFile, Json
from lte_runtime.errors import BadRequest

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Records that are not valid edits.")

# One call replays this many.
_MOST = 1000
_WAITING = ("pending", "dead_lettered")
_NOTHING: dict[str, Any] = {"records": 0, "applied_edit_ids": [], "rejected": 0}


@app.command("list")
def list_(
    limit: Annotated[int, typer.Option(min=1, help="Most records shown.")] = 100,
    json_: Json = False,
    admin_socket: AdminSocket = None,
    config: ConfigFile = None,
) -> None:
    """Quarantined records with their reasons, the oldest first.

    States: pending (not yet in the dead-letter topic), dead_lettered, replayed (an edit after all), erased.

    Examples:

    lte dlq list

    lte dlq list --json | jq '.[] | select(.code == "unknown_op") | .id'
    """
    with connect.client(connect.find(connect.flags(admin_socket=admin_socket), config)) as daemon:
        records = list(connect.paged(daemon.dead_letters, "dead_letters", limit))
    if json_:
        output.as_json(records)
        return
    rows = ((d["id"], d["code"], d["state"], _where(d), d["size_bytes"], d["message"]) for d in records)
    output.table(("id", "code", "state", "position", "bytes", "reason"), rows)


@app.command()
def show(
    id_: Annotated[int, typer.Argument(metavar="ID", help="From `lte dlq list`.")],
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
    ids: Annotated[list[int] | None, typer.Argument(metavar="[ID]...", help="From `lte dlq list`.")] = None,
    all_: Annotated[bool, typer.Option("--all", help="The first 1000 that wait to be replayed.")] = False,
    json_: Json = False,
    admin_socket: AdminSocket = None,
    config: ConfigFile = None,
) -> None:
    """Decode and apply records again, at their original positions: after an upgrade or a change of limits.

    A record that is still not a valid edit stays in the quarantine, and the exit code is 1. To correct a
    wrong record, publish a corrected one.

    Examples:

    lte dlq replay 17 18

    lte dlq replay --all
    """
    if bool(ids) == all_:
        raise BadRequest("name the records by their ids, or use --all")
    with connect.client(connect.find(connect.flags(admin_socket=admin_socket), config)) as daemon:
        listed = connect.paged(daemon.dead_letters, "dead_letters", sys.maxsize)
        chosen = waiting(listed) if all_ else list(ids or [])
        reply = daemon.replay_dead_letters(chosen) if chosen else _NOTHING
    if json_:
        output.as_json(reply)
    else:
        applied = len(reply["applied_edit_ids"])
        output.note(f"{reply['records']} replayed, {applied} applied, {reply['rejected']} still not valid")
    if reply["rejected"]:
        raise typer.Exit(FAILED)


def waiting(records: Iterable[Mapping[str, Any]]) -> list[int]:
    """Ids of the records that can be replayed and were not yet, as many as one call takes."""
    return list(islice((record["id"] for record in records if record["state"] in _WAITING), _MOST))


def _where(record: dict[str, dict[str, object]]) -> str:
    at = record["position"]
    return f"{record['topic']}/{at['partition']}/{at['offset']}"
