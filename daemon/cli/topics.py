"""`lte topics`: make the topics that a daemon needs."""

from __future__ import annotations

from typing import Annotated

import typer

from daemon.cli import output
from daemon.cli.options import ConfigFile, Json

app = typer.Typer(add_completion=False, no_args_is_help=True, help="The Kafka topics of a daemon: create.")

_CONNECT_S = 30.0


@app.callback()
def _group() -> None:
    """A group, although it has one command so far."""


@app.command()
def create(
    partitions: Annotated[int, typer.Option(min=1, max=100_000, help="Partitions of the edits topic.")] = 3,
    replication: Annotated[
        int, typer.Option(min=-1, max=32, help="Copies of each record; -1: what the brokers' default is.")
    ] = -1,
    json_: Json = False,
    config: ConfigFile = None,
) -> None:
    """Make the topics of the configuration that are missing, each with the settings that its use demands.

    Topics that exist are left as they are, whatever their settings; `lte doctor` checks the one of the edits.

    Example: lte topics create --partitions 6 --replication 3
    """
    from daemon.config import load
    from daemon.kafka.topics import create_missing
    from daemon.parts.topics import plans
    from lte_runtime.errors import BadRequest

    if replication == 0:
        raise BadRequest("--replication 0 keeps no record: give 1 or more, or -1 for the brokers' default")
    settings = load(config).settings
    planned, kafka = plans(settings, partitions), settings.kafka
    created = create_missing(
        kafka.bootstrap, kafka.security, planned, replication=replication, timeout_s=_CONNECT_S
    )
    names = [plan.name for plan in planned]
    if json_:
        output.as_json({"created": created, "existing": [name for name in names if name not in created]})
    else:
        output.table(
            ("topic", "result"), ((n, "created" if n in created else "there already") for n in names)
        )
