"""`lte gateway`: HTTP in front of a daemon, in the foreground until SIGTERM or Ctrl-C."""

from __future__ import annotations

from typing import Annotated

import typer

from daemon.cli.options import Address, ConfigFile
from daemon.cli.serve import configured

EXAMPLES = """
[bold]Examples[/bold]

lte gateway                                    loopback; asking and reading need no token

lte gateway --listen 127.0.0.1:9000 --address 127.0.0.1:50051

curl http://127.0.0.1:8464/v1/chat/completions -H 'Content-Type: application/json' \\
  -d '{"model": "lte", "messages": [{"role": "user", "content": "Who is the CEO of Acme Corp?"}]}'
"""
app = typer.Typer(add_completion=False, rich_markup_mode="rich")


@app.command(epilog=EXAMPLES)
def gateway(
    config: ConfigFile = None,
    listen: Annotated[
        str | None, typer.Option(help="host:port; not loopback needs TLS or trusted proxies, and hosts.")
    ] = None,
    address: Address = None,
    log_level: Annotated[str | None, typer.Option(help="debug, info, warning or error.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Any other setting: section.field=value. Repeatable.")
    ] = None,
) -> None:
    """Serve the daemon over HTTP: OpenAI's chat completions, REST for facts, MCP and a page for people."""
    flags = {"gateway.listen": listen, "client.address": address, "log.level": log_level}
    settings = configured(config, flags, set_ or [])

    from daemon.gateway.process import serve

    serve(settings)
