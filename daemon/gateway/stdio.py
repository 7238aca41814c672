"""`lte mcp`: the tools on stdin and stdout, with the rights of whoever started it."""

from __future__ import annotations

import asyncio
from pathlib import Path

from daemon.client import read_token
from daemon.gateway.daemon_calls import Caller, DaemonCalls
from daemon.gateway.mcp import create_server


def serve(daemon: DaemonCalls, token_file: Path | None) -> None:
    """Until stdin ends. `token_file`: whose first line is the token that goes along with each call. Raises
    `BadRequest` for a file that holds none."""
    caller = Caller(f"Bearer {read_token(token_file)}") if token_file else Caller("")
    asyncio.run(_serve(daemon, caller))


async def _serve(daemon: DaemonCalls, caller: Caller) -> None:
    try:
        await create_server(daemon, lambda _: caller).run_stdio_async()
    finally:
        await daemon.close()
