"""`lte retract`: withdraw a fact, one member of a set, one edit, or all of a key."""

from __future__ import annotations

from typing import Annotated

import typer

from daemon.cli import connect, event_input, sending
from daemon.cli.key import Prompt, Relation, Subject
from daemon.cli.options import Address, Bootstrap, ConfigFile, Json, Namespace, Socket, Topic
from daemon.cli.publish import Wait, WaitTimeout, finish
from lte_runtime.errors import BadRequest

app = typer.Typer(add_completion=False)


@app.command()
def retract(
    edit_id: Annotated[str | None, typer.Argument(help="The edit to withdraw, instead of a key.")] = None,
    subject: Subject = None,
    relation: Relation = None,
    prompt: Prompt = None,
    target: Annotated[str | None, typer.Option("--target", "-t", help="One member of a set.")] = None,
    revision: Annotated[int | None, typer.Option(min=0)] = None,
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
    """Withdraw a fact; the previous one comes back, or the base model's answer.

    Examples:

    lte retract -s "Acme Corp" -r CEO --wait

    lte retract 0b1f...
    """
    if edit_id and (subject or relation or prompt or target):
        raise BadRequest("name the edit by its id, or the fact by its key: not both")
    if edit_id:
        event = {"op": "retract", "namespace": namespace, "retracts": edit_id}
    else:
        parts = {"subject": subject, "relation": relation, "prompt": prompt}
        event = event_input.from_flags(
            op="retract", namespace=namespace, target=target, revision=revision, **parts
        )
    where = connect.find(connect.flags(address, socket, bootstrap=bootstrap, topic=topic), config)
    finish(where, sending.send(where, [event]), wait, timeout, json_)
