"""`lte config`: show values and where they came from, check them, print the schema."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated

import typer

from daemon.cli import output
from daemon.cli.options import ConfigFile, Json

app = typer.Typer(add_completion=False, no_args_is_help=True, help="The configuration: show, check, schema.")


@app.command()
def show(
    config: ConfigFile = None,
    json_: Json = False,
    changed: Annotated[bool, typer.Option("--changed", help="Only what is not a default.")] = False,
) -> None:
    """Every setting with its value and the place that set it.

    Example: lte config show --changed
    """
    from daemon.config import flat_values, load

    loaded = load(config)
    rows = [
        (name, value, _origin(name, loaded.origins))
        for name, value in flat_values(loaded.settings).items()
        if not changed or _origin(name, loaded.origins) != "default"
    ]
    if json_:
        output.as_json({name: {"value": value, "origin": origin} for name, value, origin in rows})
    else:
        output.table(("setting", "value", "from"), ((n, json.dumps(v), o) for n, v, o in rows))


@app.command()
def check(config: ConfigFile = None, json_: Json = False) -> None:
    """Read and validate the configuration as `lte serve` would; exit 2 and name the faults otherwise.

    Keys that are no longer settings are warnings: their values are ignored.

    Example: lte config check -c /etc/lte/lte.toml
    """
    from daemon.config import load

    loaded = load(config)
    source = str(loaded.file) if loaded.file else None
    if json_:
        output.as_json(
            {"ok": True, "file": source, "set": sorted(loaded.origins), "warnings": list(loaded.warnings)}
        )
    else:
        for warning in loaded.warnings:
            output.note(f"warning: {warning}")
        typer.echo(f"ok: {len(loaded.origins)} settings set, file {source or 'none'}")


@app.command()
def schema(json_: Json = False) -> None:  # noqa: ARG001 - the schema is JSON in any case
    """The JSON schema of the configuration file.

    Example: lte config schema > lte.schema.json
    """
    from daemon.settings import Settings

    typer.echo(json.dumps(Settings.model_json_schema(), indent=2))


def _origin(name: str, origins: Mapping[str, str]) -> str:
    # A mapping such as kafka.security is set by its parts.
    return origins.get(name) or next((o for n, o in origins.items() if n.startswith(f"{name}.")), "default")
