"""Rows of an alignment run: a seeded stream of parallel rows, frozen by hash, and their ids with labels.

Every case makes two rows, one with its facts and one without. Prompts are in the Learning-to-Edit form
(Jiang et al., 2024, arXiv 2402.11905), labels on the answer alone. Where the facts do not decide the answer,
it is the original model's own.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

from lte_runtime.align.data.cases import Case, CaseKind, World, make
from lte_runtime.align.data.facts import invented
from lte_runtime.align.data.pools import KnownFact, Pool, by_words
from lte_runtime.align.data.wordings import Wordings
from lte_runtime.answer import prompt
from lte_runtime.errors import BadRequest, Damaged

IGNORED = -100
ROWS, MANIFEST = "rows.jsonl", "manifest.json"
_RUNNING = 0.6
"""Running text has many ways to go on: so much of `sure` is asked of it."""
_CHUNK = 512
"""Cases whose questions are put to the original model together."""


@dataclass(frozen=True, slots=True)
class Example:
    """A question with the facts given to it (best first, possibly none) and the answer to learn."""

    question: str
    facts: tuple[str, ...]
    answer: str


@dataclass(frozen=True, slots=True)
class EncodedRow:
    """Ids of prompt and answer; `labels` are IGNORED on the prompt and the ids themselves on the answer."""

    input_ids: tuple[int, ...]
    labels: tuple[int, ...]

    @property
    def answer_length(self) -> int:
        return sum(label != IGNORED for label in self.labels)


def encode(tokenizer: Any, example: Example, max_tokens: int) -> EncodedRow:
    """The example as ids, its answer closed by an end token.

    Raises `BadRequest` where the question with all its facts does not fit: without a fact that it needs, the
    row would teach to guess.
    """
    built = prompt.build(tokenizer, example.question, example.facts, max_tokens=max_tokens)
    if built.used_facts < len(example.facts):
        raise BadRequest(f"the facts do not fit in {max_tokens} tokens")
    prompt_ids = built.token_ids
    answer_ids = (*prompt.untrusted(tokenizer, example.answer), closing(tokenizer))
    return EncodedRow((*prompt_ids, *answer_ids), (*([IGNORED] * len(prompt_ids)), *answer_ids))


def fitting(tokenizer: Any, examples: Iterable[Example], max_tokens: int) -> list[EncodedRow]:
    """The examples as ids, without those that do not fit."""
    rows = []
    for example in examples:
        try:
            rows.append(encode(tokenizer, example, max_tokens))
        except BadRequest:
            continue
    return rows


def closing(tokenizer: Any) -> int:
    """The id that ends an answer: what the chat template puts behind it, else the end-of-sequence token."""
    candidates = prompt.ends(tokenizer) - {tokenizer.eos_token_id}
    return min(candidates) if candidates else int(tokenizer.eos_token_id)


def by_length(rows: Sequence[EncodedRow], budget: int) -> list[list[int]]:
    """Indices of the rows in batches of like length, each at most `budget` tokens with its padding."""
    order = sorted(range(len(rows)), key=lambda index: len(rows[index].input_ids))
    batches: list[list[int]] = []
    for index in order:
        length = len(rows[index].input_ids)
        if not batches or (len(batches[-1]) + 1) * length > budget:
            batches.append([])
        batches[-1].append(index)
    return batches


# The stream of rows.


@dataclass(frozen=True, slots=True)
class Own:
    """What the original model says by itself; `sure` is the geometric mean of its tokens' probabilities,
    1 where it was not measured."""

    text: str
    sure: float


AskBase = Callable[[Sequence[str], Collection[str]], Sequence[Own]]
"""Puts questions to the original model, without facts and without an adapter. The second argument holds those
whose sureness is measured, which takes about as long as the answer itself."""


@dataclass(frozen=True, slots=True)
class TrainingRow:
    """One training row with where it comes from. `own` says that the answer is the original model's.

    Rows of one case share `case`; `with_facts` tells them apart.
    """

    case: int
    kind: CaseKind
    question: str
    facts: tuple[str, ...]
    answer: str
    own: bool
    edit_ids: tuple[str, ...]
    source: str
    shuffled: bool
    exchanged: bool

    @property
    def with_facts(self) -> bool:
        return bool(self.facts)

    @property
    def example(self) -> Example:
        return Example(self.question, self.facts, self.answer)

    def line(self) -> str:
        return json.dumps(asdict(self), ensure_ascii=False, sort_keys=True) + "\n"


@dataclass(frozen=True, slots=True)
class Mixture:
    """What is drawn. `kinds` are weights; `invented` the share of cases over made-up facts, `replay` over the
    anchor set's, the rest over the edits; `exchange`, `worded` and `alone` are those of `World`;
    `plain` the share of cases that make a row without their facts too, among those whose facts decide;
    `plain_own` the same among those that the original model answers.

    An own answer less sure than `sure` is left out: what a model makes up about unknown things is noise, and
    long noise outweighs many short answers. `near_sure` takes its place for a near question (the same subject
    or the same relation): there any answer of the model teaches that the fact does not answer it. `foreign`
    is the share of made-up worlds in another language than English, `everyday` that of everyday relations.
    """

    kinds: Mapping[CaseKind, float]
    invented: float = 0.4
    replay: float = 0.2
    exchange: float = 0.5
    worded: float = 0.0
    alone: float = 0.5
    plain: float = 1.0
    plain_own: float = 1.0
    sure: float = 0.5
    near_sure: float = 0.5
    foreign: float = 0.0
    everyday: float = 0.0

    def sureness(self, kind: CaseKind) -> float:
        """How sure the model must be of its own answer in a case of this kind."""
        if kind in (CaseKind.SAME_SUBJECT, CaseKind.NEIGHBOUR):
            return self.near_sure
        return self.sure * _RUNNING if kind is CaseKind.LANGUAGE else self.sure


@dataclass(frozen=True, slots=True)
class TrainingMaterial:
    """What rows are made from: pools of live and of replayed facts, and what the base knows."""

    edits: Pool
    replay: Pool | None = None
    known_facts: tuple[KnownFact, ...] = ()


def cases(material: TrainingMaterial, mixture: Mixture, seed: int) -> Iterator[Case]:
    """An endless stream; case n depends on the seed, n and the arguments alone."""
    learnt = Wordings.of((*material.edits.facts, *(material.replay.facts if material.replay else ())))
    kinds, weights = zip(*mixture.kinds.items(), strict=True)
    number = 0
    while True:
        rng = Random(f"{seed}:{number}")
        kind = rng.choices(kinds, weights)[0]
        for attempt in range(12):
            # Where the live facts hold no such case (no alias, no chain), made-up ones do: the shares stay.
            world = _world(rng, material, mixture, learnt, f"invented-{number}", made_up=attempt > 3)
            case = make(rng, kind, world)
            if case is not None:
                share = mixture.plain_own if case.answer is None else mixture.plain
                yield replace(case, plain=Random(f"{seed}:{number}:plain").random() < share)
                break
        number += 1


def _world(
    rng: Random, material: TrainingMaterial, mixture: Mixture, learnt: Wordings, prefix: str, *, made_up: bool
) -> World:
    roll = rng.random()
    if made_up or roll < mixture.invented or not material.edits.facts:
        facts = invented(rng, prefix, mixture.foreign, mixture.everyday)
        return World(Pool.of(facts, by_words), learnt, material.known_facts, alone=mixture.alone)
    replayed = material.replay is not None and roll < mixture.invented + mixture.replay
    pool = material.replay if replayed and material.replay else material.edits
    return World(pool, learnt, material.known_facts, mixture.exchange, mixture.worded, mixture.alone)


@dataclass
class RowTally:
    """Counts of a run: rows by kind, by source and by facts in the prompt; rows left out by reason."""

    rows: Counter[str] = field(default_factory=Counter)
    sources: Counter[str] = field(default_factory=Counter)
    facts: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)

    def count(self, row: TrainingRow, by: int = 1) -> None:
        self.rows[row.kind] += by
        self.sources[row.source] += by
        self.facts[str(len(row.facts))] += by

    def withdraw(self, row: TrainingRow, why: str) -> None:
        """A row that was counted is left out after all."""
        self.count(row, -1)
        self.dropped[why] += 1


def rows(drawn: Iterable[Case], ask: AskBase, mixture: Mixture, tally: RowTally) -> Iterator[TrainingRow]:
    """The rows of the cases, in order: with its facts, and those of a `plain` case without them too."""
    source = iter(drawn)
    first = 0
    while chunk := list(islice(source, _CHUNK)):
        own = _own(chunk, ask, mixture)
        for number, case in enumerate(chunk, first):
            yield from _pair(case, number, own.get(case.question, Own("", 0.0)), mixture, tally)
        first += len(chunk)


def _own(chunk: Sequence[Case], ask: AskBase, mixture: Mixture) -> dict[str, Own]:
    answered = [case for case in chunk if case.plain or case.answer is None]
    questions = list(dict.fromkeys(case.question for case in answered))
    measured = {case.question for case in answered if mixture.sureness(case.kind) > 0}
    return dict(zip(questions, ask(questions, measured), strict=True))


def _pair(case: Case, number: int, own: Own, mixture: Mixture, tally: RowTally) -> Iterator[TrainingRow]:
    own_text = own.text if own.sure >= mixture.sureness(case.kind) else ""
    for facts, answer, is_own in (
        (case.facts, own_text if case.answer is None else case.answer, case.answer is None),
        ((), own_text, True),
    )[: 2 if case.plain else 1]:
        if not answer:
            tally.dropped["unsure" if own.text else "silent"] += 1
            continue
        row = TrainingRow(
            number,
            case.kind,
            case.question,
            facts,
            answer,
            is_own,
            case.edit_ids if facts else (),
            case.source if facts else "original model",
            case.shuffled and bool(facts),
            case.exchanged and bool(facts),
        )
        tally.count(row)
        yield row


def write_rows(
    training_rows: Iterable[TrainingRow], directory: Path, description: Mapping[str, Any], tally: RowTally
) -> dict[str, Any]:
    """Writes the rows to `directory` and, last and by rename, the manifest with their hash; returns it."""
    directory.mkdir(parents=True, exist_ok=True)
    digest, count, edit_ids = hashlib.sha256(), 0, set[str]()
    with (directory / ROWS).open("w", encoding="utf-8") as file:
        for row in training_rows:
            line = row.line()
            file.write(line)
            digest.update(line.encode())
            count += 1
            # What is replayed was an edit too: once withdrawn, it taints whoever learned it.
            edit_ids.update(row.edit_ids if row.source in ("edits", "replay") else ())
    manifest = {
        **description,
        "data_hash": digest.hexdigest(),
        "rows": count,
        "kinds": dict(sorted(tally.rows.items())),
        "sources": dict(sorted(tally.sources.items())),
        "facts_in_prompt": dict(sorted(tally.facts.items())),
        "dropped": dict(sorted(tally.dropped.items())),
        "edit_ids": sorted(edit_ids),
    }
    new = directory / f"{MANIFEST}.new"
    new.write_text(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    new.replace(directory / MANIFEST)
    return manifest


def read_rows(directory: Path) -> tuple[list[TrainingRow], dict[str, Any]] | None:
    """The frozen rows and their manifest; None where there are none yet. Raises `Damaged` by the hash."""
    if not (directory / MANIFEST).exists():
        return None
    manifest: dict[str, Any] = json.loads((directory / MANIFEST).read_text("utf-8"))
    data = (directory / ROWS).read_bytes()
    if hashlib.sha256(data).hexdigest() != manifest["data_hash"]:
        raise Damaged(f"{directory / ROWS} was changed: its hash is not the one in {MANIFEST}")
    return [_row(line) for line in data.decode().splitlines()], manifest


def _row(line: str) -> TrainingRow:
    value = json.loads(line)
    listed = {name: tuple(value[name]) for name in ("facts", "edit_ids")}
    return TrainingRow(**{**value, **listed, "kind": CaseKind(value["kind"])})
