"""The recipe of the embedded model: `python -m lte_runtime.embedded.recipe --help`."""

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

from lte_runtime.align.dataset import Example
from lte_runtime.answer.prompt import build
from lte_runtime.disk import sha256_file
from lte_runtime.embedded import batches, evaluate, export, lessons, network, tokenizer, trainer
from lte_runtime.embedded.batches import WeightedTokens, Weights
from lte_runtime.embedded.exclude import excluded
from lte_runtime.embedded.generator import Generator
from lte_runtime.embedded.network import SHAPES, Shape, TokenBatch
from lte_runtime.embedded.rows import TextRow, base_prompt
from lte_runtime.embedded.sources import load

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Trains the embedded model, step by step.")

Data = Annotated[Path, typer.Option(help="Folder with knowedit/, pararel/, nq_open/ and wiki_extracts/.")]
Work = Annotated[Path, typer.Option(help="Folder for the tokenizer, checkpoints and logs.")]
Seed = Annotated[int, typer.Option(help="Seed of the stream and of the first weights.")]

COLUMNS = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
HERE = Path(__file__).parent
Model = Annotated[str, typer.Option("--model", help="llama or qwen2.")]
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
"""Until which share of the run which rows are drawn: each skill stands on the one before."""
ALL = Weights(question=0.5)
"""At first facts and questions count a little: repeated names teach to copy before answers do."""
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
    """Kinds of rows and their weights once `share` of the run is done: copying, choosing, all of it."""
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
    whole: bool = False,
) -> Sequence[TokenBatch]:
    """The batch of one step; equal arguments give equal batches.

    About `budget` tokens in two parts, one for each core, or exactly so many in one part (`whole`).
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
    return [batches.collate(rows, slack=0.25, total=budget)] if whole else batches.halves(rows)


def probes(generator: Generator, coder: Tokenizer, count: int = 200) -> dict[str, list[WeightedTokens]]:
    """Fixed single-question rows of each kind, outside the training seeds."""
    made = {}
    for kind in PROBES:
        rng = random.Random(f"probe:{kind}")
        rows = generator.rows(rng, ((kind, 1.0),), count)
        singles = [replace(row, turns=row.turns[:1]) for row in rows]
        made[kind] = [encode(coder, row, rng, Weights()) for row in singles]
    return made


def whole_right(
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
def train_tokenizer(data: Data, work: Work = Path(".cache/embedded"), seed: Seed = 0) -> None:
    """Train the tokenizer."""
    tokenizer.save(tokenizer.train(load(data), seed), work / "tokenizer")


@app.command("base")
def train_base(
    data: Data,
    work: Work = Path(".cache/embedded"),
    seed: Seed = 0,
    exclude: Exclude = None,
    steps: Annotated[int, typer.Option(help="Updates in all.")] = 9000,
    name: Model = "llama",
    budget: Annotated[int, typer.Option(help="Tokens in a batch.")] = 5000,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    workers: Annotated[int, typer.Option(help="Processes that make batches (0: a thread).")] = 0,
    every: Annotated[int, typer.Option(help="Steps between checkpoints.")] = 250,
    rate: Annotated[float, typer.Option(help="Full rate of the matrices (Muon).")] = 0.02,
    decay: Annotated[float, typer.Option(help="Over which last share of the run the rates fall.")] = 0.5,
    other: Annotated[float, typer.Option(help="Full rate of embeddings and norms (AdamW).")] = 1.5e-3,
    seconds: Annotated[float, typer.Option(help="End after so long, the rates falling by the clock.")] = 0.0,
    stream: Annotated[Path | None, typer.Option(help="Take the batches that `stream` writes there.")] = None,
    polish: Annotated[Path | None, typer.Option(help="Go on from the exported base in this folder.")] = None,
) -> None:
    """Train the base model, from the last checkpoint if there is one, or polish an exported one."""
    torch.set_num_threads(1)
    shape, checkpoint, there = SHAPES[name], work / f"{name}.pt", torch.device(device)
    generator = Generator(load(data), excluded(exclude or ()))
    coder = Tokenizer.from_file(str(work / "tokenizer" / "tokenizer.json"))
    held = probes(generator, coder)
    if checkpoint.exists():
        state = trainer.resume(checkpoint, there)
    elif polish:
        state = trainer.go_on(polish / export.WEIGHTS, seed, there)
    else:
        state = trainer.start(shape, seed, there)
    phases, gpu = POLISHING if polish else PHASES, there.type == "cuda"
    plan = trainer.TrainingPlan(
        steps=steps,
        every=every,
        matrix_rate=rate,
        other_rate=other,
        decay=decay,
        device=there,
        workers=workers,
        told=50 if gpu else 1,
        seconds=seconds,
    )
    with Progress(*COLUMNS, TimeRemainingColumn()) as shown, (work / f"{name}.log").open("a") as log:
        task = shown.add_task(name, total=steps, completed=state.step)
        mean = {"loss": 0.0, "right": 0.0}
        for done in trainer.run(
            state,
            shape,
            plan,
            (lambda step: [batches.load(stream / f"{step:06d}.pt")])
            if stream
            else (lambda step: batch_at(generator, coder, seed, step, steps, budget, phases, whole=gpu)),
            checkpoint,
        ):
            new = 1.0 if gpu else 0.04
            mean["loss"] += (done.loss - mean["loss"]) * new
            mean["right"] += (done.right - mean["right"]) * new
            shown.update(task, completed=done.step, description=f"{name} loss {mean['loss']:.3f}")
            if done.step % 50 == 0:
                line = {"step": done.step, "tokens": done.tokens, "seconds": round(done.seconds, 1), **mean}
                if done.step % every == 0:
                    room = budget if gpu else 0
                    line |= {
                        kind: whole_right(state.parameters, shape, rows, there, room)
                        for kind, rows in held.items()
                    }
                log.write(json.dumps(line) + "\n")
                log.flush()


@app.command("stream")
def write_stream(
    data: Data,
    out: Annotated[Path, typer.Option(help="Folder of the batches.")],
    work: Work = Path(".cache/embedded"),
    seed: Seed = 0,
    exclude: Exclude = None,
    steps: Annotated[int, typer.Option(help="Batches in all.")] = 9000,
    budget: Annotated[int, typer.Option(help="Tokens in a batch, padding counted.")] = 65_536,
    workers: Annotated[int, typer.Option(help="Processes that make batches.")] = 2,
    polish: Annotated[bool, typer.Option(help="The rows of a polish.")] = False,
) -> None:
    """Write the batches of a run, so that several models train on one stream (`base --stream`)."""
    generator = Generator(load(data), excluded(exclude or ()))
    coder = Tokenizer.from_file(str(work / "tokenizer" / "tokenizer.json"))
    phases = POLISHING if polish else PHASES
    out.mkdir(parents=True, exist_ok=True)
    plan = trainer.TrainingPlan(steps=steps, workers=workers)
    made = trainer.coming(
        0, plan, lambda step: batch_at(generator, coder, seed, step, steps, budget, phases, whole=True)
    )
    with Progress(*COLUMNS, TimeRemainingColumn()) as shown:
        for step, (batch,) in enumerate(shown.track(made, total=steps, description="stream")):
            batches.save(batch, out / f"{step:06d}.pt")


@app.command("export")
def export_base(work: Work = Path(".cache/embedded"), name: Model = "llama", out: Out | None = None) -> None:
    """Write the base of the last checkpoint as a folder that transformers reads."""
    state, out = trainer.resume(work / f"{name}.pt"), out or HERE / name
    export.write_base(state.parameters, SHAPES[name], work / "tokenizer", out)
    typer.echo(f"step {state.step}, {state.tokens} tokens, {state.seconds / 3600:.2f} hours: {out}")


@app.command("adapter")
def train_adapter(
    data: Data,
    work: Work = Path(".cache/embedded"),
    out: Out = HERE / "llama",
    seed: Seed = 0,
    exclude: Exclude = None,
    rows: Annotated[int, typer.Option(help="Examples in all.")] = 16_000,
    name: Annotated[str, typer.Option(help="The adapter's id.")] = "align-000001",
    rank: Annotated[int, typer.Option(help="Rank of the update.")] = 32,
    rate: Annotated[float, typer.Option(help="Full rate.")] = 4e-4,
    batch: Annotated[int, typer.Option(help="Rows of an update.")] = 32,
    share: Annotated[float, typer.Option(help="How much of the learnt update is kept.")] = 0.5,
) -> None:
    """Train the first alignment adapter on the exported base."""
    from lte_runtime.align import train as align
    from lte_runtime.align.dataset import fitting
    from lte_runtime.align.settings import TrainingSettings

    torch.set_num_threads(1)
    model, coder = _load(out)
    generator = Generator(load(data), excluded(exclude or ()))
    examples = _examples(model, coder, generator, seed, rows)
    digest = hashlib.sha256("\n".join(map(repr, examples)).encode()).hexdigest()
    encoded = fitting(coder, examples, 512)
    settings = TrainingSettings(seed=seed, rank=rank, alpha=2 * rank, rate=rate, batch=batch, every=100)
    # A run of other examples, settings or weights must not go on from this one's checkpoints.
    run = hashlib.sha256(f"{digest} {settings} {sha256_file(out / export.WEIGHTS)}".encode()).hexdigest()
    adapted = align.with_adapter(model.float(), settings)
    with Progress(*COLUMNS, TimeRemainingColumn()) as shown:
        task = shown.add_task("adapter")

        def watch(done: align.Update) -> None:
            told = f"adapter loss {done.loss:.4f}"
            shown.update(task, total=done.total, completed=done.number, description=told)

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
    asked = lessons.open_questions(generator, rng, 800)
    prompts = [build(coder, question, max_tokens=512).token_ids for question in asked]
    own = dict(zip(asked, evaluate.answers(model.bfloat16(), coder, prompts), strict=True))
    outside = rows // 12
    examples = lessons.in_scope(generator, rng, rows - outside, coder.decode)
    examples += lessons.out_of_scope(generator, rng, own, outside)
    rng.shuffle(examples)
    return examples


def _load(folder: Path) -> tuple[Any, Any]:
    from transformers import AutoModelForCausalLM

    from lte_runtime.answer.tokenizer import load_tokenizer

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).eval()
    return model, load_tokenizer(folder)


@app.command("evaluate")
def evaluate_model(
    data: Data,
    out: Out = HERE / "llama",
    limit: Annotated[int, typer.Option(help="Probes of a set at most.")] = 350,
    facts: Annotated[Path | None, typer.Option(help="JSON Lines of users' facts with questions.")] = None,
    only: Annotated[str, typer.Option(help="Only sets whose name holds this.")] = "",
    adapter: Annotated[str, typer.Option(help="Adapter id; empty for the base alone.")] = "align-000001",
    record: Annotated[bool, typer.Option(help="Write the figures into manifest and model card.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Exact match by set, right facts given: the base in its own form and in the LTE form, the adapter."""
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
