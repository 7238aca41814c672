"""`lte ingest`: resume an ingest that was suspended."""

from __future__ import annotations

import typer

from daemon.cli import connect, output
from daemon.cli.options import AdminSocket, ConfigFile, Json

app = typer.Typer(add_completion=False, no_args_is_help=True, help="The ingest: resume.")


@app.callback()
def _group() -> None:
    """Keeps `resume` a command of its own."""


@app.command()
def resume(json_: Json = False, admin_socket: AdminSocket = None, config: ConfigFile = None) -> None:
    """Go on after a suspension, once its reason (`lte status`) is out of the way.

    A full quarantine is given one more quota; what else can suspend ingest is in docs/operations.md.

    Example: lte status; lte ingest resume
    """
    with connect.client(connect.find(connect.flags(admin_socket=admin_socket), config)) as daemon:
        daemon.resume_ingest()
        status = daemon.status()
    if json_:
        output.as_json({"state": status["state"], "reasons": status["reasons"]})
    else:
        output.note(f"resumed; the state is {status['state']}")
