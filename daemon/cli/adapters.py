"""`lte adapters`: list adapters, see which one serves and why, switch to another one and back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from daemon.cli import connect, output
from daemon.cli.exits import FAILED
from daemon.cli.options import AdminSocket, ConfigFile, Json
from lte_runtime.errors import NotFound

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    help="Adapters: list, show, add, activate, rollback, verify.",
)

_SHORT = 12
_COLOURS = {
    "serving": "bold green",
    "serving, tainted": "bold yellow",
    "tainted": "yellow",
    "damaged": "bold red",
}
Name = Annotated[str, typer.Argument(metavar="ID", help="From `lte adapters list`.")]
Reason = Annotated[str, typer.Option("--reason", "-r", help="Kept in the history.")]
# A large adapter is copied, checked and loaded.
Patience = Annotated[float, typer.Option("--timeout", min=0.001, help="Seconds until the call gives up.")]
_PATIENT_S = 600.0


@app.command("list")
def list_(json_: Json = False, admin_socket: AdminSocket = None, config: ConfigFile = None) -> None:
    """All adapters: which serves, which is tainted, which cannot be used.

    Examples:

    lte adapters list

    lte adapters list --json | jq '.adapters[] | select(.serving).id'
    """
    with connect.client(connect.find(connect.flags(admin_socket=admin_socket), config)) as daemon:
        listing = daemon.adapters()
    if json_:
        output.as_json(
            {**listing, "adapters": [with_parsed_json(adapter) for adapter in listing["adapters"]]}
        )
        return
    rows = (
        (
            adapter["id"],
            adapter["sha256"][:_SHORT],
            adapter["origin"],
            adapter["added"],
            verdict_text(adapter),
            state_text(adapter),
        )
        for adapter in listing["adapters"]
    )
    output.table(("id", "sha256", "origin", "added", "verdict", "state"), rows, colours=_COLOURS)
    if listing["serving"] is None:
        output.note("no adapter serves: edited questions are answered by the base model")


@app.command()
def show(id_: Name, json_: Json = False, admin_socket: AdminSocket = None, config: ConfigFile = None) -> None:
    """One adapter: verdict with its numbers, manifest, taint, and when it served.

    Example: lte adapters show align-000002
    """
    with connect.client(connect.find(connect.flags(admin_socket=admin_socket), config)) as daemon:
        listing = daemon.adapters()
    chosen = next((adapter for adapter in listing["adapters"] if adapter["id"] == id_), None)
    if chosen is None:
        raise NotFound(f"no adapter {id_}; `lte adapters list` shows what is there")
    moves = [move for move in listing["history"] if move["adapter"] in (id_, chosen["origin"])]
    if json_:
        output.as_json({**with_parsed_json(chosen), "history": moves})
        return
    fields = {
        field: value for field, value in chosen.items() if field not in ("verdict", "manifest", "tainted")
    }
    output.pairs(fields, id_)
    output.table(("verdict", "value"), dotted_rows(with_parsed_json(chosen)["verdict"]), "Verdict")
    output.table(("manifest", "value"), dotted_rows(with_parsed_json(chosen)["manifest"]), "Manifest")
    tainted = ((entry["edit_id"], entry["why"], entry["noted"]) for entry in chosen["tainted"])
    output.table(("edit", "why", "noted"), tainted, "No longer stands")
    periods = ((move["number"], move["time"], move["reason"], move["epoch"]) for move in moves)
    output.table(("move", "time", "reason", "epoch"), periods, "When it served")


@app.command()
def add(
    directory: Annotated[Path, typer.Argument(help="Adapter directory on the daemon's machine.")],
    note: Annotated[str, typer.Option("--note", help="Kept with the verdict.")] = "",
    json_: Json = False,
    timeout: Patience = _PATIENT_S,
    admin_socket: AdminSocket = None,
    config: ConfigFile = None,
) -> None:
    """Verify an adapter that was trained elsewhere, and add it to the registry. It does not serve yet.

    Example: lte adapters add ./trained/adapter --note "trained on the cluster"
    """
    with connect.client(connect.find(connect.flags(admin_socket=admin_socket), config)) as daemon:
        added = daemon.add_adapter(directory, note, timeout_s=timeout)
    if json_:
        output.as_json(added)
    else:
        output.note(f"added {added['id']} ({added['sha256'][:_SHORT]})")


@app.command()
def activate(
    id_: Annotated[str, typer.Argument(metavar="ID", help="An adapter's id, `configured`, or `none`.")],
    reason: Reason = "",
    json_: Json = False,
    timeout: Patience = _PATIENT_S,
    admin_socket: AdminSocket = None,
    config: ConfigFile = None,
) -> None:
    """Serve another adapter: load it beside the current one, try it, switch. Questions go on meanwhile.

    Examples:

    lte adapters activate align-000002 --reason "trial"

    lte adapters activate none
    """
    with connect.client(connect.find(connect.flags(admin_socket=admin_socket), config)) as daemon:
        _show_move(daemon.activate_adapter(id_, reason, timeout_s=timeout), json_)


@app.command()
def rollback(
    reason: Reason = "",
    json_: Json = False,
    timeout: Patience = _PATIENT_S,
    admin_socket: AdminSocket = None,
    config: ConfigFile = None,
) -> None:
    """Go back to the adapter that served before.

    Example: lte adapters rollback --reason "wrong prices"
    """
    with connect.client(connect.find(connect.flags(admin_socket=admin_socket), config)) as daemon:
        _show_move(daemon.rollback_adapter(reason, timeout_s=timeout), json_)


@app.command()
def verify(
    id_: Annotated[str, typer.Argument(metavar="[ID]", help="Default: all.")] = "",
    json_: Json = False,
    timeout: Patience = _PATIENT_S,
    admin_socket: AdminSocket = None,
    config: ConfigFile = None,
) -> None:
    """Check every byte of one adapter, or of all; exit 1 when something is wrong.

    Example: lte adapters verify
    """
    with connect.client(connect.find(connect.flags(admin_socket=admin_socket), config)) as daemon:
        report = daemon.verify_adapter(id_, timeout_s=timeout)
    if json_:
        output.as_json(report)
    else:
        rows = ((name, problem or "sound") for name, problem in sorted(report["problems"].items()))
        output.table(("id", "found"), rows)
    if not report["ok"]:
        raise typer.Exit(FAILED)


def _show_move(move: Mapping[str, Any], json_: bool) -> None:
    if json_:
        output.as_json(move)
    else:
        output.note(f"{move['adapter']} serves now (move {move['number']}: {move['reason']})")


def state_text(adapter: Mapping[str, Any]) -> str:
    """The most important of its states."""
    if adapter["problem"]:
        return "damaged"
    if adapter["serving"] and adapter["tainted"]:
        return "serving, tainted"
    if adapter["serving"]:
        return "serving"
    return "tainted" if adapter["tainted"] else "active" if adapter["active"] else ""


def verdict_text(adapter: Mapping[str, Any]) -> str:
    """The verdict in a few words, or what is wrong."""
    if adapter["problem"]:
        return str(adapter["problem"])
    verdict = with_parsed_json(adapter)["verdict"]
    for name in ("reason", "note", "by"):
        if verdict.get(name):
            return str(verdict[name])
    return ""


def with_parsed_json(adapter: Mapping[str, Any]) -> dict[str, Any]:
    """An adapter with verdict and manifest as values instead of JSON texts."""
    return {**adapter, **{name: json.loads(adapter[name] or "{}") for name in ("verdict", "manifest")}}


def dotted_rows(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, object]]:
    """Nested values as dotted names, one on each line."""
    rows: list[tuple[str, object]] = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            rows += dotted_rows(value, f"{prefix}{name}.")
        else:
            rows.append((f"{prefix}{name}", value))
    return rows
