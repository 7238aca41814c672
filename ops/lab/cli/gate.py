"""`lte gate`: fit the scope gate to an encoder, on labelled questions or on generated ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from daemon.cli import output
from daemon.cli.options import ConfigFile, Json
from lte_runtime.errors import BadRequest

app = typer.Typer(add_completion=False, no_args_is_help=True, help="The scope gate: calibrate.")


@app.callback()
def _group() -> None:
    """Keeps `calibrate` a command of its own."""


@app.command()
def calibrate(
    out: Annotated[Path, typer.Option("--out", "-o", help="Where the calibration is written.")] = Path(
        "gate.json"
    ),
    data: Annotated[
        Path | None, typer.Option(help="Labelled facts and questions, JSON lines. Default: generated ones.")
    ] = None,
    closed: Annotated[
        float, typer.Option(min=0.5, max=1.0, help="Share of unrelated questions that must stay closed.")
    ] = 0.98,
    seed: Annotated[int, typer.Option(help="Seed of the generated questions.")] = 0,
    json_: Json = False,
    config: ConfigFile = None,
) -> None:
    """Fit the gate for the configured encoder; set `gate.calibration` to the file that this writes.

    Example: lte gate calibrate -o gate.json
    """
    from daemon.config import load
    from daemon.parts import models
    from ops.lab.gate import calibrate as fitting
    from ops.lab.gate import gate_data

    settings = load(config).settings
    rows = _read(data) if data else gate_data.default_rows(seed)
    encoder = models.encoder(settings)
    base = models.calibration(settings, encoder)
    with output.progress(not json_) as progress:
        fitted = fitting.calibrate(rows, encoder, base, closed_at_least=closed, progress=progress)
    out.write_text(fitted.to_json(), "utf-8")
    if json_:
        output.as_json({"file": str(out), "threshold": fitted.threshold, **fitted.report})
    else:
        output.pairs({"file": out, "threshold": fitted.threshold, **fitted.report})


def _read(path: Path) -> list[dict[str, object]]:
    try:
        return [json.loads(line) for line in path.read_text("utf-8").splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise BadRequest(f"{path}: {error}") from None
