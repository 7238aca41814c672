"""`lte status`: what the daemon is doing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from daemon.cli import connect, output
from daemon.cli.exits import REFUSED
from daemon.cli.options import AdminSocket, ConfigFile, Json, Timeout

app = typer.Typer(add_completion=False)

# States in which questions are answered.
_ANSWERING = ("READY", "DEGRADED", "GAP", "SUSPENDED")

# With more, only how many are searched which way.
_NAMESPACES_SHOWN = 5


@app.command()
def status(
    check: Annotated[bool, typer.Option("--check", help="Exit 5 unless questions are answered.")] = False,
    json_: Json = False,
    timeout: Timeout = None,
    admin_socket: AdminSocket = None,
    config: ConfigFile = None,
) -> None:
    """State, lag, index, gate, queue, dead letters.

    Example: lte status --json | jq .ingest.partitions
    """
    where = connect.find(connect.flags(admin_socket=admin_socket, timeout=timeout), config)
    with connect.client(where) as daemon:
        reply = daemon.status()
    if json_:
        output.as_json(reply)
    else:
        output.pairs(summary(reply))
    if check and reply["state"] not in _ANSWERING:
        raise typer.Exit(REFUSED)


def summary(reply: Mapping[str, Any]) -> dict[str, object]:
    """The lines that people look for first."""
    memory, ingest, engine = (reply[name] or {} for name in ("memory", "ingest", "engine"))
    partitions = ingest.get("partitions", [])
    return {
        "state": reply["state"] + (" (stale)" if reply["stale"] else ""),
        "reasons": "; ".join(reply["reasons"]),
        "version": f"{reply['version']}, pid {reply['pid']}, since {reply['started']}",
        "ingest": f"{ingest.get('records')} records, {ingest.get('rejected')} rejected",
        "lag": " ".join(f"{p['partition']}:{_lag(p['lag'])}" for p in partitions),
        "last event": ingest.get("last_event"),
        "facts": f"{memory.get('current_facts')} current, {memory.get('edits')} edits",
        "index": _index(memory),
        "quarantine": f"{memory.get('quarantine_rows')} records, {memory.get('quarantine_pending')} unsent",
        "state size": f"{memory.get('state_bytes', 0) / 1e6:.1f} MB",
        "model": f"{engine.get('model')} on {engine.get('device')}, "
        f"{engine.get('engine')} {engine.get('dtype')}",
        "adapter": (engine.get("adapter") or {}).get("id"),
        "answers": f"{engine.get('requests')} asked, {engine.get('queue_depth')} waiting",
    }


def _lag(records: int) -> str:
    """A negative lag is one that nobody knows."""
    return str(records) if records >= 0 else "unknown"


def _index(memory: Mapping[str, Any]) -> str:
    path_of: Mapping[str, str] = memory.get("index_path", {})
    paths = ", ".join(f"{name}: {path}" for name, path in path_of.items())
    if len(path_of) > _NAMESPACES_SHOWN:
        counts = Counter(path_of.values()).items()
        paths = f"{len(path_of)} namespaces: " + ", ".join(f"{count} {path}" for path, count in counts)
    live, dead = memory.get("vectors_live"), memory.get("vectors_dead")
    return f"{live} live, {dead} dead" + (f" ({paths})" if paths else "")
