"""`lte mcp`: the daemon's tools for an assistant that starts them itself, on stdin and stdout."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from daemon.cli import connect
from daemon.cli.options import Address, ConfigFile, Socket, Timeout
from daemon.client import target
from lte_runtime.errors import BadRequest

EXAMPLES = """
[bold]Examples[/bold]

lte mcp                                            the tools of the daemon in this directory

lte mcp --address unix:/run/lte/lte.sock --token-file ~/.lte-token
"""
# The default of gRPC in both directions: a page of long facts may be larger than what the daemon takes.
MAX_MESSAGE_BYTES = 4 << 20
app = typer.Typer(add_completion=False, rich_markup_mode="rich")


@app.command(epilog=EXAMPLES)
def mcp(
    address: Address = None,
    socket: Socket = None,
    token_file: Annotated[
        Path | None, typer.Option(help="File with the token to send; publish_fact needs a publisher's.")
    ] = None,
    timeout: Timeout = None,
    config: ConfigFile = None,
) -> None:
    """Serve the Model Context Protocol on stdin and stdout: ask, find_facts, history, why_not, publish_fact.

    An assistant starts this by itself; docs/gateway.md shows its configuration. HTTP has the same at /mcp.
    """
    where = connect.find(connect.flags(address, socket, timeout=timeout), config)
    address = target(where.address)
    if address is None:
        raise BadRequest("say where the daemon is: --address or --socket")
    token = token_file or (Path(where.token_file) if where.token_file else None)

    from daemon import logs
    from daemon.gateway.daemon_calls import DaemonCalls
    from daemon.gateway.stdio import serve

    logs.configure("warning")
    daemon = DaemonCalls(
        address,
        tls_ca=Path(where.tls_ca) if where.tls_ca else None,
        token_needed=False,
        timeout_s=where.timeout_s or 30.0,
        max_message_bytes=MAX_MESSAGE_BYTES,
        tls_cert=Path(where.tls_cert) if where.tls_cert else None,
        tls_key=Path(where.tls_key) if where.tls_key else None,
    )
    serve(daemon, token)
