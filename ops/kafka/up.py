"""`lte up`: a development broker and a daemon on a state directory that is kept, until Ctrl-C."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from lte_runtime.locks import DirectoryLock
from ops import leftovers
from ops.kafka.broker import BrokerUnavailable
from ops.monitoring.start import monitoring
from ops.ports import Ports, PortTaken
from ops.stack import CHILDREN, Addresses, Stack, StackError

command = typer.Typer(add_completion=False)
console = Console()


@command.command(help="Start a development broker and a daemon, and keep them running until Ctrl-C.")
def up(
    directory: Annotated[
        Path, typer.Option("--dir", help="Where broker and daemon keep their state.")
    ] = Path(".lte"),
    with_monitoring: Annotated[
        bool, typer.Option("--monitoring/--no-monitoring", help="Start Prometheus and Grafana, if installed.")
    ] = True,
) -> None:
    """Start both, print where they are, write DIR/up.json, wait.

    Example: lte up, then in another terminal: lte ask "..."
    """
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    try:
        with _hold(directory), Stack(directory.resolve(), ports=_ports(directory)) as stack:
            _run(stack, directory / "up.json", stop, with_monitoring)
    except (BrokerUnavailable, StackError, PortTaken) as error:
        console.print(f"[red]error:[/red] {error}", highlight=False)
        raise typer.Exit(1) from None
    console.print("stopped; the state is kept, `lte up` goes on from it")


@contextmanager
def _hold(directory: Path) -> Iterator[None]:
    """Hold the directory; end what a killed `lte up` left in it. Raises `Refused` when another one runs, or
    a daemon that `lte up` did not start."""
    lock = DirectoryLock(directory)
    try:
        ended = leftovers.end(directory / CHILDREN)
        if ended:
            console.print(f"ended what a killed `lte up` had left running: {', '.join(ended)}")
        DirectoryLock(directory / "state").release()
        yield
    finally:
        lock.release()


def _ports(directory: Path) -> Ports:
    path = directory / "ports.json"
    ports = Ports.of(path)
    ports.check(path)
    return ports


def _run(stack: Stack, mark: Path, stop: threading.Event, with_monitoring: bool) -> None:
    mark.unlink(missing_ok=True)
    try:
        _start(stack, mark, stop)
        place, metrics = stack.directory / "monitoring", stack.addresses.metrics
        with monitoring(place, metrics, wanted=with_monitoring) as watched:
            console.print(watched.lines(), highlight=False)
            _wait(stack, stop)
    except _Stopped:
        console.print("stopping")
    finally:
        mark.unlink(missing_ok=True)


class _Stopped(Exception):
    """Ctrl-C or SIGTERM during the start."""


def _start(stack: Stack, mark: Path, stop: threading.Event) -> None:
    def check() -> None:
        if stop.is_set():
            raise _Stopped

    with console.status("starting Kafka") as status:
        stack.start_broker()
        status.update("starting the daemon")
        seconds = stack.start_daemon(check)
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
        if stack.broker.code is not None:
            raise StackError(f"Kafka ended with {stack.broker.code}; its log is {stack.broker.log_file}")
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
