"""The recipe of the small Qwen2 that fast tests use: `python -m ops.lab.recipes.recipe --help`."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from tokenizers import Tokenizer

from lte_runtime.align.data.dataset import Example
from lte_runtime.align.stock.sources import load
from lte_runtime.answer.prompt import build
from lte_runtime.disk import sha256_file
from ops.lab.recipes import batches, evaluate, export, lessons, network, tokenizer, trainer
from ops.lab.recipes.batches import WeightedTokens, Weights
from ops.lab.recipes.exclude import excluded
from ops.lab.recipes.generator import Generator
from ops.lab.recipes.network import SHAPES, Shape, TokenBatch
from ops.lab.recipes.rows import TextRow, base_prompt
from ops.models import QWEN2

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Trains the small Qwen2, step by step.")

Data = Annotated[Path, typer.Option(help="Folder with knowedit/, pararel/, nq_open/ and wiki_extracts/.")]
Work = Annotated[Path, typer.Option(help="Folder for the tokenizer, checkpoints and logs.")]
Seed = Annotated[int, typer.Option(help="Seed of the stream and of the first weights.")]

COLUMNS = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
Model = Annotated[str, typer.Option("--model", help="Shape: qwen2 or llama.")]
Out = Annotated[Path, typer.Option(help="The model's folder.")]
Exclude = Annotated[
    list[Path] | None, typer.Option(help="JSON Lines of fact events to keep out of the stream.")
]

COPYING = (
    ("single", 0.30),
    ("edit", 0.20),
    ("recall", 0.08),
    ("reading", 0.17),
    ("stock", 0.08),
    ("copy", 0.10),
    ("drill", 0.07),
)
MATCHING = (
    ("stock", 0.18),
    ("repeat", 0.15),
    ("echo", 0.09),
    ("reading", 0.16),
    ("recall", 0.10),
    ("edit", 0.10),
    ("single", 0.08),
    ("lookup", 0.04),
    ("chain", 0.03),
    ("drill", 0.05),
    ("copy", 0.02),
)
MIXTURE = (
    ("stock", 0.19),
    ("reading", 0.22),
    ("edit", 0.12),
    ("single", 0.10),
    ("recall", 0.05),
    ("chain", 0.09),
    ("compose", 0.06),
    ("repeat", 0.04),
    ("echo", 0.03),
    ("lookup", 0.02),
    ("drill", 0.05),
    ("copy", 0.02),
    ("text", 0.01),
)
FINISH: Sequence[tuple[str, float]] = (
    ("stock", 0.21),
    ("reading", 0.24),
    ("edit", 0.13),
    ("single", 0.15),
    ("recall", 0.03),
    ("chain", 0.09),
    ("compose", 0.07),
    ("repeat", 0.01),
    ("echo", 0.02),
    ("drill", 0.04),
    ("copy", 0.01),
)
Phases = Sequence[tuple[float, Sequence[tuple[str, float]]]]
PHASES: Phases = ((0.05, COPYING), (0.20, MATCHING), (0.80, MIXTURE), (float("inf"), FINISH))
POLISHING: Phases = ((float("inf"), FINISH),)
"""(share of the run at which a phase ends, its kinds of rows): each skill builds on the one before."""
ALL = Weights(question=0.5)
"""In the first phase facts and questions count a little: repeated names teach copying first."""
PROBES = (
    "copy",
    "drill",
    "echo",
    "repeat",
    "lookup",
    "recall",
    "single",
    "reading",
    "chain",
    "compose",
    "edit",
    "stock",
)


def mixture(share: float, phases: Phases = PHASES) -> Sequence[tuple[str, float]]:
    """Kinds of rows and their weights once `share` of the run is done: copying, matching, then all."""
    return next(kinds for until, kinds in phases if share < until)


def encode(coder: Tokenizer, row: TextRow, rng: random.Random, weights: Weights) -> WeightedTokens:
    """A row in one of the base model's prompt forms."""
    pairs = [(turn.user, turn.answer) for turn in row.turns]
    if row.facts:
        pairs[0] = (base_prompt(rng, row.facts, pairs[0][0]), pairs[0][1])
    return batches.tokens(coder, pairs, row, weights)


def batch_at(
    generator: Generator,
    coder: Tokenizer,
    seed: int,
    step: int,
    steps: int,
    budget: int,
    phases: Phases = PHASES,
    *,
    single_part: bool = False,
) -> Sequence[TokenBatch]:
    """The batch of one step; equal arguments give equal batches.

    About `budget` tokens in two parts, one for each core; with `single_part` exactly `budget` in one part.
    """
    rng = random.Random(f"{seed}:base:{step}")
    rows: list[WeightedTokens] = []
    kinds = mixture(step / steps, phases)
    while sum(len(row.ids) for row in rows) < budget:
        drawn = generator.rows(rng, kinds, 8)
        rows += [
            encode(coder, row, rng, ALL if kinds is COPYING or rng.random() < 0.1 else Weights())
            for row in drawn
        ]
    return [batches.collate(rows, slack=0.25, total=budget)] if single_part else batches.collate_parts(rows)


def probes(generator: Generator, coder: Tokenizer, count: int = 200) -> dict[str, list[WeightedTokens]]:
    """Fixed single-question rows of each kind, outside the training seeds."""
    probe_rows = {}
    for kind in PROBES:
        rng = random.Random(f"probe:{kind}")
        rows = generator.rows(rng, ((kind, 1.0),), count)
        singles = [replace(row, turns=row.turns[:1]) for row in rows]
        probe_rows[kind] = [encode(coder, row, rng, Weights()) for row in singles]
    return probe_rows


def exact_match(
    parameters: dict[str, torch.Tensor],
    shape: Shape,
    rows: Sequence[WeightedTokens],
    device: torch.device,
    total: int,
) -> float:
    """Share of rows whose every answer token is the likeliest one (teacher-forced)."""
    ordered = sorted(rows, key=lambda row: len(row.ids))
    batch = batches.collate(ordered, total=total).to(device)
    cos, sin = network.rope(shape)
    states = network.hidden(parameters, shape, batch, (cos.to(device), sin.to(device)), torch.bfloat16)
    states = states.detach()
    best = (states @ parameters["model.embed_tokens.weight"].bfloat16().T).argmax(-1)
    counts = [sum(weight > 0 for weight in row.weights) for row in ordered]
    hits = iter((best == batch.targets).tolist())
    return sum(all(list(islice(hits, count))) for count in counts) / len(rows)


@app.command("tokenizer")
def train_tokenizer(data: Data, work: Work = Path(".cache/lab"), seed: Seed = 0) -> None:
    """Train the tokenizer."""
    tokenizer.save(tokenizer.train(load(data), seed), work / "tokenizer")


@app.command("base")
def train_base(
    data: Data,
    work: Work = Path(".cache/lab"),
    seed: Seed = 0,
    exclude: Exclude = None,
    steps: Annotated[int, typer.Option(help="Total number of updates.")] = 9000,
    name: Model = "qwen2",
    budget: Annotated[int, typer.Option(help="Tokens in a batch.")] = 5000,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    workers: Annotated[int, typer.Option(help="Processes that make batches (0: one thread).")] = 0,
    every: Annotated[int, typer.Option(help="Steps between checkpoints.")] = 250,
    rate: Annotated[float, typer.Option(help="Full rate of the matrices (Muon).")] = 0.02,
    decay: Annotated[
        float, typer.Option(help="Share of the run, at its end, in which the rates fall.")
    ] = 0.5,
    other: Annotated[float, typer.Option(help="Full rate of embeddings and norms (AdamW).")] = 1.5e-3,
    seconds: Annotated[
        float, typer.Option(help="Stop after so many seconds, rates falling with time. 0: no limit.")
    ] = 0.0,
    stream: Annotated[
        Path | None, typer.Option(help="Read the batches that `stream` writes to this folder.")
    ] = None,
    polish: Annotated[
        Path | None, typer.Option(help="Continue from the exported base in this folder.")
    ] = None,
) -> None:
    """Train the base model, from the last checkpoint if there is one, or polish an exported base."""
    torch.set_num_threads(1)
    shape, checkpoint, torch_device = SHAPES[name], work / f"{name}.pt", torch.device(device)
    generator = Generator(load(data), excluded(exclude or ()))
    coder = Tokenizer.from_file(str(work / "tokenizer" / "tokenizer.json"))
    probe_rows = probes(generator, coder)
    if checkpoint.exists():
        state = trainer.resume(checkpoint, torch_device)
    elif polish:
        state = trainer.start_from_weights(polish / export.WEIGHTS, seed, torch_device)
    else:
        state = trainer.start(shape, seed, torch_device)
    phases, gpu = POLISHING if polish else PHASES, torch_device.type == "cuda"
    plan = trainer.TrainingPlan(
        steps=steps,
        every=every,
        matrix_rate=rate,
        other_rate=other,
        decay=decay,
        device=torch_device,
        workers=workers,
        report_every=50 if gpu else 1,
        seconds=seconds,
    )
    with Progress(*COLUMNS, TimeRemainingColumn()) as bar, (work / f"{name}.log").open("a") as log:
        task = bar.add_task(name, total=steps, completed=state.step)
        running_mean = {"loss": 0.0, "right": 0.0}
        for progress in trainer.run(
            state,
            shape,
            plan,
            (lambda step: [batches.load(stream / f"{step:06d}.pt")])
            if stream
            else (
                lambda step: batch_at(generator, coder, seed, step, steps, budget, phases, single_part=gpu)
            ),
            checkpoint,
        ):
            update_share = 1.0 if gpu else 0.04
            running_mean["loss"] += (progress.loss - running_mean["loss"]) * update_share
            running_mean["right"] += (progress.right - running_mean["right"]) * update_share
            bar.update(task, completed=progress.step, description=f"{name} loss {running_mean['loss']:.3f}")
            if progress.step % 50 == 0:
                line = {
                    "step": progress.step,
                    "tokens": progress.tokens,
                    "seconds": round(progress.seconds, 1),
                    **running_mean,
                }
                if progress.step % every == 0:
                    total = budget if gpu else 0
                    line |= {
                        kind: exact_match(state.parameters, shape, rows, torch_device, total)
                        for kind, rows in probe_rows.items()
                    }
                log.write(json.dumps(line) + "\n")
                log.flush()


@app.command("stream")
def write_stream(
    data: Data,
    out: Annotated[Path, typer.Option(help="Folder of the batches.")],
    work: Work = Path(".cache/lab"),
    seed: Seed = 0,
    exclude: Exclude = None,
    steps: Annotated[int, typer.Option(help="Total number of batches.")] = 9000,
    budget: Annotated[int, typer.Option(help="Tokens in a batch, with padding.")] = 65_536,
    workers: Annotated[int, typer.Option(help="Processes that make batches.")] = 2,
    polish: Annotated[bool, typer.Option(help="Write the rows of a polishing run.")] = False,
) -> None:
    """Write the batches of a run, so that several models train on one stream (`base --stream`)."""
    generator = Generator(load(data), excluded(exclude or ()))
    coder = Tokenizer.from_file(str(work / "tokenizer" / "tokenizer.json"))
    phases = POLISHING if polish else PHASES
    out.mkdir(parents=True, exist_ok=True)
    plan = trainer.TrainingPlan(steps=steps, workers=workers)
    stream = trainer.prefetch(
        0, plan, lambda step: batch_at(generator, coder, seed, step, steps, budget, phases, single_part=True)
    )
    with Progress(*COLUMNS, TimeRemainingColumn()) as bar:
        for step, (batch,) in enumerate(bar.track(stream, total=steps, description="stream")):
            batches.save(batch, out / f"{step:06d}.pt")


@app.command("export")
def export_base(work: Work = Path(".cache/lab"), name: Model = "qwen2", out: Out = QWEN2) -> None:
    """Write the base of the last checkpoint as a folder that transformers reads."""
    state = trainer.resume(work / f"{name}.pt")
    export.write_base(state.parameters, SHAPES[name], work / "tokenizer", out)
    typer.echo(f"step {state.step}, {state.tokens} tokens, {state.seconds / 3600:.2f} hours: {out}")


@app.command("adapter")
def train_adapter(
    data: Data,
    work: Work = Path(".cache/lab"),
    out: Out = QWEN2,
    seed: Seed = 0,
    exclude: Exclude = None,
    rows: Annotated[int, typer.Option(help="Total number of examples.")] = 16_000,
    name: Annotated[str, typer.Option(help="The adapter's id.")] = "align-000001",
    rank: Annotated[int, typer.Option(help="Rank of the update.")] = 32,
    rate: Annotated[float, typer.Option(help="Full rate.")] = 4e-4,
    batch: Annotated[int, typer.Option(help="Rows per update.")] = 32,
    share: Annotated[float, typer.Option(help="Share of the learnt update that the adapter keeps.")] = 0.5,
) -> None:
    """Train the first alignment adapter on the exported base."""
    from lte_runtime.align.data.dataset import fitting
    from lte_runtime.align.job import train as align
    from lte_runtime.align.settings import TrainingSettings

    torch.set_num_threads(1)
    model, coder = _load(out)
    generator = Generator(load(data), excluded(exclude or ()))
    examples = _examples(model, coder, generator, seed, rows)
    digest = hashlib.sha256("\n".join(map(repr, examples)).encode()).hexdigest()
    encoded = fitting(coder, examples, 512)
    settings = TrainingSettings(seed=seed, rank=rank, alpha=2 * rank, rate=rate, batch=batch, every=100)
    # A run with other examples, settings or weights must not continue from these checkpoints.
    run = hashlib.sha256(f"{digest} {settings} {sha256_file(out / export.WEIGHTS)}".encode()).hexdigest()
    adapted = align.with_adapter(model.float(), settings)
    with Progress(*COLUMNS, TimeRemainingColumn()) as bar:
        task = bar.add_task("adapter")

        def watch(update: align.Update) -> None:
            description = f"adapter loss {update.loss:.4f}"
            bar.update(task, total=update.total, completed=update.number, description=description)

        align.train(adapted, encoded, settings, folder=work / f"{name}-{run[:12]}", watch=watch)
    folder = out / "adapters" / name
    align.soften(adapted, share)
    align.save(adapted, folder)
    export.write_manifest(
        out, folder, {"data_hash": digest, "recipe": "embedded-lte-3", "seed": seed, "scores": {}}
    )


def _examples(model: Any, coder: Any, generator: Generator, seed: int, rows: int) -> list[Example]:
    """In scope, and one in twelve out of scope with the base's own answers, in seeded order."""
    rng = random.Random(f"{seed}:adapter")
    questions = lessons.open_questions(generator, rng, 800)
    prompts = [build(coder, question, max_tokens=512).token_ids for question in questions]
    base_answers = dict(zip(questions, evaluate.answers(model.bfloat16(), coder, prompts), strict=True))
    outside_count = rows // 12
    examples = lessons.in_scope(generator, rng, rows - outside_count, coder.decode)
    examples += lessons.out_of_scope(generator, rng, base_answers, outside_count)
    rng.shuffle(examples)
    return examples


def _load(folder: Path) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM

    from lte_runtime.answer.engine.tokenizer import load_tokenizer

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).eval()
    return model, load_tokenizer(folder)


@app.command("evaluate")
def evaluate_model(
    data: Data,
    out: Out = QWEN2,
    limit: Annotated[int, typer.Option(help="At most this many probes per set.")] = 350,
    facts: Annotated[Path | None, typer.Option(help="JSON Lines of users' facts with questions.")] = None,
    only: Annotated[str, typer.Option(help="Only sets whose name contains this text.")] = "",
    adapter: Annotated[str, typer.Option(help="Adapter id; empty for the base alone.")] = "align-000001",
    record: Annotated[bool, typer.Option(help="Write the scores into manifest and model card.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Measure exact match per probe set, right facts given: the base in both prompt forms, the adapter."""
    model, coder = _load(out)
    probes = {
        name: rows for name, rows in evaluate.sets(load(data), data, facts, limit).items() if only in name
    }
    scores = {"base": _scores(model, coder, probes, evaluate.own_form, as_json)}
    scores["no adapter"] = _scores(model, coder, probes, evaluate.lte_form, as_json)
    if adapter:
        adapted = _adapted(model, out / "adapters" / adapter)
        scores["adapter"] = _scores(adapted, coder, probes, evaluate.lte_form, as_json)
    if as_json:
        typer.echo(json.dumps(scores, indent=2))
    if record and adapter:
        export.record(
            out, out / "adapters" / adapter, scores, {name: len(rows) for name, rows in probes.items()}
        )


def _scores(
    model: Any, coder: Any, probes: dict[str, list[evaluate.ReaderProbe]], form: evaluate.Form, silent: bool
) -> dict[str, float]:
    scores = {}
    for name, rows in probes.items():
        scores[name] = round(evaluate.accuracy(model, coder, rows, form), 4)
        if not silent:
            typer.echo(f"{form.__name__:10} {name:24} {scores[name]:.3f}  n {len(rows)}")
    return scores


def _adapted(model: Any, folder: Path) -> Any:
    from peft import PeftModel

    return PeftModel.from_pretrained(model, folder).eval()


if __name__ == "__main__":
    app()
