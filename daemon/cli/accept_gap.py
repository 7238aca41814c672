"""`lte accept-gap`: go on although history is missing."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any

import typer

from daemon.cli import connect, output
from daemon.cli.options import AdminSocket, ConfigFile, Json

app = typer.Typer(add_completion=False)


class LostEdits(StrEnum):
    """What becomes of edits that only a lost part of the log held."""

    KEEP = "keep"
    WITHDRAW = "withdraw"


@app.command("accept-gap")
def accept_gap(
    lost: Annotated[
        LostEdits,
        typer.Option(help="Edits that only a lost part of the log held: keep them, or withdraw them."),
    ] = LostEdits.KEEP,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what accepting would do.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    json_: Json = False,
    admin_socket: AdminSocket = None,
    config: ConfigFile = None,
) -> None:
    """Accept that history is missing, and go on after it.

    History is missing when the log was trimmed, when the topic was made anew, or when brokers lost the end
    of a log. In the last case the edits that only the lost end held are listed: they are kept, or withdrawn
    with --lost withdraw.

    Example: lte accept-gap --dry-run; lte accept-gap --lost withdraw --yes
    """
    withdraw = lost is LostEdits.WITHDRAW
    with connect.client(connect.find(connect.flags(admin_socket=admin_socket), config)) as daemon:
        if not yes and not dry_run:
            expected = daemon.accept_gap(dry_run=True)
            _show_lost(expected)
            question = f"{expected['message']}\nGo on without what is missing?"
            if expected["lost_count"]:
                question += f" {expected['lost_count']} lost edits: {lost.value}."
            typer.confirm(question, abort=True, err=True)
        reply = daemon.accept_gap(withdraw_lost=withdraw, dry_run=dry_run)
    if json_:
        output.as_json(reply)
        return
    output.note(reply["message"])
    _show_lost(reply)
    output.table(
        ("partition", "goes on at"), ((w["partition"], w["next_offset"]) for w in reply["resumed_at"])
    )


def _show_lost(reply: Mapping[str, Any]) -> None:
    if not reply["lost_count"]:
        return
    output.note(f"{reply['lost_count']} edits were only in the lost part of the log:")
    output.table(
        ("edit", "operation", "subject", "relation", "target", "offset"),
        (
            (
                edit["id"],
                edit["op"],
                (edit["key"] or {}).get("subject", ""),
                (edit["key"] or {}).get("relation", ""),
                edit["target"],
                f"{edit['position']['partition']}/{edit['position']['offset']}",
            )
            for edit in reply["lost"]
        ),
    )
    if reply["lost_count"] > len(reply["lost"]):
        output.note(f"... and {reply['lost_count'] - len(reply['lost'])} more")
