"""`lte demo`: the whole job on a real broker and a real daemon, step by step, with a table at the end."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from daemon.cli.options import Arch, Architecture
from lte_runtime.errors import LteError
from ops.demo.session import Session, TableRow
from ops.demo.steps import STEPS, Named
from ops.kafka.broker import BrokerUnavailable
from ops.models import model_environment
from ops.stack import Stack, StackError

command = typer.Typer(add_completion=False)
console = Console(highlight=False)
# The demo's few hundred facts would be scanned; it shows the index that large memories use. The preset is the
# smallest recipe of a training. No threshold, limit or margin is set.
SETTINGS = {"LTE_MEMORY__INDEX_MODE": "hnsw", "LTE_REALIGN__PRESET": "demo"}


@command.command(help="Show the whole job on a real Kafka, and exit 0 only if every step was as promised.")
def demo(
    fast: Annotated[bool, typer.Option("--fast", help="Fewer questions, no re-alignment.")] = False,
    arch: Architecture = None,
) -> None:
    """Run the demo in a temporary directory on free ports; everything it started is gone afterwards.

    Example: lte demo --fast
    """
    begin = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="lte-demo-") as directory:
        try:
            settings = SETTINGS | model_environment(arch or Arch.LLAMA)
            with Stack(Path(directory), settings=settings) as stack:
                start(stack)
                failed = play(stack, fast)
        except (BrokerUnavailable, StackError, LteError) as error:
            console.print(f"[red]error:[/red] {error}")
            raise typer.Exit(1) from None
    seconds = time.monotonic() - begin
    if failed:
        console.print(f"[red]not as promised:[/red] {', '.join(failed)} ({seconds:.0f} s)")
        raise typer.Exit(1)
    console.print(f"[green]every step was as promised[/green] ({seconds:.0f} s)")


def start(stack: Stack) -> None:
    """Broker and daemon, with what takes how long."""
    with console.status("starting Kafka (KRaft, one node)") as status:
        begin = time.monotonic()
        address = stack.start_broker()
        console.print(f"Kafka at {address} after {time.monotonic() - begin:.1f} s")
        status.update("starting the daemon: encoder, edit memory, language model")
        console.print(f"daemon READY after {stack.start_daemon():.1f} s")


def play(stack: Stack, fast: bool) -> list[str]:
    """All steps; returns the titles of those that were not as promised."""
    session = Session.open(stack, lambda text: console.print(f"  {text}"), fast=fast)
    try:
        steps = [step for step in STEPS if not (fast and step.minutes)]
        failed = [step.title for number, step in enumerate(steps, 1) if not play_one(session, number, step)]
        engine = session.client.status()["engine"]
        paths = session.client.status()["memory"]["index_path"]
    finally:
        session.close()
    console.print()
    console.print(table(session.rows))
    console.print(
        f"model {engine['model']} ({engine['dtype']}, {engine['device']}), index "
        f"{', '.join(sorted(set(paths.values())))}, {len(session.events)} facts in the file"
    )
    return failed


def play_one(session: Session, number: int, step: Named) -> bool:
    """One step with its rows and its verdict."""
    console.print(f"\n[bold]{number}. {step.title}[/bold]")
    row_count = len(session.rows)
    with console.status(step.title):
        held = step.run(session)
    for row in session.rows[row_count:][:6]:
        mark = "[green]✓[/green]" if row.ok else "[red]✗[/red]"
        console.print(f"  {mark} {row.question} [cyan]{row.answer}[/cyan] [dim]({row.citation})[/dim]")
    console.print("  [green]as promised[/green]" if held else "  [red]NOT as promised[/red]")
    return held


def table(rows: list[TableRow]) -> Table:
    """Question, answer, citation, scope, adapter, milliseconds."""
    shown = Table(header_style="bold cyan", show_lines=False)
    for column in ("", "step", "question", "answer", "citation", "scope", "adapter"):
        shown.add_column(column, overflow="fold")
    shown.add_column("ms", justify="right")
    for row in rows:
        mark = "[green]✓[/green]" if row.ok else "[red]✗[/red]"
        texts = (row.step, row.question, row.answer, row.citation, row.scope, row.adapter)
        shown.add_row(mark, *map(_plain, texts), f"{row.milliseconds:.0f}")
    return shown


def _plain(text: str) -> str:
    """Fact text is not markup."""
    return text.replace("[", "\\[")
