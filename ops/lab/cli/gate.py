"""`lte gate`: fit the scope gate to an encoder, and measure it on facts that no training reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from daemon.cli import output
from daemon.cli.options import ConfigFile, Json
from lte_runtime.errors import BadRequest

app = typer.Typer(add_completion=False, no_args_is_help=True, help="The scope gate: calibrate, measure.")


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


@app.command()
def unseen(json_: Json = False, config: ConfigFile = None) -> None:
    """Measure the gate on facts that no training reads. For a finished gate: choose nothing by these figures.

    Shares with their 95 % intervals, for all questions, for each language and for each domain.

    Example: lte gate unseen --json
    """
    from daemon.config import load
    from daemon.parts import models
    from lte_runtime.disk import sha256_file
    from ops.lab.gate import unseen as measured

    settings = load(config).settings
    encoder = models.encoder(settings)
    facts, calibration = measured.read(), models.calibration(settings, encoder)
    with output.progress(not json_) as progress:
        result = measured.measure(facts, encoder, calibration, progress)
    if json_:
        output.as_json({"data_sha256": sha256_file(measured.FILE), "encoder": encoder.fingerprint, **result})
        return
    output.pairs({name: result[name] for name in ("facts", "threshold", "p50_ms")})
    output.table(measured.COLUMNS, measured.rows(result))


def _read(path: Path) -> list[dict[str, object]]:
    try:
        return [json.loads(line) for line in path.read_text("utf-8").splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise BadRequest(f"{path}: {error}") from None
