"""`lte up`: a broker, unless there is one already, and a daemon on a state that is kept, until Ctrl-C."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from daemon.cli.options import ConfigFile
from daemon.settings import OFF, PREFIX
from lte_runtime import redact
from lte_runtime.locks import DirectoryLock
from ops import leftovers, up_token
from ops.kafka.broker import BrokerUnavailable
from ops.monitoring.start import monitoring
from ops.ports import Ports, PortTaken
from ops.stack import CHILDREN, PRINCIPALS, Addresses, Stack, StackError
from ops.up_settings import UpSettings, choose

command = typer.Typer(add_completion=False)
console = Console()


@command.command()
def up(
    directory: Annotated[
        Path, typer.Option("--dir", help="Where broker and daemon keep their state.")
    ] = Path(".lte"),
    config: ConfigFile = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model", help="Language model: smollm2, a directory, a .gguf file, a hub id, or stub."
        ),
    ] = None,
    kafka: Annotated[
        str | None,
        typer.Option(
            "--kafka", metavar="HOST:PORT", help="A Kafka that is there already; none is started then."
        ),
    ] = None,
    with_monitoring: Annotated[
        bool, typer.Option("--monitoring/--no-monitoring", help="Start Prometheus and Grafana, if installed.")
    ] = True,
) -> None:
    """Start a development broker, a daemon and its gateway, and keep them running until Ctrl-C.

    The daemon has the settings of the file and of the environment; the addresses and the state directory
    that they do not name are chosen here and written to DIR/up.json. With --kafka, or where they name
    kafka.bootstrap, no broker is started. Topics that are missing are made. The gateway serves HTTP: OpenAI's
    API, REST, MCP and a page; writes over it need the token that is made in DIR/token.

    Example: lte up --model /models/my-model, then in another terminal: lte ask "..."
    """
    chosen = choose(config, model=model, kafka=kafka)
    for warning in chosen.warnings:
        console.print(f"[yellow]warning:[/yellow] {warning}", highlight=False)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    try:
        with _hold(directory, chosen), _stack(directory, chosen) as stack:
            _run(stack, directory / "up.json", stop, chosen, with_monitoring)
    except (BrokerUnavailable, StackError, PortTaken) as error:
        console.print(f"[red]error:[/red] {error}", highlight=False)
        raise typer.Exit(1) from None
    console.print("stopped; the state is kept, `lte up` goes on from it")


@contextmanager
def _hold(directory: Path, chosen: UpSettings) -> Iterator[None]:
    """Hold the directory; end what a killed `lte up` left in it. Raises `Refused` when another one runs, or
    a daemon that `lte up` did not start."""
    lock = DirectoryLock(directory)
    try:
        ended = leftovers.end(directory / CHILDREN)
        if ended:
            console.print(f"ended what a killed `lte up` had left running: {', '.join(ended)}")
        DirectoryLock(chosen.state_dir(directory)).release()
        yield
    finally:
        lock.release()


def _stack(directory: Path, chosen: UpSettings) -> Stack:
    path = directory / "ports.json"
    ports = Ports.of(path)
    listeners = {"grpc": "LTE_RPC__LISTEN", "metrics": "LTE_METRICS__LISTEN"}
    listeners |= {"http": "LTE_GATEWAY__LISTEN", "gateway_metrics": "LTE_GATEWAY__METRICS_LISTEN"}
    unused = {name for name, variable in listeners.items() if variable in chosen.environment}
    ports.check(path, unused=unused | ({"kafka", "controller"} if chosen.kafka else set()))
    return Stack(
        directory.resolve(),
        settings=chosen.environment,
        kafka=chosen.kafka,
        topics=chosen.topics,
        topic=chosen.settings.kafka.topic,
        ports=ports,
        token_file=_token_file(directory, chosen),
    )


def _token_file(directory: Path, chosen: UpSettings) -> Path | None:
    """A token of the stack's own, unless the settings bring tokens or there is no gateway that needs one."""
    settings = chosen.settings
    if settings.rpc.token_file is not None or settings.gateway.listen == OFF:
        return None
    token_file = directory.resolve() / "token"
    up_token.make(token_file, token_file.with_name(PRINCIPALS))
    return token_file


def _run(stack: Stack, mark: Path, stop: threading.Event, chosen: UpSettings, with_monitoring: bool) -> None:
    mark.unlink(missing_ok=True)
    try:
        _start(stack, mark, stop, chosen)
        place, at = stack.directory / "monitoring", stack.addresses
        wanted = with_monitoring and at.metrics != OFF
        with monitoring(place, at.metrics, at.gateway_metrics, wanted=wanted) as watched:
            console.print(watched.lines(), highlight=False)
            _wait(stack, stop)
    except _Stopped:
        console.print("stopping")
    finally:
        mark.unlink(missing_ok=True)


class _Stopped(Exception):
    """Ctrl-C or SIGTERM during the start."""


def _start(stack: Stack, mark: Path, stop: threading.Event, chosen: UpSettings) -> None:
    def check() -> None:
        if stop.is_set():
            raise _Stopped

    kafka = "connecting to Kafka" if chosen.kafka else "starting Kafka"
    with console.status(kafka) as status:
        stack.start_broker()
        status.update("starting the daemon")
        seconds = stack.start_daemon(check)
        status.update("starting the gateway")
        stack.start_gateway(check)
    stack.addresses.write(mark)
    console.print(f"[green]READY[/green] after {seconds:.1f} s; addresses are in {mark}\n")
    if chosen.kafka and stack.created_topics:
        console.print(f"made the topics {', '.join(stack.created_topics)}\n", highlight=False)
    # Commands are there to be copied: a line that is broken would be another command.
    console.print(_guide(stack.addresses, chosen), highlight=False, markup=False, soft_wrap=True)


def _wait(stack: Stack, stop: threading.Event) -> None:
    while not stop.wait(0.5):
        if stack.daemon_exit() is not None:
            raise StackError(
                f"the daemon ended with {stack.daemon_exit()}; its log is {stack.daemon_log}."
                " `lte up` goes on from the state that is kept"
            )
        if stack.gateway_exit() is not None:
            raise StackError(f"the gateway ended with {stack.gateway_exit()}; its log is {stack.gateway_log}")
        if stack.broker_exit() is not None:
            raise StackError(f"Kafka ended with {stack.broker_exit()}; its log is {stack.broker.log_file}")
    console.print("\nstopping")


def _guide(at: Addresses, chosen: UpSettings) -> str:
    settings = chosen.settings
    lines = [
        f"Kafka    {redact.url(at.kafka)}  topic {at.topic}",
        f"gRPC     {'' if at.grpc == OFF else f'{at.grpc}  and '}unix:{at.socket}",
        f"admin    unix:{at.admin_socket}",
        f"metrics  {OFF if at.metrics == OFF else f'http://{at.metrics}/metrics'}",
        f"HTTP     {at.http}",
        *_token_lines(at),
        f"model    {settings.model.path}",
        f"settings {chosen.file or 'defaults'}{' and LTE_ variables' if _has_variables() else ''}",
        "",
        "Next, in another terminal of this directory:",
        '  lte publish -s "Quorvane Systems" -r "chief executive" -t "Ingrid Solheim" --wait',
        '  lte ask "Who is the chief executive of Quorvane Systems?" --explain',
        '  lte retract -s "Quorvane Systems" -r "chief executive"',
    ]
    if at.http != OFF:
        messages = """[{"role": "user", "content": "What is the capital of Kenya?"}]"""
        lines += [
            f"  curl {at.http}/v1/chat/completions -H 'Content-Type: application/json' \\",
            f"""    -d '{{"model": "{settings.gateway.model_name}", "messages": {messages}}}'""",
        ]
    stops = "the daemon; Kafka goes on" if chosen.kafka else "both"
    return "\n".join([*lines, "", f"Ctrl-C stops {stops}; the state stays."])


def _token_lines(at: Addresses) -> list[str]:
    if not at.token_file:
        return []
    token = Path(at.token_file).read_text("utf-8").strip()
    return [f"token    {token}  for writes over HTTP (in {at.token_file})"]


def _has_variables() -> bool:
    return any(name.startswith(PREFIX) and value for name, value in os.environ.items())
