"""`lte eval`: edit success, generality, portability, locality of the configured model, without a daemon."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from daemon.cli import output, parts
from daemon.cli.options import ConfigFile, Json

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Measure answers on sets of edits.")


class Method(StrEnum):
    OURS = "ours"
    NO_ADAPTER = "no-adapter"


class Split(StrEnum):
    HELD_OUT = "held-out"
    ALL = "all"


Methods = Annotated[list[Method] | None, typer.Option("--method", "-m", help="Default: both. Repeatable.")]
Limit = Annotated[int | None, typer.Option(min=1, help="At most so many records of each set.")]


@app.command()
def knowedit(
    data: Annotated[Path, typer.Option(help="Folder with KnowEdit's JSON files.")],
    method: Methods = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="zsre, wiki_recent, ... Repeatable.")
    ] = None,
    split: Annotated[Split, typer.Option(help="held-out: the half that no training saw.")] = Split.HELD_OUT,
    limit: Limit = None,
    json_: Json = False,
    config: ConfigFile = None,
) -> None:
    """KnowEdit by free decoding: all edits of a set applied first, facts found by our own retrieval.

    Example: lte eval knowedit --data knowedit/ --method ours --limit 100 --json
    """
    from daemon.config import load
    from lte_runtime.evals import knowedit as measured

    settings = load(config).settings
    encoder = parts.encoder(settings)
    with parts.engine(settings) as engine, parts.progress(not json_) as progress:
        result = measured.run(
            data,
            encoder,
            engine,
            parts.calibration(settings, encoder),
            methods=[each.value for each in method or list(Method)],
            sets=set_ or measured.SETS,
            split=split.value,
            limit=limit,
            progress=progress,
        )
    if json_:
        output.as_json(result)
    else:
        output.table(("method", "set", "figure", "value"), rows(result))


@app.command()
def userfacts(
    data: Annotated[Path, typer.Option(help="File of facts with questions, JSON lines.")],
    method: Methods = None,
    limit: Limit = None,
    json_: Json = False,
    config: ConfigFile = None,
) -> None:
    """Facts as users write them: the question, a paraphrase, a declared alias.

    Example: lte eval userfacts --data facts.jsonl
    """
    from daemon.config import load
    from lte_runtime.evals import userfacts as measured

    settings = load(config).settings
    encoder = parts.encoder(settings)
    with parts.engine(settings) as engine, parts.progress(not json_) as progress:
        result = measured.run(
            data,
            encoder,
            engine,
            parts.calibration(settings, encoder),
            methods=[each.value for each in method or list(Method)],
            limit=limit,
            progress=progress,
        )
    if json_:
        output.as_json(result)
    else:
        sets = {name: {"sets": {data.stem: figures}} for name, figures in result["methods"].items()}
        output.table(("method", "set", "figure", "value"), rows({"methods": sets}))


@app.command()
def retrieval(
    data: Annotated[Path, typer.Option(help="Folder with KnowEdit's files, or a file of user facts.")],
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="zsre, wiki_recent, ... Repeatable.")
    ] = None,
    split: Annotated[Split, typer.Option(help="held-out: the half that no training saw.")] = Split.HELD_OUT,
    limit: Limit = None,
    json_: Json = False,
    config: ConfigFile = None,
) -> None:
    """What look-up and gate find, without the language model: no reader can answer more.

    Example: lte eval retrieval --data facts.jsonl
    """
    from daemon.config import load
    from lte_runtime.evals import knowedit as measured
    from lte_runtime.evals import retrieval as finding

    settings = load(config).settings
    encoder = parts.encoder(settings)
    with parts.progress(not json_) as progress:
        result = finding.run(
            data,
            encoder,
            parts.calibration(settings, encoder),
            sets=set_ or measured.SETS,
            split=split.value,
            limit=limit,
            progress=progress,
        )
    if json_:
        output.as_json(result)
    else:
        output.table(("method", "set", "figure", "value"), rows(result))


def rows(result: Mapping[str, Any]) -> Iterator[tuple[object, ...]]:
    """One row for each figure; nested figures under dotted names, absent ones left out."""
    for method, measured in result["methods"].items():
        for name, figures in measured["sets"].items():
            for figure, value in _flat(figures):
                if value is not None and not isinstance(value, list):
                    yield method, name, figure, value


def _flat(figures: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in figures.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value
