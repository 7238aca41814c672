"""`lte realign`: train the adapter again, watch the run, and see how earlier runs ended."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from typing import Annotated, Any

import typer

from daemon.cli import connect, output
from daemon.cli.exits import FAILED, REFUSED
from daemon.cli.options import AdminSocket, ConfigFile, Json

app = typer.Typer(
    add_completion=False,
    invoke_without_command=True,
    help="Train the adapter again on the current facts; it serves only when it is better.",
)

_ENDS = {"done": 0, "rejected": REFUSED, "failed": FAILED, "cancelled": FAILED}
_COLOURS = {"done": "green", "rejected": "yellow", "failed": "bold red", "cancelled": "dim"}
_WAIT_S = 86_400.0
# How long a command on the control topic may wait for an owner that is not busy.
_TTL_S = 3600.0


@app.callback()
def realign(
    context: typer.Context,
    wait: Annotated[bool, typer.Option("--wait", "-w", help="Show progress until it has ended.")] = False,
    reason: Annotated[str, typer.Option("--reason", help="Why; recorded with the run.")] = "",
    by_topic: Annotated[
        bool, typer.Option("--by-topic", help="Ask whoever owns re-alignment, through the control topic.")
    ] = False,
    json_: Json = False,
    admin_socket: AdminSocket = None,
    config: ConfigFile = None,
) -> None:
    """Start a run. With --wait the exit code says how it ended: 0 done, 5 rejected by the gate, 1 failed.

    Examples:

    lte realign --wait --reason "new product line"

    lte realign list
    """
    if context.invoked_subcommand is not None:
        return
    if by_topic:
        _ask_by_topic(reason, config, json_)
        return
    with _client(admin_socket, config) as daemon:
        run = daemon.trigger_realignment(reason)
        if wait:
            run = _follow(daemon.watch_realignment(run["id"], timeout_s=_WAIT_S), quiet=json_) or run
    _show(run, json_)
    if wait:
        raise typer.Exit(_ENDS.get(run["state"], FAILED))


def _ask_by_topic(reason: str, config: Any, json_: bool) -> None:
    """A command for the owner, whichever daemon that is; it is run once at most, within the hour."""
    import time

    from daemon.config import load
    from daemon.kafka.control import ask
    from daemon.parts.topics import control_settings

    settings = control_settings(load(config).settings)
    command = ask(settings, reason, _TTL_S, time.time_ns() // 1_000_000)
    if json_:
        output.as_json({"id": command.id, "expires_ms": command.expires_ms, "topic": settings.topic})
    else:
        output.note(f"sent command {command.id} to topic {settings.topic}")


@app.command("list")
def list_(
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Most runs shown.")] = 20,
    json_: Json = False,
    admin_socket: AdminSocket = None,
    config: ConfigFile = None,
) -> None:
    """Runs, the newest first.

    Example: lte realign list
    """
    with _client(admin_socket, config) as daemon:
        runs = daemon.realignments(page_size=limit)
    if json_:
        output.as_json(list(map(_plain, runs)))
        return
    rows = ((r["id"], r["created"], r["trigger"], r["adapter"], r["message"], r["state"]) for r in runs)
    output.table(("run", "created", "trigger", "adapter", "message", "state"), rows, colours=_COLOURS)


@app.command()
def show(
    run_id: Annotated[str, typer.Argument(help="Such as run-000007.")],
    wait: Annotated[bool, typer.Option("--wait", "-w", help="Show progress until it has ended.")] = False,
    json_: Json = False,
    admin_socket: AdminSocket = None,
    config: ConfigFile = None,
) -> None:
    """One run with its reasons, its progress and the gate's verdict.

    Example: lte realign show run-000007 --wait
    """
    with _client(admin_socket, config) as daemon:
        run = daemon.realignment(run_id)
        if wait:
            run = _follow(daemon.watch_realignment(run_id, timeout_s=_WAIT_S), quiet=json_) or run
    _show(run, json_)


@app.command()
def cancel(
    run_id: Annotated[str, typer.Argument(help="Such as run-000007.")],
    json_: Json = False,
    admin_socket: AdminSocket = None,
    config: ConfigFile = None,
) -> None:
    """End a run before it promotes anything.

    Example: lte realign cancel run-000007
    """
    with _client(admin_socket, config) as daemon:
        _show(daemon.cancel_realignment(run_id), json_)


def _client(admin_socket: Any, config: Any) -> Any:
    return connect.client(connect.find(connect.flags(admin_socket=admin_socket), config))


def _follow(updates: Iterable[dict[str, Any]], *, quiet: bool) -> dict[str, Any] | None:
    """The run as it ended; until then a bar on a terminal, one line for each change of state elsewhere."""
    last: dict[str, Any] | None = None
    for run in updates:
        if not quiet and sys.stderr.isatty():
            sys.stderr.write(f"\r\033[K{progress_line(run)}")
            sys.stderr.flush()
        elif not quiet and (last is None or last["state"] != run["state"]):
            output.note(f"{run['id']} {run['state']}")
        last = run
    if not quiet and sys.stderr.isatty():
        sys.stderr.write("\r\033[K")
    return last


def progress_line(run: Mapping[str, Any], width: int = 24) -> str:
    """State, bar, loss and time left in one line."""
    now = run["progress"] or {}
    total, step = now.get("total") or 0, now.get("step") or 0
    full = round(width * min(step / total, 1.0)) if total else 0
    parts = [f"\033[36m{run['state']:<9}\033[0m", "\033[32m" + "█" * full + "\033[0m" + "░" * (width - full)]
    if total:
        parts.append(f"{step}/{total}")
    if now.get("loss") is not None:
        parts.append(f"loss {now['loss']:.3f}")
    if now.get("remaining_s") is not None:
        parts.append(f"{now['remaining_s']:.0f} s left")
    return " ".join(parts)


def _show(run: Mapping[str, Any], json_: bool) -> None:
    if json_:
        output.as_json(_plain(run))
        return
    output.pairs(summary(run), f"Re-alignment {run['id']}")
    verdict = _verdict(run)
    if verdict.get("comparisons"):
        output.table(
            ("compared", "n", "difference", "lower bound", "must exceed", "verdict"),
            (_comparison(comparison) for comparison in verdict["comparisons"]),
            f"Verdict: {verdict['outcome']}",
            colours={"ok": "green", "NO": "bold red"},
        )
    if verdict.get("scores"):
        kinds = sorted({kind for shares in verdict["scores"].values() for kind in shares})
        rows = ((kind, *(shares.get(kind) for shares in verdict["scores"].values())) for kind in kinds)
        output.table(("right answers", *verdict["scores"]), rows)


def _plain(run: Mapping[str, Any]) -> dict[str, Any]:
    """With the verdict as an object."""
    return {name: value for name, value in run.items() if name != "verdict_json"} | {"verdict": _verdict(run)}


def _verdict(run: Mapping[str, Any]) -> dict[str, Any]:
    verdict: dict[str, Any] = json.loads(run["verdict_json"]) if run["verdict_json"] else {}
    return verdict


def _comparison(comparison: Mapping[str, Any]) -> tuple[object, ...]:
    figures = (f"{comparison[name]:+.3f}" for name in ("mean", "lower", "least"))
    return (comparison["name"], comparison["n"], *figures, "ok" if comparison["ok"] else "NO")


def summary(run: Mapping[str, Any]) -> dict[str, object]:
    return {
        "state": run["state"],
        "message": run["message"],
        "started by": run["trigger"],
        "reasons": "\n".join(run["reasons"]),
        "created": run["created"],
        "ended": run["ended"],
        "adapter": run["adapter"],
        "made from": f"{run['facts']} facts, {run['anchor']} replayed, {run['rows']} rows",
        "judged by": f"{run['probes']} probes",
        "attempt": run["attempt"],
    }
