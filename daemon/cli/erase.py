"""`lte erase`: remove a fact's text and vectors for good."""

from __future__ import annotations

from typing import Annotated

import typer

from daemon.cli import connect, output
from daemon.cli.key import Key, Prompt, Relation, Subject, key_parts
from daemon.cli.options import AdminSocket, ConfigFile, Json, Namespace

app = typer.Typer(add_completion=False)


@app.command()
def erase(
    key: Key = None,
    subject: Subject = None,
    relation: Relation = None,
    prompt: Prompt = None,
    namespace: Namespace = "default",
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    json_: Json = False,
    admin_socket: AdminSocket = None,
    config: ConfigFile = None,
) -> None:
    """Remove a fact's text and vectors from every file of the state directory, and print the receipt.

    A re-alignment at work is cancelled. Retractions of the fact stay, without text. The records in Kafka are
    not touched: they are the topic owner's to delete.

    Examples:

    lte erase -s "Acme Corp" -r CEO

    lte erase "default/Acme Corp/CEO" --yes
    """
    parts = key_parts(namespace, subject, relation, prompt, key)
    if not yes:
        typer.confirm(f"Erase every trace of {' / '.join(filter(None, parts))}?", abort=True, err=True)
    with connect.client(connect.find(connect.flags(admin_socket=admin_socket), config)) as daemon:
        receipt = daemon.erase(parts[1], parts[2], namespace=parts[0])
    if json_:
        output.as_json(receipt)
    else:
        output.pairs(receipt, "Receipt")
