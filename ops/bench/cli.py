"""`lte bench NAME`: measure speed and memory beside a peer; `all` writes docs/performance.md."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, SpinnerColumn, TextColumn
from rich.progress import Progress as Shown
from rich.table import Table

from daemon.cli.exits import INTERRUPTED
from ops.bench.result import BenchResult

# Not part of `all`: they need a GPU, half an hour, or the memory of three daemons.
ALONE = ("gpu", "load", "replicas")
NAMES = (
    "ingest",
    "freshness",
    "store",
    "answer",
    "hostile",
    "gate",
    "recall",
    "memory",
    "start",
    "drift",
    "swap",
    "realign",
    "concurrency",
    "agreement",
    "gateway",
)
# Those that take a model.
MODELLED = ("answer", "swap", "concurrency", "agreement", "gateway", "load", "replicas")
# How much of its work is done when a line is due, where nobody watches a bar.
LINE_EVERY = 0.1
PAGE = Path(__file__).resolve().parents[2] / "docs" / "performance.md"

command = typer.Typer(add_completion=False)


@command.command(help="Measure one thing, or all of them, beside a peer in the same run.")
def bench(
    name: Annotated[str, typer.Argument(help=f"One of {', '.join((*NAMES, *ALONE))}, or all.")],
    json_: Annotated[bool, typer.Option("--json", help="One JSON object (all: a list).")] = False,
    quick: Annotated[bool, typer.Option(help="Smaller and shorter: a look, not a figure to quote.")] = False,
    write: Annotated[bool, typer.Option(help="With all: write docs/performance.md.")] = True,
    shape: Annotated[str, typer.Option(help="gpu: 7b, or tiny on any machine.")] = "7b",
    seconds: Annotated[float, typer.Option(help="gpu: the most that a phase may take.")] = 20.0,
    engine: Annotated[str, typer.Option(help=f"model.engine of {', '.join(MODELLED)}.")] = "auto",
    model: Annotated[str, typer.Option(help="model.path of the same.")] = "",
    adapter: Annotated[str, typer.Option(help="model.adapter of the same.")] = "",
    encoder: Annotated[str, typer.Option(help="encoder.model of load and replicas.")] = "",
    minutes: Annotated[
        float | None, typer.Option(min=0.05, max=1440, help="load: how long. Default: 30; with --quick 0.25.")
    ] = None,
    share: Annotated[
        float, typer.Option(min=0.01, max=2, help="load: questions, as a share of the capacity.")
    ] = 0.4,
    events_per_s: Annotated[float, typer.Option(min=0, max=10_000, help="load: events a second.")] = 100.0,
    realign: Annotated[bool, typer.Option(help="load: train a new adapter meanwhile.")] = False,
) -> None:
    """Measure.

    Examples: lte bench store --json, lte bench all, lte bench freshness --quick,
    lte bench answer --model smollm2 --engine openvino, lte bench load --minutes 30 --realign --json
    """
    names = (*NAMES, *ALONE, "all")
    if name not in names:
        raise typer.BadParameter(
            f"{name!r} is not a benchmark: choose one of {', '.join(names)}", param_hint="NAME"
        )
    if shape not in ("7b", "tiny"):
        raise typer.BadParameter(f"{shape!r} is neither 7b nor tiny", param_hint="--shape")
    options: dict[str, Any] = {"shape": shape, "seconds": seconds} if name == "gpu" else {}
    if name == "load":
        options = {"minutes": minutes, "share": share, "events_per_s": events_per_s, "realign": realign}
    if name in MODELLED:
        options["settings"] = _settings(engine, model, adapter, encoder)
    results = [measure(benchmark, quick, **options) for benchmark in (NAMES if name == "all" else (name,))]
    if name == "all" and write and not quick:
        PAGE.write_text(page(results), encoding="utf-8")
    if json_:
        rows = [result.to_json() for result in results]
        typer.echo(json.dumps(rows if name == "all" else rows[0], ensure_ascii=False))
    else:
        Console().print(table(results))
    if any(result.extra.get("interrupted") for result in results):
        raise typer.Exit(INTERRUPTED)


def _settings(engine: str, model: str, adapter: str, encoder: str) -> Any:
    from daemon.settings import Settings

    chosen = {"engine": engine, "path": model, "adapter": adapter}
    sections = {"model": {name: value for name, value in chosen.items() if value}}
    return Settings.model_validate(sections | ({"encoder": {"model": encoder}} if encoder else {}))


def measure(name: str, quick: bool, **options: Any) -> BenchResult:
    """Run one benchmark; its progress is printed on stderr."""
    run: Callable[..., BenchResult] = import_module(f"ops.bench.{name}").run
    console = Console(stderr=True)
    columns = SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn()
    with Shown(*columns, console=console, transient=True) as shown:
        task = shown.add_task(f"bench {name}", total=None)
        next_line = 0.0

        def progress(text: str, done: float | None = None) -> None:
            nonlocal next_line
            shown.update(
                task,
                description=f"bench {name}: {text}",
                total=None if done is None else 1.0,
                completed=done or 0,
            )
            if not console.is_terminal and (done is None or done >= next_line):
                print(f"bench {name}: {text}", file=sys.stderr, flush=True)
                next_line = 0.0 if done is None else done + LINE_EVERY

        return run(quick, progress, **options)


def table(results: Sequence[BenchResult]) -> Table:
    """For people: one row a benchmark."""
    shown = Table(title="lte bench", caption=results[0].machine)
    for column in ("name", "ours", "peer", "ratio", "unit", "bar", "n"):
        shown.add_column(column, justify="right" if column in {"ours", "peer", "ratio", "n"} else "left")
    for result in results:
        shown.add_row(*cells(result))
    return shown


def cells(result: BenchResult) -> tuple[str, ...]:
    """A result as text, in the columns of the table."""
    numbers = (_number(result.ours), _number(result.peer), _number(result.ratio))
    return (result.name, *numbers, result.unit, result.bar, str(result.n))


def page(results: Sequence[BenchResult]) -> str:
    """docs/performance.md."""
    first = results[0]
    lines = [
        "# Performance",
        "",
        "Made by `lte bench all`: each peer runs interleaved with ours in one run; medians over repeats.",
        f"Machine: {first.machine}. Date: {first.date}. Seed: {first.seed}. "
        "The machine is shared and noisy: trust the ratios.",
        "",
        "| name | ours | peer | ratio | unit | bar | n |",
        "|---|---:|---:|---:|---|---|---:|",
        *("| " + " | ".join(cells(result)) + " |" for result in results),
        "",
        "## Further figures",
        "",
        *(f"- `{result.name}`: {_further(result)}" for result in results if result.extra),
        "",
    ]
    return "\n".join(lines)


def _further(result: BenchResult) -> str:
    return ", ".join(f"{name} {_plain(value)}" for name, value in result.extra.items())


def _plain(value: object) -> str:
    return _number(value) if isinstance(value, float) else str(value)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}" if abs(value) < 1000 else f"{value:,.0f}"


if __name__ == "__main__":  # a GPU host may lack what the daemon's command line needs
    command()
