"""`lte serve`: run the daemon in the foreground until SIGTERM or Ctrl-C."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from daemon.cli.options import Bootstrap, ConfigFile, Topic
from lte_runtime.errors import BadRequest

if TYPE_CHECKING:
    from daemon.settings import Settings

app = typer.Typer(add_completion=False)


@app.command(help="Run the daemon until SIGTERM or Ctrl-C.")
def serve(
    config: ConfigFile = None,
    state_dir: Annotated[Path | None, typer.Option(help="Directory of the edit memory.")] = None,
    bootstrap: Bootstrap = None,
    topic: Topic = None,
    listen: Annotated[str | None, typer.Option(help="host:port beside the unix socket.")] = None,
    metrics: Annotated[str | None, typer.Option(help="host:port of /metrics, or off.")] = None,
    log_level: Annotated[str | None, typer.Option(help="debug, info, warning or error.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Any other setting: section.field=value. Repeatable.")
    ] = None,
) -> None:
    """Run the daemon.

    Example: lte serve --bootstrap kafka-1:9092 --set memory.index_mode=hnsw
    """
    flags = {
        "state_dir": state_dir,
        "kafka.bootstrap": bootstrap,
        "kafka.topic": topic,
        "rpc.listen": listen,
        "metrics.listen": metrics,
        "log.level": log_level,
    }
    settings = configured(config, flags, set_ or [])

    from daemon.process import serve as run

    run(settings)


def configured(config: Path | None, flags: Mapping[str, Any], assignments: Iterable[str]) -> Settings:
    """The settings of a process, flags that were given included; its log is set up by them."""
    from daemon.config import load

    overrides: dict[str, Any] = {name: value for name, value in flags.items() if value is not None}
    loaded = load(config, overrides | dict(map(split_setting, assignments)))

    from daemon import logs

    logs.configure(loaded.settings.log.level, loaded.settings.log.format)
    logs.warn_of_settings(loaded.warnings)
    return loaded.settings


def split_setting(text: str) -> tuple[str, str]:
    """`section.field=value` in two; raises `BadRequest` for anything else."""
    name, equals, value = text.partition("=")
    if not equals or not name:
        # The text may hold a secret: only the setting's name is shown.
        shown = re.split(r"[^\w.]", text)[0]
        raise BadRequest(f"--set {shown}...: write section.field=value")
    return name, value
