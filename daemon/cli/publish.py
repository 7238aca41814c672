"""`lte publish`: facts to Kafka, from flags, a file or stdin."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, TextIO

import typer

from daemon.cli import connect, event_input, sending
from daemon.cli.exits import FAILED
from daemon.cli.key import Prompt, Relation, Subject
from daemon.cli.options import Address, Bootstrap, ConfigFile, Json, Namespace, Socket, Topic
from lte_runtime.errors import BadRequest

app = typer.Typer(add_completion=False)

_FACT = "The fact"
Wait = Annotated[bool, typer.Option("--wait", "-w", help="Return when questions can see it.")]
WaitTimeout = Annotated[float, typer.Option("--timeout", min=0.001, help="Longest wait in seconds.")]


@app.command()
def publish(
    file: Annotated[
        Path | None, typer.Argument(help="JSON lines or one JSON array of events; - is stdin.")
    ] = None,
    subject: Subject = None,
    relation: Relation = None,
    target: Annotated[str | None, typer.Option("--target", "-t", help="The new value.")] = None,
    prompt: Prompt = None,
    statement: Annotated[str | None, typer.Option(help="As a sentence.", rich_help_panel=_FACT)] = None,
    alias: Annotated[
        list[str] | None, typer.Option("--alias", "-a", help="Another name of the subject. Repeatable.")
    ] = None,
    target_alias: Annotated[
        list[str] | None, typer.Option(help="Another name of the value.", rich_help_panel=_FACT)
    ] = None,
    many: Annotated[
        bool, typer.Option("--many", help="The key holds a set of values.", rich_help_panel=_FACT)
    ] = False,
    revision: Annotated[int | None, typer.Option(min=0, rich_help_panel=_FACT)] = None,
    valid_from: Annotated[str | None, typer.Option(help="ISO 8601.", rich_help_panel=_FACT)] = None,
    valid_until: Annotated[str | None, typer.Option(help="ISO 8601.", rich_help_panel=_FACT)] = None,
    source: Annotated[str | None, typer.Option(help="URI of the source.", rich_help_panel=_FACT)] = None,
    publisher: Annotated[str | None, typer.Option(help="Who states the fact.", rich_help_panel=_FACT)] = None,
    id_: Annotated[
        str | None,
        typer.Option(
            "--id", help="The event's id: publishing it again changes nothing.", rich_help_panel=_FACT
        ),
    ] = None,
    namespace: Namespace = "default",
    wait: Wait = False,
    timeout: WaitTimeout = 30.0,
    json_: Json = False,
    bootstrap: Bootstrap = None,
    topic: Topic = None,
    address: Address = None,
    socket: Socket = None,
    config: ConfigFile = None,
) -> None:
    """Publish facts to Kafka.

    Examples:

    lte publish -s "Acme Corp" -r CEO -t "Ann Lee" -a Acme --wait

    lte publish facts.jsonl

    generate-facts | lte publish - --wait --json
    """
    where = connect.find(connect.flags(address, socket, bootstrap=bootstrap, topic=topic), config)
    fact = {
        "id": id_,
        "subject": subject,
        "relation": relation,
        "target": target,
        "prompt": prompt,
        "statement": statement,
        "subject_aliases": alias,
        "target_aliases": target_alias,
        "cardinality": "many" if many else None,
        "revision": revision,
        "valid_from": valid_from,
        "valid_until": valid_until,
        "source_uri": source,
        "publisher": publisher,
    }
    if file is None:
        if not target:
            raise BadRequest("name the fact (-s, -r, -t), or give a file of events (- for stdin)")
        events = iter([event_input.from_flags(op="assert", namespace=namespace, **fact)])
        sent = sending.send(where, events)
    else:
        if any(value is not None for value in fact.values()):
            raise BadRequest("a file holds whole events: do not give options of a single fact with it")
        with _open_lines(file) as lines:
            events = event_input.from_lines(lines, str(file))
            sent = sending.send(where, events, progress=not json_ and sys.stderr.isatty())
    finish(where, sent, wait, timeout, json_)


def finish(where: connect.Where, sent: sending.Sent, wait: bool, timeout: float, json_: bool) -> None:
    """Wait when asked, report, and exit 1 when the daemon refused an event."""
    waited = sending.wait(where, sent, timeout) if wait and sent.positions else None
    sending.report(sent, waited, json_)
    if waited and waited.refused:
        raise typer.Exit(FAILED)


@contextmanager
def _open_lines(file: Path) -> Iterator[TextIO]:
    if str(file) == "-":
        yield sys.stdin
        return
    try:
        with file.open(encoding="utf-8") as lines:
            yield lines
    except (OSError, UnicodeDecodeError) as error:
        raise BadRequest(f"{file}: {error}") from None
