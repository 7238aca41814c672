"""Every method of editing on the same edits, probes and weights: what `lte eval knowedit --method` measures.

Edits are made in groups (`Mode`): one alone, all of a set, or batches and sequences of a given size, which
draw from all sets together. All edits of a group are made first and all its probes are asked afterwards; then
the group is undone. Where records repeat a prompt, the last one counts: a batch of edits that contradict each
other would ask no method anything.

Free decoding with exact match is the headline. Beside it stand, under `contains`, the same figures for values
in sentences (`verdict`), and teacher forcing: the share of the target's tokens that are the likeliest ones.
Locality is against the original base before any edit: the same answer, all of it, and under teacher forcing
the share of that answer's tokens that are still the likeliest ones. `invented_additions` counts as in
`knowedit`.
"""

from __future__ import annotations

import datetime
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from lte_runtime.align.stock.split import held_out
from lte_runtime.errors import BadRequest, NotFound
from lte_runtime.models.catalogue import CATALOGUE
from lte_runtime.progress import Progress, silent
from lte_runtime.scoring import mean, ngram_entropy, rouge_l, same_answer
from ops.lab.baselines import search, tensor_cache
from ops.lab.baselines.base import BaselineModel
from ops.lab.baselines.protocol import Editor, EditRequest, Forced
from ops.lab.baselines.search import base_answers, share
from ops.lab.evals import arms, cost, lines, tally
from ops.lab.evals.arms import Kit
from ops.lab.evals.ask import ANSWER_TOKENS
from ops.lab.evals.knowedit import SETS, Record, read
from ops.lab.evals.verdict import Score, Verdict, contained, exact, judged

__all__ = ["SETS", "ComparisonPlan", "Mode", "mode_of", "run"]

Result = dict[str, Any]
RUNNING_TOKENS = 60
"""Of an answer on `RUNNING`."""
CHECKPOINTS = (1, 10, 100, 1000)
RUNNING = "wikibio"
"""The set whose targets are running text."""

Pair = tuple[str, str]
"""A question and what is read behind it under teacher forcing."""
Shares = tuple[float | None, float | None]
"""By exact match, and of values that stand in the answer."""
Part = Sequence[tuple[str, Record]]
"""A group's own edits, each with the name of its set."""


@dataclass(frozen=True, slots=True)
class Mode:
    """`single`, `batch` of `size` (None: all edits of a set at once), or `sequential` up to `size`."""

    kind: str
    size: int | None = None

    @property
    def pooled(self) -> bool:
        """Whether a group draws from all sets."""
        return self.kind != "single" and self.size is not None

    def __str__(self) -> str:
        return self.kind if self.size is None or self.kind == "single" else f"{self.kind}:{self.size}"


def mode_of(text: str) -> Mode:
    """`single`, `batch`, `batch:N`, `sequential`, `sequential:N`; `BadRequest` for anything else."""
    kind, _, size = text.partition(":")
    if kind == "single" and not size:
        return Mode("single", 1)
    if kind in ("batch", "sequential") and (not size or (size.isdecimal() and int(size) > 0)):
        return Mode(kind, int(size) if size else None)
    raise BadRequest(f"unknown mode {text}: use single, batch, batch:N, sequential or sequential:N")


@dataclass(frozen=True, slots=True)
class ComparisonPlan:
    """What is measured. `samples` is a JSON Lines file: what it holds of the same plan is not made again."""

    data: Path
    methods: Sequence[str]
    sets: Sequence[str]
    mode: Mode = field(default_factory=lambda: Mode("batch"))
    decode: str = "both"
    split: str = "held-out"
    limit: int | None = None
    fluency_edits: int = 16
    seed: int = 0
    samples: Path | None = None

    @property
    def free(self) -> bool:
        return self.decode in ("free", "both")

    @property
    def forced(self) -> bool:
        return self.decode in ("teacher-forced", "both")


def model_name(base: BaselineModel) -> str:
    """The name of a catalogue model, else the architecture."""
    names = (name for name, model in CATALOGUE.items() if model.weights_sha256 == base.fingerprint)
    return next(names, str(base.model.config.model_type))


def run(plan: ComparisonPlan, kit: Kit, progress: Progress = silent) -> Result:
    """`{"methods": {name: {"sets": {set: figures}, "settings": "searched" | "default"}}, "lead": ...}`.

    Raises `NotFound` when no set is in the folder and `BadRequest` for unknown methods.
    """
    arms.check(plan.methods)
    set_names = [name for name in plan.sets if (plan.data / f"{name}.json").is_file()]
    if not set_names:
        raise NotFound(f"no KnowEdit set in {plan.data}")
    chosen = search.tuned(kit.supplies)
    result: Result = {
        "split": plan.split,
        "limit": plan.limit,
        "mode": str(plan.mode),
        "decode": plan.decode,
        "seed": plan.seed,
        "date": datetime.date.today().isoformat(),
        "base": kit.supplies.base.fingerprint,
        "model": model_name(kit.supplies.base),
        "methods": {},
    }
    sample_file, before = SampleFile(plan.samples), BaseAnswers(kit)
    samples: dict[str, dict[str, list[tally.Sample]]] = {name: {} for name in set_names}
    pools = [tuple(set_names)] if plan.mode.pooled else [(name,) for name in set_names]
    for method in plan.methods:
        params = chosen.get(method)
        sets: Result = {}
        for pool in pools:
            groups = Groups(plan, kit, pool, method, progress, sample_file, before).measured(params)
            for name in pool:
                own = [of_set(group, name) for group in groups]
                samples[name][method] = [sample for group in own for sample in group["samples"]]
                sets[name] = summed(own, plan.seed)
        described = "searched" if params is not None else "default"
        result["methods"][method] = {"sets": sets, "settings": described}
    result["lead"] = {name: leads(measured, plan.seed) for name, measured in samples.items()}
    result["lead_contains"] = {
        name: leads(measured, plan.seed, "contains") for name, measured in samples.items()
    }
    return result


def leads(
    samples: Mapping[str, Sequence[tally.Sample]], seed: int, side: tally.Side = "free"
) -> dict[str, Any]:
    """How far `ours` lies above each other method, with 95 % bounds; empty without `ours`."""
    ours = samples.get("ours", ())
    return {
        name: tally.lead(ours, other, seed, side)
        for name, other in samples.items()
        if ours and name != "ours"
    }


class SampleFile:
    """Groups by key, kept in a JSON Lines file where there is one; a line cut off by a kill is dropped."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._lines: dict[str, Result] = {line["key"]: line for line in lines.read(path)} if path else {}

    def __contains__(self, key: str) -> bool:
        return key in self._lines

    def __getitem__(self, key: str) -> Result:
        return self._lines[key]

    def add(self, key: str, value: Result) -> None:
        self._lines[key] = {"key": key, **value}
        if self._path is not None:
            lines.append(self._path, self._lines[key])


@dataclass(frozen=True, slots=True)
class Groups:
    """The groups of one set, or of all sets together, under one method."""

    plan: ComparisonPlan
    kit: Kit
    pool: Sequence[str]
    method: str
    progress: Progress
    sample_file: SampleFile
    before: BaseAnswers

    def measured(self, params: object) -> list[Result]:
        """The groups, from the samples where they are there."""
        requested = ((part, self._requests(part)) for part in self._parts(self._records()))
        parts = {self._key(requests, params): (part, requests) for part, requests in requested}
        missing = [key for key in parts if key not in self.sample_file]
        what = f"{' '.join(self.pool)} {self.method}"
        if missing:
            self.before.ask([record for part, _ in parts.values() for _, record in part])
            with arms.arm(self.method, self.kit, params) as editor:
                self._warm(editor, parts[missing[0]][0])
                for number, key in enumerate(parts):
                    self.progress(what, number, len(parts))
                    if key in missing:
                        self.sample_file.add(key, self._measure(editor, *parts[key], number))
        self.progress(what, len(parts), len(parts))
        return [self.sample_file[key] for key in parts]

    def _records(self) -> Part:
        """What is left of each set; a pool is mixed, so that each of its groups has edits of all sets."""
        records: list[tuple[str, Record]] = []
        for name in self.pool:
            rows = read(self.plan.data / f"{name}.json")
            chosen = [record for record in rows if self.plan.split == "all" or held_out(record.subject)]
            records += [(name, record) for record in chosen[: self.plan.limit]]
        records = current(records)
        if self.plan.mode.pooled:
            Random(f"pool {self.plan.seed}").shuffle(records)
        return records

    def _parts(self, records: Part) -> Iterator[Part]:
        size = self.plan.mode.size or max(1, len(records))
        if self.plan.mode.kind == "sequential":
            yield records[:size]
            return
        for start in range(0, len(records), size):
            yield records[start : start + size]

    def _requests(self, part: Part) -> list[EditRequest]:
        """Generated edits, made first, and the part's own."""
        return [*self._generated(len(part)), *requests_of(part)]

    def _key(self, requests: Sequence[EditRequest], params: object) -> str:
        plan, base = self.plan, self.kit.supplies.base.fingerprint
        edits = [(request.prompt, request.target) for request in requests]
        pool = " ".join(self.pool)
        parts = (base, pool, self.method, str(plan.mode), plan.decode, repr(params), repr(edits))
        adapter = "" if self.kit.adapted is None else self.kit.adapter
        # A kept group holds its scores: one that was scored otherwise is not taken up.
        scoring = f"exact and contains, {ANSWER_TOKENS} tokens"
        return tensor_cache.name_of(*parts, adapter, self.kit.calibration.data_sha256, scoring)

    def _warm(self, editor: Editor, part: Part) -> None:
        """What a method works out once (statistics, networks) is no part of an edit's cost."""
        editor.edit(requests_of(part[:1]))
        editor.undo()

    def _measure(self, editor: Editor, part: Part, requests: Sequence[EditRequest], number: int) -> Result:
        """One group edited, asked and undone."""
        began = time.monotonic()
        judge = MethodJudge(self.plan, editor, self.before, self.kit)
        with cost.measured() as spent:
            retested = dict(self._edited(editor, judge, requests))
        budget = max(0, self.plan.fluency_edits * len(self.pool) - number * len(part))
        samples = judge.samples(part, budget)
        editor.undo()
        return {
            "samples": samples,
            "edits": len(requests),
            "seconds_per_edit": round((spent.seconds - sum(judge.aside)) / len(requests), 4),
            "peak_mb": spent.peak_mb,
            "retested": {count: steps[0] for count, steps in retested.items()},
            "retested_contains": {count: steps[1] for count, steps in retested.items()},
            "seconds": round(time.monotonic() - began, 2),
        }

    def _edited(
        self, editor: Editor, judge: MethodJudge, requests: Sequence[EditRequest]
    ) -> Iterator[tuple[str, Shares]]:
        """Makes the edits; in a sequence all earlier ones are asked again at the checkpoints."""
        if self.plan.mode.kind != "sequential":
            editor.edit(requests)
            return
        for count, request in enumerate(requests, start=1):
            editor.edit([request])
            if count in CHECKPOINTS or count == len(requests):
                yield str(count), judge.success(requests[:count])

    def _generated(self, own: int) -> list[EditRequest]:
        """Generated edits, made first, that fill a batch or a sequence up where a set has not enough."""
        missing = (self.plan.mode.size or 0) - own
        rng = Random(f"fill {self.plan.seed}")
        generated: dict[str, EditRequest] = {}
        while len(generated) < missing:
            request = self.kit.supplies.material.lessons(rng, 1)[0].request
            generated.setdefault(request.prompt, request)
        return list(generated.values())


def requests_of(part: Part) -> list[EditRequest]:
    return [EditRequest(record.subject, record.prompt, record.target) for _, record in part]


def current(records: Part) -> list[tuple[str, Record]]:
    """The last record of each prompt, in the order of the files."""
    last = {record.key: record for _, record in records}
    return [(name, record) for name, record in records if last[record.key] is record]


class BaseAnswers:
    """What the base says before any edit; each question is asked once."""

    def __init__(self, kit: Kit) -> None:
        self._kit = kit
        self._answers: dict[str, str] = {}

    def ask(self, records: Sequence[Record]) -> None:
        """To be called while the base is unedited."""
        questions = [record.prompt for record in records]
        questions += [text for record in records for texts in record.locality.values() for text in texts]
        unanswered = [text for text in dict.fromkeys(questions) if text not in self._answers]
        answers = base_answers(self._kit.supplies, unanswered, ANSWER_TOKENS)
        self._answers.update(zip(unanswered, answers, strict=True))

    def __getitem__(self, question: str) -> str:
        return self._answers[question]


class MethodJudge:
    """Asks the probes of the edits and records the answers."""

    def __init__(self, plan: ComparisonPlan, editor: Editor, before: BaseAnswers, kit: Kit) -> None:
        self._plan, self._editor, self._before, self._kit = plan, editor, before, kit
        self.aside: list[float] = []

    def success(self, requests: Sequence[EditRequest]) -> Shares:
        """Shares of edits that still hold; its time is counted apart from that of the edits."""
        began = time.monotonic()
        prompts = [request.prompt for request in requests]
        answers = self._editor.answer(prompts, max_new_tokens=ANSWER_TOKENS)
        verdicts = [judged(text, (edit.target,)) for text, edit in zip(answers, requests, strict=True)]
        self.aside.append(time.monotonic() - began)
        return mean(map(exact, verdicts)), mean(map(contained, verdicts))

    def samples(self, part: Part, fluency: int) -> list[Result]:
        """One sample for each record: free and forced shares, and the answers themselves."""
        records = [record for _, record in part]
        short = [record.prompt for name, record in part if name != RUNNING]
        long = [record.prompt for name, record in part if name == RUNNING]
        answers = {
            **self._answers([*short, *(q for record in records for q in questions(record))], ANSWER_TOKENS),
            **self._answers(long, RUNNING_TOKENS),
        }
        readings = self._readings([pair for record in records for pair in self._pairs(record)])
        fluent = self._fluency(records[:fluency])
        return [
            {
                "set": name,
                "prompt": record.prompt,
                "target": record.target,
                "said": {q: answers[q] for q in (record.prompt, *questions(record))} if answers else {},
                **self._decoded(record, answers),
                "forced": self._forced(record, readings),
                "belief": self._belief(record, readings),
                "rouge_l": overlap(answers[record.prompt], record) if answers and name == RUNNING else None,
                "fluency": fluent.get(record.prompt),
            }
            for name, record in part
        ]

    def _answers(self, questions: Sequence[str], tokens: int) -> Mapping[str, str]:
        distinct = list(dict.fromkeys(questions)) if self._plan.free else []
        answers = self._editor.answer(distinct, max_new_tokens=tokens) if distinct else []
        return dict(zip(distinct, answers, strict=True))

    def _readings(self, pairs: Sequence[Pair]) -> Mapping[Pair, Forced]:
        distinct = list(dict.fromkeys(pairs)) if self._plan.forced else []
        readings = self._editor.forced(distinct) if distinct else []
        return dict(zip(distinct, readings, strict=True))

    def _pairs(self, record: Record) -> Iterator[Pair]:
        """Questions with what is to be read behind them."""
        yield record.prompt, record.target
        if self._before[record.prompt]:
            yield record.prompt, self._before[record.prompt]
        if record.rephrase:
            yield record.rephrase, record.target
        for probes in record.portability.values():
            yield from ((q, accepted[0]) for q, accepted in probes if accepted)
        for texts in record.locality.values():
            yield from ((q, self._before[q]) for q in texts if self._before[q])

    def _decoded(self, record: Record, answers: Mapping[str, str]) -> Result:
        """`free` by exact match, `contains`, and for each answer with the value whether it adds to it."""
        if not answers:
            nothing: Result = {"edit": None, "rephrase": None, "portability": {}, "locality": {}}
            return {"free": nothing, "contains": nothing, "additions": []}
        direct = [q for q in (record.prompt, record.rephrase) if q]
        verdicts = [record.judged(q, answers[q]) for q in direct]
        probes = {
            kind: [record.judged_probe(kind, accepted, answers[q]) for q, accepted in row]
            for kind, row in record.portability.items()
        }
        locality = {
            kind: [float(same_answer(answers[q], self._before[q])) for q in texts]
            for kind, texts in record.locality.items()
        }
        return {
            "free": {**scores(verdicts, probes, exact), "locality": locality},
            "contains": {**scores(verdicts, probes, contained), "locality": locality},
            "additions": [float(verdict.adds) for verdict in verdicts if verdict.adds is not None],
        }

    def _forced(self, record: Record, readings: Mapping[Pair, Forced]) -> Result:
        if not readings:
            return {"edit": None, "rephrase": None, "portability": {}, "locality": {}}

        def right(q: str, target: str) -> float:
            return round(share(readings[q, target]), 4)

        return {
            "edit": right(record.prompt, record.target),
            "rephrase": right(record.rephrase, record.target) if record.rephrase else None,
            "portability": {
                kind: [right(q, accepted[0]) for q, accepted in probes if accepted]
                for kind, probes in record.portability.items()
            },
            "locality": {
                kind: [right(q, self._before[q]) for q in texts if self._before[q]]
                for kind, texts in record.locality.items()
            },
        }

    def _belief(self, record: Record, readings: Mapping[Pair, Forced]) -> float | None:
        """Multiple choice of two: is the target likelier, per token, than what the base used to say?"""
        old = self._before[record.prompt]
        if not readings or not old or same_answer(old, record.target):
            return None
        return float(
            likelihood(readings[record.prompt, record.target]) > likelihood(readings[record.prompt, old])
        )

    def _fluency(self, records: Sequence[Record]) -> Mapping[str, float | None]:
        """n-gram entropy of up to 100 tokens after the edit's prompt."""
        if not records or not self._plan.free:
            return {}
        answers = self._editor.answer([record.prompt for record in records], max_new_tokens=100)
        coder = self._kit.supplies.base.tokenizer
        ids = [coder(text, add_special_tokens=False)["input_ids"] for text in answers]
        return {record.prompt: ngram_entropy(row) for record, row in zip(records, ids, strict=True)}


def scores(verdicts: Sequence[Verdict], probes: Mapping[str, Sequence[Verdict]], score: Score) -> Result:
    """`verdicts` on the prompt and, where there is one, on the rephrasing."""
    shares = [float(score(verdict)) for verdict in verdicts]
    return {
        "edit": shares[0],
        "rephrase": shares[1] if len(shares) > 1 else None,
        "portability": {kind: [float(score(v)) for v in row] for kind, row in probes.items()},
    }


def overlap(answer: str, record: Record) -> float:
    """ROUGE-L of an answer with the record's target."""
    return round(rouge_l(answer, record.target), 4)


def likelihood(reading: Forced) -> float:
    """Mean log likelihood of a token, in nats."""
    return reading.logprob / max(1, len(reading.right))


def questions(record: Record) -> Iterator[str]:
    """All that is asked about an edit besides its own prompt."""
    if record.rephrase:
        yield record.rephrase
    for probes in record.portability.values():
        yield from (q for q, _ in probes)
    for texts in record.locality.values():
        yield from texts


def of_set(group: Result, name: str) -> Result:
    """A group as if it held one set's samples alone, with their share of its time.

    Groups that hold one set anyway were kept without its name.
    """
    own = [sample for sample in group["samples"] if sample.get("set", name) == name]
    share_of = len(own) / max(1, len(group["samples"]))
    return {**group, "samples": own, "seconds": group["seconds"] * share_of}


def summed(groups: Sequence[Mapping[str, Any]], seed: int) -> Result:
    """A set's figures from its groups; `edits` are those that stood at once, generated ones among them."""
    samples = [sample for group in groups for sample in group["samples"]]
    counts = [len(group["samples"]) for group in groups]
    seconds = sum(g["seconds_per_edit"] * c for g, c in zip(groups, counts, strict=True))
    figures = tally.figures(samples, seed)
    figures["edits"] = max((group["edits"] for group in groups), default=0)
    figures["seconds_per_edit"] = round(seconds / sum(counts), 4) if samples else None
    figures["peak_mb"] = max((group["peak_mb"] for group in groups), default=None)
    figures["seconds"] = round(sum(group["seconds"] for group in groups), 1)
    if any(group["retested"] for group in groups):
        figures |= {name: groups[0][name] for name in ("retested", "retested_contains")}
    return figures
