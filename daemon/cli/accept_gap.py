"""`lte accept-gap`: go on although history is missing."""

from __future__ import annotations

from typing import Annotated

import typer

from daemon.cli import connect, output
from daemon.cli.options import AdminSocket, ConfigFile, Json

app = typer.Typer(add_completion=False)


@app.command("accept-gap")
def accept_gap(
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    json_: Json = False,
    admin_socket: AdminSocket = None,
    config: ConfigFile = None,
) -> None:
    """Accept that history is missing (trimmed, or the topic was made anew), and go on behind it.

    Example: lte accept-gap --yes
    """
    with connect.client(connect.find(connect.flags(admin_socket=admin_socket), config)) as daemon:
        if not yes:
            gap = daemon.status()["ingest"]["gap"] or "no gap is known"
            typer.confirm(f"{gap}\nGo on without what is missing?", abort=True, err=True)
        reply = daemon.accept_gap()
    if json_:
        output.as_json(reply)
        return
    output.note(reply["message"])
    output.table(
        ("partition", "goes on at"), ((w["partition"], w["next_offset"]) for w in reply["resumed_at"])
    )
