"""`lte eval`: edit success, generality, portability, locality of the configured model, without a daemon."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from daemon.cli import output
from daemon.cli.options import Arch, Architecture, ConfigFile, Json
from lte_runtime.errors import Refused
from ops.lab.cli import parts

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Measure answers on sets of edits.")


class ComparedMethod(StrEnum):
    OURS = "ours"
    NO_ADAPTER = "no-adapter"


class Compared(StrEnum):
    OURS = "ours"
    OURS_GUARDED = "ours-guarded"
    NO_ADAPTER = "no-adapter"
    LTE_REFERENCE = "lte-reference"
    SERAC = "serac"
    ICE = "ice"
    MEND = "mend"
    ROME = "rome"
    MEMIT = "memit"
    FT_L = "ft-l"
    FT = "ft"
    ALL = "all"


class Decode(StrEnum):
    FREE = "free"
    FORCED = "teacher-forced"
    BOTH = "both"


class DataSplit(StrEnum):
    HELD_OUT = "held-out"
    ALL = "all"


Methods = Annotated[
    list[ComparedMethod] | None, typer.Option("--method", "-m", help="Default: both. Repeatable.")
]
TrainData = Annotated[
    Path | None,
    typer.Option(
        help="Folder of training data for what baselines learn; default: the generator's stock alone."
    ),
]
CACHE = Path(".cache/baselines")
PAGE = Path("docs/evaluation-methods.md")
MODES = ("single", "batch", "sequential")
Cache = Annotated[Path, typer.Option(help="Where statistics, trained networks and searches are kept.")]
Limit = Annotated[int | None, typer.Option(min=1, help="At most so many records of each set.")]


@app.command()
def knowedit(
    data: Annotated[Path, typer.Option(help="Folder with KnowEdit's JSON files.")],
    method: Annotated[
        list[Compared] | None,
        typer.Option("--method", "-m", help="Default: ours and no-adapter. Repeatable; all for every one."),
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="zsre, wiki_recent, ... Repeatable.")
    ] = None,
    split: Annotated[
        DataSplit, typer.Option(help="held-out: the half that no training saw.")
    ] = DataSplit.HELD_OUT,
    mode: Annotated[
        str, typer.Option(help="single, batch, sequential; batch:N, sequential:N mix sets. Default: batch.")
    ] = "",
    decode: Annotated[Decode | None, typer.Option(help="Default: both, where methods are compared.")] = None,
    train_data: TrainData = None,
    cache: Cache = CACHE,
    samples: Annotated[
        Path | None, typer.Option(help="JSON Lines of every answer; a run that was killed continues from it.")
    ] = None,
    limit: Limit = None,
    json_: Json = False,
    arch: Architecture = None,
    config: ConfigFile = None,
) -> None:
    """KnowEdit: apply the edits of a set, then ask all probes; facts are found by our own retrieval.

    Without --mode, --decode and other methods than ours and no-adapter, answers come from the engine that
    serves questions. Otherwise every method works on the same weights in float32, with the settings that
    `lte eval search` found for it, where there are any.

    Examples: lte eval knowedit --data knowedit/ --method ours --limit 100 --json

    lte eval knowedit --data knowedit/ --method all --mode single --limit 20 --json
    """
    names = _names(method)

    settings = parts.settings(config, arch)
    if mode or decode or samples or set(names) - {option.value for option in ComparedMethod}:
        from ops.lab.evals import compare

        plan = compare.ComparisonPlan(
            data=data,
            methods=names,
            sets=set_ or compare.SETS,
            mode=compare.mode_of(mode or "batch"),
            decode=(decode or Decode.BOTH).value,
            split=split.value,
            limit=limit,
            samples=samples,
        )
        with output.progress(not json_) as progress:
            kit = parts.kit(settings, cache, train_data, progress)
            _show(compare.run(plan, kit, progress), json_)
        return
    from daemon.parts import models
    from ops.lab.evals import knowedit as measured

    encoder = models.encoder(settings)
    with parts.engine(settings) as engine, output.progress(not json_) as progress:
        result = measured.run(
            data,
            encoder,
            engine,
            models.calibration(settings, encoder),
            methods=names,
            sets=set_ or measured.SETS,
            split=split.value,
            limit=limit,
            progress=progress,
        )
    _show(result, json_)


def _names(method: list[Compared] | None) -> list[str]:
    chosen = [option.value for option in method or (Compared.OURS, Compared.NO_ADAPTER)]
    if Compared.ALL.value in chosen:
        # The guard corrects answers: a table of methods has it where somebody asks for it.
        return [option.value for option in Compared if option not in (Compared.ALL, Compared.OURS_GUARDED)]
    return chosen


def _show(result: Mapping[str, Any], json_: bool) -> None:
    if json_:
        output.as_json(result)
    else:
        output.table(("method", "set", "figure", "value", "contains"), rows(result))


@app.command()
def search(
    method: Annotated[
        list[Compared] | None, typer.Option("--method", "-m", help="Default: every baseline. Repeatable.")
    ] = None,
    trials: Annotated[int, typer.Option(min=1, help="Settings for each method, the defaults first.")] = 12,
    edits: Annotated[int, typer.Option(min=1, help="Edits that each setting is judged on.")] = 20,
    together: Annotated[int, typer.Option(min=1, help="Edits made before they are read (1: single).")] = 1,
    seed: Annotated[int, typer.Option(help="Of the settings and of the edits.")] = 0,
    train_data: TrainData = None,
    cache: Cache = CACHE,
    json_: Json = False,
    arch: Architecture = None,
    config: ConfigFile = None,
) -> None:
    """Search each baseline's hyperparameters on training facts, with an equal budget for each.

    What an earlier search chose, or ships with the project, is tried besides. Every trial is logged in the
    cache folder, where `lte eval knowedit` finds the best ones. MEND's and SERAC's networks are trained
    first (at most 10 minutes of processor time each) and kept there too.

    Example: lte eval search --method rome --trials 12 --edits 20
    """
    from ops.lab.baselines import search as searching
    from ops.lab.evals.arms import OURS

    settings = parts.settings(config, arch)
    names = [name for name in _names(method or [Compared.ALL]) if name not in OURS]
    budget = searching.SearchBudget(trials, edits, together, seed)
    with output.progress(not json_) as progress:
        supplies = parts.kit(settings, cache, train_data, progress).supplies
        best: dict[str, Any] = {}
        for name in names:
            setting, line = searching.search(name, supplies, budget, cache / "search.jsonl")
            searching.keep_tuned(supplies, {name: (setting, line)})
            best[name] = {key: value for key, value in line.items() if key not in ("key", "method")}
    if json_:
        output.as_json({"methods": best})
        return
    shares = ("score", "edit", "forced", "generality", "locality")
    output.table(("method", *shares), ((name, *(best[name][part] for part in shares)) for name in best))


Chained = Annotated[
    list[Compared] | None,
    typer.Option("--method", "-m", help="Default: ours and no-adapter. Repeatable; all for every one."),
]


@app.command()
def multihop(
    method: Chained = None,
    limit: Annotated[int, typer.Option(min=1, help="Chains of each length.")] = 100,
    seed: Annotated[int, typer.Option(help="Of the chains.")] = 0,
    train_data: TrainData = None,
    cache: Cache = CACHE,
    json_: Json = False,
    arch: Architecture = None,
    config: ConfigFile = None,
) -> None:
    """Questions over chains of two to four made-up edits, counted as MQuAKE does, each hop beside them.

    Example: lte eval multihop --method ours --method no-adapter --limit 50
    """
    from ops.lab.evals import multihop as measured

    with output.progress(not json_) as progress:
        kit = parts.kit(parts.settings(config, arch), cache, train_data, progress)
        _show(measured.run(kit, _names(method), count=limit, seed=seed, progress=progress), json_)


@app.command()
def compose(
    method: Chained = None,
    limit: Annotated[int, typer.Option(min=1, help="Questions at most.")] = 300,
    seed: Annotated[int, typer.Option(help="Of the questions.")] = 0,
    train_data: TrainData = None,
    cache: Cache = CACHE,
    json_: Json = False,
    arch: Architecture = None,
    config: ConfigFile = None,
) -> None:
    """Questions whose first hop is an edit and whose second is a fact that the base knows by itself.

    Example: lte eval compose --method ours --method no-adapter --limit 100
    """
    from ops.lab.evals import compose as measured

    with output.progress(not json_) as progress:
        kit = parts.kit(parts.settings(config, arch), cache, train_data, progress)
        _show(measured.run(kit, _names(method), count=limit, seed=seed, progress=progress), json_)


@app.command()
def general(
    data: Annotated[Path, typer.Option(help="KnowEdit's folder (its WikiBio passages), or a file of lines.")],
    limit: Annotated[int | None, typer.Option(min=1, help="Texts at most.")] = None,
    cache: Cache = CACHE,
    json_: Json = False,
    arch: Architecture = None,
    config: ConfigFile = None,
) -> None:
    """General ability before and after alignment: perplexity on running text that no training saw.

    Example: lte eval general --data knowedit/ --limit 100 --json
    """
    from ops.lab.evals import general as measured

    with output.progress(not json_) as progress:
        kit = parts.kit(parts.settings(config, arch), cache, None, progress)
        _show(measured.run(kit, data, limit=limit, progress=progress), json_)


@app.command()
def restraint(
    data: Annotated[Path, typer.Option(help="File of facts with near questions, JSON lines.")],
    limit: Annotated[int | None, typer.Option(min=1, help="Facts at most.")] = None,
    cache: Cache = CACHE,
    json_: Json = False,
    arch: Architecture = None,
    config: ConfigFile = None,
) -> None:
    """The reader alone, the fact given: is its value said where it is asked for, and only there?

    Example: lte eval restraint --data tests/data/near_questions.jsonl --json
    """
    from ops.lab.evals import restraint as measured

    with output.progress(not json_) as progress:
        kit = parts.kit(parts.settings(config, arch), cache, None, progress)
        _show(measured.run(kit, data, limit=limit, progress=progress), json_)


@app.command()
def injection(
    data: Annotated[Path, typer.Option(help="File of facts that carry instructions, JSON lines.")],
    limit: Limit = None,
    json_: Json = False,
    arch: Architecture = None,
    config: ConfigFile = None,
) -> None:
    """Facts that carry instructions: do they change the answers about other facts?

    Example: lte eval injection --data tests/data/instructions.jsonl --json
    """
    from daemon.parts import models
    from ops.lab.evals import injection as measured

    settings = parts.settings(config, arch)
    encoder = models.encoder(settings)
    with parts.engine(settings) as engine, output.progress(not json_) as progress:
        calibration = models.calibration(settings, encoder)
        result = measured.run(data, encoder, engine, calibration, limit=limit, progress=progress)
    _show(result, json_)


@app.command()
def fidelity(
    method: Annotated[
        list[ComparedMethod] | None, typer.Option("--method", "-m", help="Default: ours. Repeatable.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Facts, the kinds in turn.")] = 1000,
    seed: Annotated[int, typer.Option(help="Of the facts.")] = 0,
    json_: Json = False,
    arch: Architecture = None,
    config: ConfigFile = None,
) -> None:
    """Made-up facts of all kinds: does the answer quote the cited value, with and without the guard?

    Example: lte eval fidelity --limit 1000 --json
    """
    from daemon.parts import models
    from ops.lab.evals import fidelity as measured

    settings = parts.settings(config, arch)
    encoder = models.encoder(settings)
    with parts.engine(settings) as engine, output.progress(not json_) as progress:
        result = measured.run(
            encoder,
            engine,
            models.calibration(settings, encoder),
            methods=[option.value for option in method or (ComparedMethod.OURS,)],
            count=limit,
            seed=seed,
            progress=progress,
        )
    _show(result, json_)


@app.command()
def reach(
    data: Annotated[Path, typer.Option(help="Folder with KnowEdit's JSON files.")],
    limit: Annotated[int, typer.Option(min=1, help="At most so many held-out edits of each set.")] = 10,
    train_data: TrainData = None,
    cache: Cache = CACHE,
    json_: Json = False,
    arch: Architecture = None,
    config: ConfigFile = None,
) -> None:
    """Why ROME misses a single edit: its search, its writing into the weights, or the model's own reach.

    Example: lte eval reach --data knowedit/ --limit 10 --arch qwen2
    """
    from ops.lab.evals import reach as measured

    with output.progress(not json_) as progress:
        kit = parts.kit(parts.settings(config, arch), cache, train_data, progress)
        _show(measured.run(data, kit.supplies, limit, progress), json_)


@app.command()
def harness(
    task: Annotated[list[str], typer.Option("--task", "-t", help="A task of the folder. Repeatable.")],
    include: Annotated[Path, typer.Option(help="Folder of the harness's task files.")],
    limit: Annotated[int | None, typer.Option(min=1, help="Documents of each task at most.")] = None,
    cache: Cache = CACHE,
    json_: Json = False,
    arch: Architecture = None,
    config: ConfigFile = None,
) -> None:
    """Tasks of EleutherAI's lm-evaluation-harness, without and with the aligned adapter.

    Example: lte eval harness --include tests/data/harness --task capitals --task capital_choice
    """
    try:
        from ops.lab.evals import harness as measured
    except ModuleNotFoundError as error:
        raise Refused(f"{error.name} is not installed: run `make setup`") from None

    with output.progress(not json_) as progress:
        kit = parts.kit(parts.settings(config, arch), cache, None, progress)
    _show(measured.run(kit, task, include, limit=limit), json_)


@app.command()
def report(
    results: Annotated[
        list[Path] | None, typer.Argument(help="What `lte eval knowedit --mode ... --json` printed.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Folder with KnowEdit's JSON files: measure first, every method.")
    ] = None,
    mode: Annotated[
        list[str] | None, typer.Option("--mode", help="With --data. Default: single, batch, sequential.")
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="The page whose section is replaced.")] = PAGE,
    machine: Annotated[
        str, typer.Option(help="Description of the machine for the page; default: read from the system.")
    ] = "",
    method: Annotated[
        list[Compared] | None, typer.Option("--method", "-m", help="With --data. Default: every one.")
    ] = None,
    train_data: TrainData = None,
    cache: Cache = CACHE,
    limit: Limit = None,
    arch: Architecture = None,
    config: ConfigFile = None,
) -> None:
    """Write the tables and pictures of compared methods into a page; with --data measure them first.

    Results are kept in the cache folder; a run that was killed continues from them.

    Examples: lte eval report --data knowedit/ --limit 20

    lte eval report single.json batch.json --out docs/evaluation-methods.md
    """
    from ops.lab.evals import report as writing

    files = list(results or ())
    if data is not None:
        chosen = _names(method or [Compared.ALL])
        files += _measure_modes(data, chosen, mode or list(MODES), train_data, cache, limit, arch, config)
    if not files:
        raise typer.BadParameter("name result files, or give --data to measure")
    writing.write(out, files, machine or writing.machine())
    typer.echo(str(out))


def _measure_modes(
    data: Path,
    methods: list[str],
    modes: list[str],
    train_data: Path | None,
    cache: Path,
    limit: int | None,
    arch: Arch | None,
    config: Path | None,
) -> Iterator[Path]:
    """Measures each mode and leaves its result in the cache folder."""
    from ops.lab.evals import compare

    settings = parts.settings(config, arch)
    with output.progress(True) as progress:
        kit = parts.kit(settings, cache, train_data, progress)
        for text in modes:
            chosen = compare.mode_of(text)
            samples = cache / "samples.jsonl"
            plan = compare.ComparisonPlan(data, methods, compare.SETS, chosen, limit=limit, samples=samples)
            path = cache / f"result-{text.replace(':', '-')}.json"
            path.write_text(json.dumps(compare.run(plan, kit, progress), indent=1), encoding="utf-8")
            yield path


@app.command()
def userfacts(
    data: Annotated[Path, typer.Option(help="File of facts with questions, JSON lines.")],
    method: Methods = None,
    limit: Limit = None,
    json_: Json = False,
    arch: Architecture = None,
    config: ConfigFile = None,
) -> None:
    """Facts as users write them: the question, a paraphrase, a declared alias.

    Example: lte eval userfacts --data facts.jsonl
    """
    from daemon.parts import models
    from ops.lab.evals import userfacts as measured

    settings = parts.settings(config, arch)
    encoder = models.encoder(settings)
    with parts.engine(settings) as engine, output.progress(not json_) as progress:
        result = measured.run(
            data,
            encoder,
            engine,
            models.calibration(settings, encoder),
            methods=[option.value for option in method or list(ComparedMethod)],
            limit=limit,
            progress=progress,
        )
    sets = {name: {"sets": {data.stem: figures}} for name, figures in result["methods"].items()}
    _show(result if json_ else {"methods": sets}, json_)


@app.command()
def retrieval(
    data: Annotated[Path, typer.Option(help="Folder with KnowEdit's files, or a file of user facts.")],
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="zsre, wiki_recent, ... Repeatable.")
    ] = None,
    split: Annotated[
        DataSplit, typer.Option(help="held-out: the half that no training saw.")
    ] = DataSplit.HELD_OUT,
    limit: Limit = None,
    json_: Json = False,
    arch: Architecture = None,
    config: ConfigFile = None,
) -> None:
    """What look-up and gate find, without the language model: no reader can answer more.

    Example: lte eval retrieval --data facts.jsonl
    """
    from daemon.parts import models
    from ops.lab.evals import knowedit as measured
    from ops.lab.evals import retrieval as finding

    settings = parts.settings(config, arch)
    encoder = models.encoder(settings)
    with output.progress(not json_) as progress:
        result = finding.run(
            data,
            encoder,
            models.calibration(settings, encoder),
            sets=set_ or measured.SETS,
            split=split.value,
            limit=limit,
            progress=progress,
        )
    _show(result, json_)


def rows(result: Mapping[str, Any]) -> Iterator[tuple[object, ...]]:
    """One row for each figure, and beside it the one for values in sentences, where there is one.

    Nested figures stand under dotted names, absent ones are left out.
    """
    for method, measured in result["methods"].items():
        for name, figures in measured["sets"].items():
            contained = dict(_flat(figures.get("contains", {})))
            for figure, value in _flat({key: figures[key] for key in figures if key != "contains"}):
                if value is not None and not isinstance(value, list):
                    yield method, name, figure, value, contained.get(figure, "")


def _flat(figures: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in figures.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value
