"""The table of commands. A command's module is imported when the command is called, not before."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from daemon.cli.exits import guarded

EXAMPLES = """
[bold]Examples[/bold]

lte up                      a broker and a daemon to try things on

lte publish -s "Acme Corp" -r CEO -t "Ann Lee" --wait

lte ask "Who is the CEO of Acme Corp?" --explain

lte status --json | jq .state

[bold]Exit codes[/bold]

0 done, 1 failed, 2 usage, 3 not reachable, 4 not found, 5 refused until
an operator acts, 6 deadline passed, 7 overloaded, 130 interrupted
"""


@dataclass(frozen=True)
class CommandEntry:
    """One line of the table: module and help; `module` is empty for commands that live beside the package."""

    module: str
    help: str
    panel: str


_ASK, _FACTS, _RUN, _WORK = "Questions", "Facts", "Running", "Quality"
TABLE = {
    "ask": CommandEntry("daemon.cli.ask", "Ask a question; the answer cites the edits it rests on.", _ASK),
    "publish": CommandEntry(
        "daemon.cli.publish", "Publish facts to Kafka, from flags, a file or stdin.", _FACTS
    ),
    "retract": CommandEntry("daemon.cli.retract", "Withdraw a fact; the previous one comes back.", _FACTS),
    "erase": CommandEntry(
        "daemon.cli.erase", "Remove a fact's text and vectors for good, with a receipt.", _FACTS
    ),
    "edits": CommandEntry("daemon.cli.edits", "Look at edits: list, show, history, why-not.", _FACTS),
    "dlq": CommandEntry("daemon.cli.dlq", "Records that are not valid edits: list, show, replay.", _FACTS),
    "serve": CommandEntry("daemon.cli.serve", "Run the daemon.", _RUN),
    "gateway": CommandEntry(
        "daemon.cli.gateway", "HTTP for a daemon: OpenAI's API, REST, MCP, a page.", _RUN
    ),
    "mcp": CommandEntry("daemon.cli.mcp", "Tools for an assistant, on stdin and stdout.", _RUN),
    "status": CommandEntry("daemon.cli.status", "State, lag, index, gate, queue, dead letters.", _RUN),
    "ingest": CommandEntry("daemon.cli.ingest", "Resume an ingest that was suspended.", _RUN),
    "accept-gap": CommandEntry("daemon.cli.accept_gap", "Accept that history is missing, and go on.", _RUN),
    "topics": CommandEntry("daemon.cli.topics", "The Kafka topics of a daemon: create.", _RUN),
    "index": CommandEntry("daemon.cli.index", "The vector index: verify, rebuild.", _RUN),
    "token": CommandEntry("daemon.cli.token", "Tokens of callers: new, list, convert.", _RUN),
    "backup": CommandEntry("daemon.cli.backup", "Copy the store, of a running daemon too.", _RUN),
    "restore": CommandEntry("daemon.cli.restore", "Put a backup into a state directory.", _RUN),
    "adapters": CommandEntry(
        "daemon.cli.adapters", "Adapters: list, show, add, activate, rollback, verify.", _RUN
    ),
    "model": CommandEntry("daemon.cli.model", "Language models: list, show, fetch, convert.", _RUN),
    "doctor": CommandEntry("daemon.cli.doctor", "Check this machine and the configuration.", _RUN),
    "config": CommandEntry("daemon.cli.config", "The configuration: show, check, schema.", _RUN),
    "up": CommandEntry("", "A development broker, a daemon and its gateway, in .lte/ until Ctrl-C.", _RUN),
    "demo": CommandEntry("", "The whole job, step by step, on a real broker.", _RUN),
    "drift": CommandEntry(
        "daemon.cli.drift", "Readings of quality, and whether the adapter needs training.", _WORK
    ),
    "realign": CommandEntry(
        "daemon.cli.realign", "Train the adapter again: start, watch, list, cancel.", _WORK
    ),
    "gate": CommandEntry("", "The scope gate: train, calibrate, measure.", _WORK),
    "align": CommandEntry("daemon.cli.align", "Alignment: look at its data, train an adapter.", _WORK),
    "eval": CommandEntry("", "Measure edit success, generality, locality.", _WORK),
    "bench": CommandEntry("", "Measure speed and memory beside a peer.", _WORK),
}


class LazyGroup(TyperGroup):
    """Looks commands up in `TABLE`; for `--help` a stub with the table's help line is enough."""

    _listing = False

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        # Their names alone: what "did you mean" looks through.
        self.commands = dict.fromkeys(TABLE)  # type: ignore[assignment]

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002
        return list(TABLE)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002
        entry = TABLE.get(cmd_name)
        if entry is None:
            return None
        if self._listing:
            return TyperCommand(cmd_name, help=entry.help, rich_help_panel=entry.panel)
        loaded = import_module(entry.module).app if entry.module else _beside_the_package(cmd_name)
        command = typer.main.get_command(loaded)
        command.name = cmd_name
        return command

    def format_help(self, ctx: Any, formatter: Any) -> None:
        self._listing = True
        try:
            super().format_help(ctx, formatter)
        finally:
            self._listing = False


def _beside_the_package(name: str) -> typer.Typer:
    """A command from the entry points `lte.commands`; a checkout has them, a wheel alone does not."""
    from importlib.metadata import entry_points

    for point in entry_points(group="lte.commands", name=name):
        try:
            loaded = point.load()
        except ModuleNotFoundError as error:
            # Only the checkout's own package may be absent; a missing library is a fault to show.
            if not (error.name or "").startswith(point.module.partition(".")[0]):
                raise
            continue
        return loaded if isinstance(loaded, typer.Typer) else _single(loaded)
    return _absent(name)


def _single(function: Any) -> typer.Typer:
    app = typer.Typer(add_completion=False)
    app.command()(function)
    return app


def _absent(name: str) -> typer.Typer:
    app = typer.Typer(add_completion=False)

    # `--help` too: there is no help but where to find the command.
    @app.command(
        add_help_option=False, context_settings={"allow_extra_args": True, "ignore_unknown_options": True}
    )
    def absent() -> None:
        typer.echo(
            f"`lte {name}` lives in the project's checkout (ops/), which this installation does not have: "
            f"clone the repository, run `make setup` there, and use `.venv/bin/lte {name}`.",
            err=True,
        )
        raise typer.Exit(1)

    return app


app = typer.Typer(
    cls=LazyGroup,
    name="lte",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    epilog=EXAMPLES,
    help="Keeps a language model's answers current while facts change.",
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def _root(version: bool = typer.Option(False, "--version", help="Print the version and exit.")) -> None:
    if version:
        from importlib.metadata import version as installed

        typer.echo(f"lte-daemon {installed('lte-daemon')}")
        raise typer.Exit


def run() -> None:
    """Run the command line; every error that is meant for people ends as one line and an exit code."""
    sys.exit(guarded(app))
