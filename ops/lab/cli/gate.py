"""`lte gate`: train the gate's model, fit the gate to an encoder, measure it on unseen facts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from daemon.cli import output
from daemon.cli.options import ConfigFile, Json
from lte_runtime.errors import BadRequest

app = typer.Typer(
    add_completion=False, no_args_is_help=True, help="The scope gate: train, calibrate, measure."
)


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
def train(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for checkpoint, model and figures.")],
    data: Annotated[
        Path | None,
        typer.Option(help="Folder with knowedit/ and pararel/. Default: the project's tables alone."),
    ] = None,
    near: Annotated[
        Path | None, typer.Option(help="Facts with near questions, JSON lines, for figures of each epoch.")
    ] = None,
    start: Annotated[
        Path | None, typer.Option(help="A checkpoint, or a file as it ships, to go on from.")
    ] = None,
    epochs: Annotated[int, typer.Option(min=1, help="Epochs.")] = 10,
    half: Annotated[bool, typer.Option(help="Train on half of the relations, judge on the others.")] = False,
    seed: Annotated[int, typer.Option(help="Seed of pairs and weights.")] = 0,
    threads: Annotated[int, typer.Option(min=1, help="Threads of torch.")] = 2,
    json_: Json = False,
) -> None:
    """Train the model that reads what a question asks of a fact; then calibrate the gate with it.

    Example: lte gate train -o gate-model --near tests/data/near_questions.jsonl
    """
    from lte_runtime.answer.encoder import load_encoder
    from ops.lab.gate import train as training

    how = training.Schedule(epochs=epochs, seed=seed, threads=threads, half=half)
    with output.progress(not json_) as progress:
        figures = training.run(
            out, load_encoder(), how, shared=data, near=near, start=start, progress=progress
        )
    if json_:
        output.as_json({"folder": str(out), "epochs": figures})
    else:
        output.pairs({"folder": out, **figures[-1]})


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
