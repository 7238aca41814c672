"""`lte align`: show alignment data, and train an adapter from a file of facts, without a daemon."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer

from daemon.cli import connect, output
from daemon.cli.options import Address, ConfigFile, Json, Socket
from lte_runtime.align import contract
from lte_runtime.align.contract import JobResult
from lte_runtime.errors import BadRequest, Cancelled, DeadlineExceeded, LteError, Refused
from lte_runtime.progress import Progress

if TYPE_CHECKING:
    from daemon.settings import Settings
    from lte_runtime.align.data.dataset import TrainingRow
    from lte_runtime.align.data.facts import FactRecord

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Alignment: its data, its training.")

Facts = Annotated[
    Path | None,
    typer.Option(help="Facts or events as JSON lines, or a KnowEdit list. Default: the daemon's."),
]
Anchor = Annotated[
    Path | None, typer.Option(help="Further facts, replayed in the same forms to keep what is learned.")
]
PresetName = Annotated[
    str, typer.Option("--preset", "-p", help="demo-small, small, demo, embedded, 7b-1xh200 or 7b-4x.")
]
Seed = Annotated[int, typer.Option(help="Equal seeds draw equal rows.")]
Changes = Annotated[
    list[str] | None,
    typer.Option("--set", help="name=value in place of the preset's (cases=500). Repeatable."),
]
_POLL_S = 0.3
_MOST_FACTS = 100_000


@app.command()
def data(
    facts: Facts = None,
    anchor: Anchor = None,
    preset: PresetName = "demo-small",
    cases: Annotated[int, typer.Option(min=1, help="Cases drawn; each makes two rows at most.")] = 300,
    explain: Annotated[bool, typer.Option("--explain", help="Show samples of each kind.")] = False,
    samples: Annotated[int, typer.Option(min=1, help="Samples of each kind with --explain.")] = 1,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder for rows and manifest.")] = None,
    seed: Seed = 0,
    json_: Json = False,
    address: Address = None,
    socket: Socket = None,
    config: ConfigFile = None,
) -> None:
    """Build alignment rows and show what they are: counts, and with --explain samples of each kind.

    Example: lte align data --facts facts.jsonl --explain
    """
    from daemon.config import load
    from lte_runtime.align.data import dataset

    settings = load(config).settings
    records, anchors = _facts(facts, anchor, address, socket, config)
    with TemporaryDirectory() as scratch, output.progress(not json_) as progress:
        folder = out or Path(scratch)
        _write_rows(settings, preset, records, anchors, seed, cases, folder, progress)
        rows, manifest = dataset.read_rows(folder) or ([], {})
    sampled = _samples(rows, samples) if explain else {}
    if json_:
        samples_json = {kind: [asdict(row) for row in kind_rows] for kind, kind_rows in sampled.items()}
        output.as_json(manifest | ({"samples": samples_json} if explain else {}))
        return
    for kind, kind_rows in sampled.items():
        for row in kind_rows:
            _explain(kind, row)
    output.table(("kind", "rows", "with facts", "own answer", "exchanged"), _counts(rows), "rows by kind")
    output.pairs(_summary(manifest))


def _write_rows(
    settings: Settings,
    preset: str,
    records: Sequence[FactRecord],
    anchors: Sequence[FactRecord],
    seed: int,
    cases: int,
    folder: Path,
    progress: Progress,
) -> None:
    from daemon.parts.models import training_dtype
    from lte_runtime.align import presets
    from lte_runtime.align.data import dataset
    from lte_runtime.align.job import building
    from lte_runtime.answer.engine.files import base_fingerprint
    from lte_runtime.answer.engine.hf import choose_device, choose_dtype

    progress("loading the model", 0, cases)
    chosen, directory = presets.preset(preset), _base(settings)
    device = choose_device(settings.model.device)
    speaker = building.load_base_model(
        directory, choose_dtype(training_dtype(settings), device), device, chosen
    )
    neighbours, neighbour_source = building.neighbours(settings.encoder.model)
    material = building.material(records, anchors, chosen, speaker, neighbours, seed)
    tally = dataset.RowTally()
    drawn = islice(dataset.cases(material, chosen.mixture, seed), cases)

    def rows() -> Iterator[TrainingRow]:
        for row in dataset.rows(drawn, speaker.own, chosen.mixture, tally):
            progress("rows", row.case, cases)
            yield row

    head = {"seed": seed, "preset": preset, "base_fingerprint": base_fingerprint(directory)}
    dataset.write_rows(
        rows(), folder, {**head, "neighbours": neighbour_source, "known": len(material.known_facts)}, tally
    )


def _facts(
    facts: Path | None, anchor: Path | None, address: str | None, socket: Path | None, config: Path | None
) -> tuple[tuple[FactRecord, ...], tuple[FactRecord, ...]]:
    """The facts of the file, else the daemon's current ones; and the anchor set."""
    from lte_runtime.align.data import facts as reading

    anchors = reading.load(anchor, "replay") if anchor else ()
    if facts:
        return reading.load(facts), anchors
    with connect.client(connect.find(connect.flags(address, socket), config)) as daemon:
        edits = connect.paged(daemon.list_edits, "edits", _MOST_FACTS)
        current = [reading.from_mapping(edit) for edit in edits if edit["state"] == "current"]
    records = tuple(fact for fact in current if fact is not None)
    if not records:
        raise BadRequest("the daemon holds no current fact; name a file with --facts")
    return records, anchors


def _base(settings: Settings) -> Path:
    from daemon.parts import models

    if models.is_stub(settings.model.path):
        raise Refused("the stub model cannot be aligned: set model.path")
    with output.progress(shown=True) as progress:
        return models.model_directory(settings, progress)


def _samples(rows: Sequence[TrainingRow], count: int) -> dict[str, list[TrainingRow]]:
    """The first rows of each kind that carry facts."""
    samples: dict[str, list[TrainingRow]] = defaultdict(list)
    for row in rows:
        if row.with_facts and len(samples[row.kind]) < count:
            samples[row.kind].append(row)
    return dict(sorted(samples.items()))


def _counts(rows: Sequence[TrainingRow]) -> Iterator[tuple[str, int, int, int, int]]:
    kinds = Counter(row.kind for row in rows)
    with_facts = Counter(row.kind for row in rows if row.with_facts)
    own = Counter(row.kind for row in rows if row.own)
    exchanged = Counter(row.kind for row in rows if row.exchanged)
    for kind in sorted(kinds):
        yield kind, kinds[kind], with_facts[kind], own[kind], exchanged[kind]


def _summary(manifest: Mapping[str, Any]) -> dict[str, object]:
    names = ("rows", "facts_in_prompt", "sources", "dropped", "neighbours", "known", "seed", "data_hash")
    return {name: manifest[name] for name in names if name in manifest}


def _explain(kind: str, row: TrainingRow) -> None:
    """One row: its facts, its question, its answer (also where a fact tells it), and where it comes from."""
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False, soft_wrap=True)
    order = "shuffled" if row.shuffled else "best first"
    origin = [row.source, *row.edit_ids, order, *(["target exchanged"] if row.exchanged else [])]
    console.print(Text(kind, style="bold magenta"), Text(f"  {', '.join(origin)}", style="dim"))
    for number, fact in enumerate(row.facts, 1):
        line = Text(f"  {number}. {fact}", style="cyan")
        line.highlight_words([row.answer], style="bold green")
        console.print(line)
    console.print(Text("  ? ", style="dim") + Text(row.question, style="bold"))
    mine = "the original model's own" if row.own else ""
    console.print(Text("  = ", style="dim") + Text(row.answer, style="green"), Text(mine, style="dim"))
    console.print()


@app.command()
def train(
    facts: Facts = None,
    anchor: Anchor = None,
    probes: Annotated[
        Path | None, typer.Option(help="Probes as JSON lines. Default: made from the facts.")
    ] = None,
    preset: PresetName = "demo-small",
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Job folder; an unfinished job in it is continued.")
    ] = Path("align-job"),
    name: Annotated[str, typer.Option(help="The adapter's id.")] = "align-000002",
    fresh: Annotated[bool, typer.Option(help="Do not start from the configured adapter.")] = False,
    seed: Seed = 0,
    deadline: Annotated[
        float | None, typer.Option(min=1, help="Seconds after which the run is stopped.")
    ] = None,
    set_: Changes = None,
    json_: Json = False,
    address: Address = None,
    socket: Socket = None,
    config: ConfigFile = None,
) -> None:
    """Train an adapter in a process of its own, and compare it with the configured one and with none.

    Ctrl-C ends it with a checkpoint; the same command goes on from there.

    Example: lte align train --facts facts.jsonl --preset demo --out job
    """
    from daemon.config import load

    settings = load(config).settings
    if not (out / contract.JOB).exists():
        records, anchors = _facts(facts, anchor, address, socket, config)
        options = {"preset": preset, "name": name, "fresh": fresh, "seed": seed, "deadline_s": deadline}
        _write_job(out, settings, records, anchors, probes, {**options, "changes": _changes(set_ or ())})
    else:
        output.note(f"{out} already holds a job: it continues with its own facts and settings")
    result = _run_job(out, shown=not json_)
    if json_:
        output.as_json(asdict(result))
    _raise(result, out)
    if not json_:
        output.table(("arm", "probes", "right"), _scores(out, result), "judged")
        output.pairs({"adapter": out / "adapter", "sha256": result.adapter_hash, "rows": result.rows})


def _changes(pairs: Sequence[str]) -> dict[str, object]:
    """Numbers and booleans as JSON has them; other text stays, for the preset to refuse by name."""
    changes: dict[str, object] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise BadRequest(f"--set takes name=value, not {pair!r}")
        try:
            changes[name] = json.loads(value.lower())
        except ValueError:
            changes[name] = value
    return changes


def _write_job(
    job_dir: Path,
    settings: Settings,
    records: Sequence[FactRecord],
    anchors: Sequence[FactRecord],
    probes: Path | None,
    options: Mapping[str, Any],
) -> None:
    """Facts, probes and, last, `job.json`. Raises `BadRequest` for what no preset has."""
    from daemon.parts.models import adapter_directory, planned_runtime, training_dtype
    from lte_runtime.align import presets
    from lte_runtime.align.data.facts import FactRecord
    from lte_runtime.answer.engine.files import base_fingerprint

    preset = presets.adjusted(presets.preset(options["preset"]), options["changes"])
    base = _base(settings)
    incumbent = adapter_directory(settings)
    probe_records = (
        contract.read_probes(probes) if probes else _probes(records, anchors, options["seed"], preset.probes)
    )
    job_dir = job_dir.absolute()
    job_dir.mkdir(parents=True, exist_ok=True)
    job = contract.JobSpec(
        job_dir=job_dir,
        id=f"cli-{int(time.time())}",
        base=str(base.absolute()),
        base_fingerprint=base_fingerprint(base),
        incumbent=incumbent.absolute() if incumbent else None,
        facts=job_dir / contract.FACTS,
        probes=job_dir / contract.PROBES,
        anchor=job_dir / contract.ANCHOR if anchors else None,
        epoch=0,
        device=settings.model.device,
        dtype=training_dtype(settings),
        runtime=planned_runtime(settings, base),
        max_memory_bytes=None,
        neighbours=contract.located(settings.encoder.model),
        **options,
    )
    contract.write_job(job, map(FactRecord.to_json, records), probe_records, map(FactRecord.to_json, anchors))


def _probes(
    records: Sequence[FactRecord], anchors: Sequence[FactRecord], seed: int, share: float
) -> tuple[contract.Probe, ...]:
    """Of the kinds that the daemon's have, about the facts themselves: nothing is held out."""
    from lte_runtime.align import material

    facts, others = (tuple(map(material.fact_of, part)) for part in (records, anchors))
    return material.job_probes(facts, others, seed, material.counts_of(share))


def _run_job(job_dir: Path, *, shown: bool) -> JobResult:
    """Runs the job as a child process, shows its progress, and returns its result."""
    command = [sys.executable, "-m", "lte_runtime.align.job", str(job_dir)]
    # Of its own group: Ctrl-C reaches it once, from here.
    child = subprocess.Popen(command, start_new_session=True)
    try:
        with output.progress(shown) as progress:
            while child.poll() is None:
                if (now := contract.read_progress(job_dir)) is not None:
                    _show_progress(now, progress)
                time.sleep(_POLL_S)
    except KeyboardInterrupt:
        output.note("stopping after a checkpoint")
        child.send_signal(signal.SIGTERM)
        child.wait()
    result = contract.read_result(job_dir)
    if result is None:
        raise LteError(f"the training process ended with status {child.returncode} and wrote no result")
    return result


def _show_progress(now: contract.Progress, progress: Progress) -> None:
    loss = "" if now.loss is None else f" loss {now.loss:.3f}"
    rate = "" if now.rows_per_s is None else f" {now.rows_per_s:.0f} rows/s"
    remaining = "" if now.remaining_s is None else f" {now.remaining_s:.0f} s left"
    progress(f"{now.phase}{loss}{rate}{remaining}", now.step, now.total)


def _raise(result: JobResult, job_dir: Path) -> None:
    """An error of the project's own tree for a run that was not done."""
    if result.status == contract.CANCELLED:
        raise Cancelled(f"stopped; `lte align train --out {job_dir}` goes on from the last checkpoint")
    error = result.error
    if error is not None:
        error_class = {"data": BadRequest, "deadline": DeadlineExceeded}.get(error.kind, LteError)
        advice = "; --set batch=, --set max_tokens= or a GPU helps" if error.kind == "out_of_memory" else ""
        raise error_class(f"{error.kind.replace('_', ' ')}: {error.message}{advice}")


def _scores(job_dir: Path, result: JobResult) -> Iterator[tuple[str, str, float]]:
    kinds = {probe.id: probe.kind for probe in contract.read_probes(job_dir / contract.PROBES)}
    for arm, right in result.judged.items():
        for kind in dict.fromkeys(kinds.values()):
            verdicts = [value for probe, value in right.items() if kinds[probe] == kind]
            if verdicts:
                yield arm, kind, sum(verdicts) / len(verdicts)
