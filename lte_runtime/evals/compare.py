"""Every method of editing on the same edits, probes and weights: what `lte eval knowedit --method` measures.

Edits are made in groups (`Mode`): one alone, all of a set, or batches and sequences of a given size, which
draw from all sets together. All edits of a group are made first and all its probes are asked afterwards; then
the group is undone. Where records repeat a prompt, the last one counts: a batch of edits that contradict each
other would ask no method anything.

Free decoding with exact match is the headline, teacher forcing stands beside it: the share of the target's
tokens that are the likeliest ones. Locality is against the original base before any edit: the same answer,
and under teacher forcing the share of that answer's tokens that are still the likeliest ones.
"""

from __future__ import annotations

import datetime
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from lte_runtime.errors import BadRequest, NotFound
from lte_runtime.evals import arms, cost, lines, tally
from lte_runtime.evals.arms import Kit
from lte_runtime.evals.baselines import kept, search
from lte_runtime.evals.baselines.protocol import Editor, EditRequest, Forced
from lte_runtime.evals.baselines.search import base_answers, share
from lte_runtime.evals.knowedit import SETS, Record, read
from lte_runtime.evals.metrics import matches, mean, ngram_entropy, rouge_l, same_answer
from lte_runtime.evals.split import held_out
from lte_runtime.progress import Progress, silent

__all__ = ["SETS", "ComparisonPlan", "Mode", "mode_of", "run"]

Result = dict[str, Any]
TOKENS, LONG_TOKENS = 32, 60
CHECKPOINTS = (1, 10, 100, 1000)
RUNNING = "wikibio"
"""The set whose targets are running text."""

Pair = tuple[str, str]
"""A question and what is read behind it under teacher forcing."""
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
    raise BadRequest(f"mode {text} is none of single, batch, batch:N, sequential, sequential:N")


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


def run(plan: ComparisonPlan, kit: Kit, progress: Progress = silent) -> Result:
    """`{"methods": {name: {"sets": {set: figures}, "settings": "searched" | "default"}}, "lead": ...}`.

    Raises `NotFound` when no set is in the folder and `BadRequest` for unknown methods.
    """
    arms.check(plan.methods)
    found = [name for name in plan.sets if (plan.data / f"{name}.json").is_file()]
    if not found:
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
        "model": kit.supplies.base.model.config.model_type,
        "methods": {},
    }
    known, before = SampleFile(plan.samples), BaseAnswers(kit)
    samples: dict[str, dict[str, list[tally.Sample]]] = {name: {} for name in found}
    pools = [tuple(found)] if plan.mode.pooled else [(name,) for name in found]
    for method in plan.methods:
        params = chosen.get(method)
        sets: Result = {}
        for pool in pools:
            groups = Groups(plan, kit, pool, method, progress, known, before).measured(params)
            for name in pool:
                own = [of_set(group, name) for group in groups]
                samples[name][method] = [one for group in own for one in group["samples"]]
                sets[name] = summed(own, plan.seed)
        described = "searched" if params is not None else "default"
        result["methods"][method] = {"sets": sets, "settings": described}
    result["lead"] = {name: leads(measured, plan.seed) for name, measured in samples.items()}
    return result


def leads(samples: Mapping[str, Sequence[tally.Sample]], seed: int) -> dict[str, Any]:
    """How far `ours` lies above each other method, with 95 % bounds; empty without `ours`."""
    ours = samples.get("ours", ())
    return {name: tally.lead(ours, other, seed) for name, other in samples.items() if ours and name != "ours"}


class SampleFile:
    """Groups by key, kept in a JSON Lines file where there is one; a line cut off by a kill is dropped."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._lines: dict[str, Result] = {one["key"]: one for one in lines.read(path)} if path else {}

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
    known: SampleFile
    before: BaseAnswers

    def measured(self, params: object) -> list[Result]:
        """The groups, from the samples where they are there."""
        made = ((part, self._requests(part)) for part in self._parts(self._records()))
        parts = {self._key(requests, params): (part, requests) for part, requests in made}
        missing = [key for key in parts if key not in self.known]
        what = f"{' '.join(self.pool)} {self.method}"
        if missing:
            self.before.ask([record for part, _ in parts.values() for _, record in part])
            with arms.arm(self.method, self.kit, params) as editor:
                self._warm(editor, parts[missing[0]][0])
                for number, key in enumerate(parts):
                    self.progress(what, number, len(parts))
                    if key in missing:
                        self.known.add(key, self._measure(editor, *parts[key], number))
        self.progress(what, len(parts), len(parts))
        return [self.known[key] for key in parts]

    def _records(self) -> Part:
        """What is left of each set; a pool is mixed, so that each of its groups has edits of all sets."""
        found: list[tuple[str, Record]] = []
        for name in self.pool:
            rows = read(self.plan.data / f"{name}.json")
            chosen = [one for one in rows if self.plan.split == "all" or held_out(one.subject)]
            found += [(name, one) for one in chosen[: self.plan.limit]]
        found = current(found)
        if self.plan.mode.pooled:
            Random(f"pool {self.plan.seed}").shuffle(found)
        return found

    def _parts(self, records: Part) -> Iterator[Part]:
        size = self.plan.mode.size or max(1, len(records))
        if self.plan.mode.kind == "sequential":
            yield records[:size]
            return
        for start in range(0, len(records), size):
            yield records[start : start + size]

    def _requests(self, part: Part) -> list[EditRequest]:
        """Generated edits, made first, and the part's own."""
        return [*self._filling(len(part)), *requests_of(part)]

    def _key(self, requests: Sequence[EditRequest], params: object) -> str:
        plan, base = self.plan, self.kit.supplies.base.fingerprint
        told = [(one.prompt, one.target) for one in requests]
        pool = " ".join(self.pool)
        parts = (base, pool, self.method, str(plan.mode), plan.decode, repr(params), repr(told))
        adapter = "" if self.kit.adapted is None else self.kit.adapter
        return kept.name_of(*parts, adapter, self.kit.calibration.data_sha256)

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
            "retested": retested,
            "seconds": round(time.monotonic() - began, 2),
        }

    def _edited(
        self, editor: Editor, judge: MethodJudge, requests: Sequence[EditRequest]
    ) -> Iterator[tuple[str, float | None]]:
        """Makes the edits; in a sequence all earlier ones are asked again at the checkpoints."""
        if self.plan.mode.kind != "sequential":
            editor.edit(requests)
            return
        for count, request in enumerate(requests, start=1):
            editor.edit([request])
            if count in CHECKPOINTS or count == len(requests):
                yield str(count), judge.success(requests[:count])

    def _filling(self, own: int) -> list[EditRequest]:
        """Generated edits, made first, that fill a batch or a sequence up where a set has not enough."""
        missing = (self.plan.mode.size or 0) - own
        rng = Random(f"fill {self.plan.seed}")
        made: dict[str, EditRequest] = {}
        while len(made) < missing:
            one = self.kit.supplies.material.lessons(rng, 1)[0].request
            made.setdefault(one.prompt, one)
        return list(made.values())


def requests_of(part: Part) -> list[EditRequest]:
    return [EditRequest(one.subject, one.prompt, one.target) for _, one in part]


def current(records: Part) -> list[tuple[str, Record]]:
    """The last record of each prompt, in the order of the files."""
    last = {one.key: one for _, one in records}
    return [(name, one) for name, one in records if last[one.key] is one]


class BaseAnswers:
    """What the base says before any edit; each question is asked once."""

    def __init__(self, kit: Kit) -> None:
        self._kit = kit
        self._said: dict[str, str] = {}

    def ask(self, records: Sequence[Record]) -> None:
        """To be called while the base is unedited."""
        asked = [one.prompt for one in records]
        asked += [text for one in records for texts in one.locality.values() for text in texts]
        wanted = [text for text in dict.fromkeys(asked) if text not in self._said]
        said = base_answers(self._kit.supplies, wanted, TOKENS)
        self._said.update(zip(wanted, said, strict=True))

    def __getitem__(self, question: str) -> str:
        return self._said[question]


class MethodJudge:
    """Asks the probes of edits that were made, and writes down what was said."""

    def __init__(self, plan: ComparisonPlan, editor: Editor, before: BaseAnswers, kit: Kit) -> None:
        self._plan, self._editor, self._before, self._kit = plan, editor, before, kit
        self.aside: list[float] = []

    def success(self, requests: Sequence[EditRequest]) -> float | None:
        """Share of edits that still hold; its time is told apart from the edits' own."""
        began = time.monotonic()
        said = self._editor.answer([one.prompt for one in requests], max_new_tokens=TOKENS)
        found = mean(matches(text, (one.target,)) for text, one in zip(said, requests, strict=True))
        self.aside.append(time.monotonic() - began)
        return found

    def samples(self, part: Part, fluency: int) -> list[Result]:
        """One sample for each record: free and forced shares, and the answers themselves."""
        records = [one for _, one in part]
        short = [one.prompt for name, one in part if name != RUNNING]
        long = [one.prompt for name, one in part if name == RUNNING]
        said = {
            **self._said([*short, *(q for one in records for q in questions(one))], TOKENS),
            **self._said(long, LONG_TOKENS),
        }
        read = self._read([pair for one in records for pair in self._pairs(one)])
        fluent = self._fluency(records[:fluency])
        return [
            {
                "set": name,
                "prompt": one.prompt,
                "target": one.target,
                "said": {q: said[q] for q in (one.prompt, *questions(one))} if said else {},
                "free": self._free(one, said),
                "forced": self._forced(one, read),
                "belief": self._belief(one, read),
                "rouge_l": overlap(said[one.prompt], one) if said and name == RUNNING else None,
                "fluency": fluent.get(one.prompt),
            }
            for name, one in part
        ]

    def _said(self, asked: Sequence[str], tokens: int) -> Mapping[str, str]:
        wanted = list(dict.fromkeys(asked)) if self._plan.free else []
        said = self._editor.answer(wanted, max_new_tokens=tokens) if wanted else []
        return dict(zip(wanted, said, strict=True))

    def _read(self, pairs: Sequence[Pair]) -> Mapping[Pair, Forced]:
        wanted = list(dict.fromkeys(pairs)) if self._plan.forced else []
        found = self._editor.forced(wanted) if wanted else []
        return dict(zip(wanted, found, strict=True))

    def _pairs(self, one: Record) -> Iterator[Pair]:
        """Questions with what is to be read behind them."""
        yield one.prompt, one.target
        if self._before[one.prompt]:
            yield one.prompt, self._before[one.prompt]
        if one.rephrase:
            yield one.rephrase, one.target
        for probes in one.portability.values():
            yield from ((q, accepted[0]) for q, accepted in probes if accepted)
        for texts in one.locality.values():
            yield from ((q, self._before[q]) for q in texts if self._before[q])

    def _free(self, one: Record, said: Mapping[str, str]) -> Result:
        if not said:
            return {"edit": None, "rephrase": None, "portability": {}, "locality": {}}

        def right(q: str, accepted: Sequence[str]) -> float:
            return float(matches(said[q], accepted))

        return {
            "edit": right(one.prompt, (one.target,)),
            "rephrase": right(one.rephrase, (one.target,)) if one.rephrase else None,
            "portability": {k: [right(q, a) for q, a in probes] for k, probes in one.portability.items()},
            "locality": {
                kind: [float(same_answer(said[q], self._before[q])) for q in texts]
                for kind, texts in one.locality.items()
            },
        }

    def _forced(self, one: Record, read: Mapping[Pair, Forced]) -> Result:
        if not read:
            return {"edit": None, "rephrase": None, "portability": {}, "locality": {}}

        def right(q: str, wanted: str) -> float:
            return round(share(read[q, wanted]), 4)

        return {
            "edit": right(one.prompt, one.target),
            "rephrase": right(one.rephrase, one.target) if one.rephrase else None,
            "portability": {
                kind: [right(q, accepted[0]) for q, accepted in probes if accepted]
                for kind, probes in one.portability.items()
            },
            "locality": {
                kind: [right(q, self._before[q]) for q in texts if self._before[q]]
                for kind, texts in one.locality.items()
            },
        }

    def _belief(self, one: Record, read: Mapping[Pair, Forced]) -> float | None:
        """Multiple choice of two: is the target likelier, per token, than what the base used to say?"""
        old = self._before[one.prompt]
        if not read or not old or same_answer(old, one.target):
            return None
        return float(likelihood(read[one.prompt, one.target]) > likelihood(read[one.prompt, old]))

    def _fluency(self, records: Sequence[Record]) -> Mapping[str, float | None]:
        """n-gram entropy of up to 100 tokens after the edit's prompt."""
        if not records or not self._plan.free:
            return {}
        said = self._editor.answer([one.prompt for one in records], max_new_tokens=100)
        coder = self._kit.supplies.base.tokenizer
        ids = [coder(text, add_special_tokens=False)["input_ids"] for text in said]
        return {one.prompt: ngram_entropy(row) for one, row in zip(records, ids, strict=True)}


def overlap(said: str, one: Record) -> float:
    """ROUGE-L of an answer with the record's target."""
    return round(rouge_l(said, one.target), 4)


def likelihood(read: Forced) -> float:
    """Mean log likelihood of a token, in nats."""
    return read.logprob / max(1, len(read.right))


def questions(one: Record) -> Iterator[str]:
    """All that is asked about an edit besides its own prompt."""
    if one.rephrase:
        yield one.rephrase
    for probes in one.portability.values():
        yield from (q for q, _ in probes)
    for texts in one.locality.values():
        yield from texts


def of_set(group: Result, name: str) -> Result:
    """A group as if it held one set's samples alone, with their share of its time.

    Groups that hold one set anyway were kept without its name.
    """
    own = [one for one in group["samples"] if one.get("set", name) == name]
    share_of = len(own) / max(1, len(group["samples"]))
    return {**group, "samples": own, "seconds": group["seconds"] * share_of}


def summed(groups: Sequence[Mapping[str, Any]], seed: int) -> Result:
    """A set's figures from its groups; `edits` are those that stood at once, generated ones among them."""
    samples = [one for group in groups for one in group["samples"]]
    counts = [len(group["samples"]) for group in groups]
    seconds = sum(g["seconds_per_edit"] * c for g, c in zip(groups, counts, strict=True))
    found = tally.figures(samples, seed)
    found["edits"] = max((group["edits"] for group in groups), default=0)
    found["seconds_per_edit"] = round(seconds / sum(counts), 4) if samples else None
    found["peak_mb"] = max((group["peak_mb"] for group in groups), default=None)
    found["seconds"] = round(sum(group["seconds"] for group in groups), 1)
    if any(group["retested"] for group in groups):
        found["retested"] = groups[0]["retested"]
    return found
