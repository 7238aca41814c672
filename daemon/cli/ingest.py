"""`lte ingest`: resume an ingest that was suspended, or skip the record that suspended it."""

from __future__ import annotations

from typing import Annotated

import typer

from daemon.cli import connect, output
from daemon.cli.options import AdminSocket, ConfigFile, Json

app = typer.Typer(add_completion=False, no_args_is_help=True, help="The ingest: resume, skip.")


@app.command()
def resume(json_: Json = False, admin_socket: AdminSocket = None, config: ConfigFile = None) -> None:
    """Resume a suspended ingest, once the reason that `lte status` shows is removed.

    A full quarantine gets one more quota; docs/operations.md lists what else can suspend ingest.

    Example: lte status; lte ingest resume
    """
    with connect.client(connect.find(connect.flags(admin_socket=admin_socket), config)) as daemon:
        daemon.resume_ingest()
        status = daemon.status()
    if json_:
        output.as_json({"state": status["state"], "reasons": status["reasons"]})
    else:
        output.note(f"resumed; the state is {status['state']}")


@app.command()
def skip(
    partition: Annotated[int, typer.Option("--partition", "-p", help="Partition, as `lte status` names it.")],
    offset: Annotated[int, typer.Option("--offset", "-o", help="Offset, as `lte status` names it.")],
    resume_at: Annotated[
        int | None, typer.Option(help="Skip everything before this offset; default: only this record.")
    ] = None,
    json_: Json = False,
    admin_socket: AdminSocket = None,
    config: ConfigFile = None,
) -> None:
    """Skip the unreadable record at which ingest is suspended, and go on after it.

    Refused unless ingest is suspended at exactly this record. `lte dlq list` shows what was skipped.

    Example: lte status; lte ingest skip --partition 2 --offset 1417
    """
    with connect.client(connect.find(connect.flags(admin_socket=admin_socket), config)) as daemon:
        reply = daemon.skip_record(partition, offset, resume_at=resume_at)
    if json_:
        output.as_json(reply)
    else:
        output.note(f"skipped; partition {partition} goes on at offset {reply['resumed_at']}")
