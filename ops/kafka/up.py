"""`lte up`: a development broker and a daemon on a state directory that is kept, until Ctrl-C."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from ops.kafka.broker import BrokerUnavailable
from ops.stack import Addresses, Stack, StackError

command = typer.Typer(add_completion=False)
console = Console()


@command.command(help="Start a development broker and a daemon, and keep them running until Ctrl-C.")
def up(
    directory: Annotated[
        Path, typer.Option("--dir", help="Where broker and daemon keep their state.")
    ] = Path(".lte"),
) -> None:
    """Start both, print where they are, write DIR/up.json, wait.

    Example: lte up, then in another terminal: lte ask "..."
    """
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    mark = directory / "up.json"
    mark.unlink(missing_ok=True)
    try:
        with Stack(directory.resolve()) as stack:
            _start(stack, mark)
            _wait(stack, stop)
    except (BrokerUnavailable, StackError) as error:
        console.print(f"[red]error:[/red] {error}", highlight=False)
        raise typer.Exit(1) from None
    finally:
        mark.unlink(missing_ok=True)
    console.print("stopped; the state is kept, `lte up` goes on from it")


def _start(stack: Stack, mark: Path) -> None:
    with console.status("starting Kafka") as status:
        stack.start_broker()
        status.update("starting the daemon")
        seconds = stack.start_daemon()
    stack.addresses.write(mark)
    console.print(f"[green]READY[/green] after {seconds:.1f} s; addresses are in {mark}\n")
    console.print(_guide(stack.addresses), highlight=False)


def _wait(stack: Stack, stop: threading.Event) -> None:
    while not stop.wait(0.5):
        if stack.daemon_exit() is not None:
            raise StackError(
                f"the daemon ended with {stack.daemon_exit()}; its log is {stack.daemon_log}."
                " `lte up` goes on from the state that is kept"
            )
    console.print("\nstopping")


def _guide(at: Addresses) -> str:
    return f"""Kafka    {at.kafka}  topic {at.topic}
gRPC     {at.grpc}  and unix:{at.socket}
admin    unix:{at.admin_socket}
metrics  http://{at.metrics}/metrics

Next, in another terminal of this directory:
  lte publish -s "Quorvane Systems" -r "chief executive" -t "Ingrid Solheim" --wait
  lte ask "Who is the chief executive of Quorvane Systems?" --explain
  lte retract -s "Quorvane Systems" -r "chief executive"
  grpcurl -plaintext -d '{{"question": "What is the capital of Kenya?"}}' \\
    {at.grpc} lte.v1.AnswerService/Answer

Ctrl-C stops both; the state stays."""
