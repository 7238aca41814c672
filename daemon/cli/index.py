"""`lte index`: check the vector index against the store, or rebuild it."""

from __future__ import annotations

from typing import Annotated

import typer

from daemon.cli import connect, output
from daemon.cli.exits import FAILED
from daemon.cli.options import AdminSocket, ConfigFile, Json

app = typer.Typer(add_completion=False, no_args_is_help=True, help="The vector index: verify, rebuild.")

# A million vectors take minutes; the usual deadline of a call is for questions.
_PATIENT_S = 3600.0
Patience = Annotated[float, typer.Option("--timeout", min=0.001, help="Seconds until the call gives up.")]


@app.command()
def verify(
    json_: Json = False,
    timeout: Patience = _PATIENT_S,
    admin_socket: AdminSocket = None,
    config: ConfigFile = None,
) -> None:
    """Compare the index with the store and with exact search; exit 1 when they differ.

    Example: lte index verify
    """
    with connect.client(connect.find(connect.flags(admin_socket=admin_socket), config)) as daemon:
        report = daemon.verify_index(timeout_s=timeout)
    if json_:
        output.as_json(report)
    else:
        output.pairs(report | {"problems": "\n".join(report["problems"])})
    if not report["ok"]:
        raise typer.Exit(FAILED)


@app.command()
def rebuild(
    json_: Json = False,
    timeout: Patience = _PATIENT_S,
    admin_socket: AdminSocket = None,
    config: ConfigFile = None,
) -> None:
    """Build the index again from the store; questions go on meanwhile.

    Example: lte index rebuild
    """
    with connect.client(connect.find(connect.flags(admin_socket=admin_socket), config)) as daemon:
        report = daemon.rebuild_index(timeout_s=timeout)
    if json_:
        output.as_json(report)
    else:
        output.note(f"rebuilt: {report['vectors']} vectors")
