"""`lte drift`: readings of quality, how far each is from its limit, and what would happen now."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import typer

from daemon.cli import connect, output
from daemon.cli.exits import REFUSED
from daemon.cli.options import AdminSocket, ConfigFile, Json, Timeout
from lte_runtime.drift.past import MOST_PAST
from lte_runtime.errors import BadRequest

app = typer.Typer(add_completion=False)

_COLUMNS = ("reading", "now", "n", "rule", "pooled", "limit", "margin", "sample", "state")
_COLOURS = {"REASON": "bold red", "ok": "green", "learning": "yellow"}


@app.command()
def drift(
    check: Annotated[
        bool, typer.Option("--check", help="Exit 5 when there is a reason to re-align.")
    ] = False,
    past: Annotated[
        int,
        typer.Option(
            "--past", min=0, max=MOST_PAST, help="With --json: so many of the last readings of each name too."
        ),
    ] = 0,
    json_: Json = False,
    timeout: Timeout = None,
    admin_socket: AdminSocket = None,
    config: ConfigFile = None,
) -> None:
    """Readings, thresholds, margins, and what would happen now.

    Examples:

    lte drift

    lte drift --json | jq .reasons

    lte drift --past 20 --json | jq .past
    """
    if past and not json_:
        raise BadRequest("--past is for --json: the table shows the newest readings alone")
    with connect.client(connect.find(connect.flags(None, None, admin_socket, timeout), config)) as daemon:
        reply = daemon.drift(past=past)
    if json_:
        output.as_json(reply)
    else:
        _show(reply)
    if check and reply["reasons"]:
        raise typer.Exit(REFUSED)


def _show(reply: Mapping[str, Any]) -> None:
    if not reply["enabled"]:
        output.note("drift is not watched: set drift.enabled = true to watch it")
        return
    output.table(_COLUMNS, rows(reply), "Drift", colours=_COLOURS)
    output.pairs(summary(reply), "What would happen now")


def rows(reply: Mapping[str, Any]) -> Iterator[tuple[object, ...]]:
    """One line for each rule, with the newest reading of its name; readings without a rule last."""
    newest = {reading["name"]: reading for reading in reply["readings"]}
    for rule in reply["margins"]:
        reading = newest.get(rule["name"], {})
        pooled = f"{rule['n']}/{rule['needed']}"
        figures = (rule["value"], rule["limit"], rule["margin"], pooled, state_of(rule))
        yield (
            rule["name"],
            _rounded(reading.get("value")),
            reading.get("n"),
            rule["kind"],
            *map(_rounded, figures),
        )
    ruled = {rule["name"] for rule in reply["margins"]}
    for name, reading in newest.items():
        if name not in ruled:
            yield (name, _rounded(reading["value"]), reading["n"], *[None] * 6)


def state_of(rule: Mapping[str, Any]) -> str:
    """REASON, ok, or learning while the sample is too small to say."""
    if rule["reason"]:
        return "REASON"
    return "learning" if rule["margin"] is None else "ok"


def _rounded(value: object) -> object:
    return f"{value:.5g}" if isinstance(value, float) else value


def summary(reply: Mapping[str, Any]) -> dict[str, object]:
    """Reasons, what holds a start back, and the verdict."""
    verdict = "a re-alignment starts" if reply["would_start"] else "nothing"
    return {
        "verdict": verdict,
        "reasons": "\n".join(f"{reason['name']}: {reason['detail']}" for reason in reply["reasons"]),
        "held back by": "\n".join(f"{block['name']}: {block['detail']}" for block in reply["blocks"]),
        "new edits": reply["new_edits"],
        "cycles of probes": f"{reply['cycles']}, the last at {reply['last_cycle'] or '-'}",
        "adapter since": reply["adapter_since"],
    }
