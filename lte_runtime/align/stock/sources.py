"""What the stream is made from: the stock of remembered facts and open data, held-out halves removed."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lte_runtime.align.stock.relations import withheld
from lte_runtime.align.stock.split import held_out

LONGEST_ANSWER = 60
"""Characters of an open question's answer that may stand as a value."""
STOCK = Path(__file__).parent / "facts"


@dataclass(frozen=True, slots=True)
class StockFact:
    """A fact that the base knows by heart, with every wording of its question."""

    relation: str
    subject: str
    target: str
    aliases: tuple[str, ...]
    questions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class BenchmarkFact:
    """A benchmark fact of the training half; `text` is the prompt that the target completes."""

    subject: str
    text: str
    target: str
    questions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Template:
    """A question with {s} for its subject, its rephrasing, and the kind of its answers."""

    prompts: tuple[str, ...]
    kind: str


@dataclass(frozen=True, slots=True)
class Sources:
    """Everything that rows draw from; all empty is allowed (invented names only)."""

    stock: tuple[StockFact, ...] = ()
    edits: tuple[BenchmarkFact, ...] = ()
    templates: tuple[Template, ...] = ()
    subjects: tuple[str, ...] = ()
    objects: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()
    open_questions: tuple[tuple[str, str], ...] = ()


def load(data: Path | None, stock: Path = STOCK) -> Sources:
    """Sources of the stream from the data folder (`knowedit/`, `pararel/`, `nq_open/`, `wiki_extracts/`)."""
    facts = tuple(stock_facts(stock))
    if data is None:
        return Sources(stock=facts)
    records = tuple(training_records(data))
    open_questions = tuple(_open_questions(data))
    pairs = [pair for pair in _pararel(data) if not held_out(pair[0])]
    return Sources(
        stock=facts,
        edits=tuple(edit for record in records for edit in _edits(record)),
        templates=tuple(template for record in records for template in _templates(record)),
        subjects=tuple(
            dict.fromkeys([record["subject"] for record in records] + [pair[0] for pair in pairs])
        ),
        objects=tuple(
            dict.fromkeys(
                [record["target_new"] for record in records]
                + [pair[1] for pair in pairs]
                + [answer for _, answer in open_questions if len(answer) < LONGEST_ANSWER]
            )
        ),
        texts=tuple(_texts(data)),
        open_questions=open_questions,
    )


def stock_facts(folder: Path = STOCK) -> Iterator[StockFact]:
    """Facts of `folder/*.tsv`, worded by `folder/relations.json`."""
    wordings_path = folder / "relations.json"
    if not wordings_path.exists():
        return
    wordings: Mapping[str, Any] = json.loads(wordings_path.read_text(encoding="utf-8"))
    for table in sorted(folder.glob("*.tsv")):
        if table.stem not in wordings:
            continue
        forms = _forms(wordings[table.stem])
        for line in table.read_text(encoding="utf-8").splitlines():
            subject, target, *alias_columns = line.split("\t")
            aliases = tuple(part.strip() for part in "".join(alias_columns).split("|") if part.strip())
            yield StockFact(
                table.stem, subject, target, aliases, tuple(form.replace("{s}", subject) for form in forms)
            )


def _forms(wording: Any) -> Sequence[str]:
    own = [*wording["questions"], *wording["clozes"]]
    return list(dict.fromkeys([*own, f"The {wording['relation']} of {{s}} is"]))


KNOWEDIT = ("zsre", "wiki_recent", "wiki_counterfact")


def records(data: Path, name: str) -> list[dict[str, Any]]:
    """Records of one KnowEdit set, both halves."""
    loaded: list[dict[str, Any]] = json.loads(
        (data / "knowedit" / f"{name}.json").read_text(encoding="utf-8")
    )
    return [record for record in loaded if record.get("target_new")]


def training_records(data: Path) -> Iterator[dict[str, Any]]:
    """KnowEdit records whose subject is not set aside."""
    for name in KNOWEDIT:
        yield from (record for record in records(data, name) if not held_out(record["subject"]))


def first_text(answer: Any) -> str:
    """The first text in KnowEdit's string, list, or list of lists."""
    while isinstance(answer, list):
        answer = answer[0] if answer else ""
    return str(answer)


def _edits(record: Mapping[str, Any]) -> Iterator[BenchmarkFact]:
    """The edit itself and the facts of its locality probes (other facts about the same subject)."""
    prompt = record["prompt"]
    questions = [prompt, *_cloze_questions(record["subject"], prompt)]
    if record.get("rephrase_prompt"):
        questions += [record["rephrase_prompt"]]
    if not withheld(prompt):
        yield BenchmarkFact(record["subject"], prompt, record["target_new"], tuple(questions))
    for probe in record.get("locality", {}).get("Relation_Specificity", ()):
        answer = first_text(probe["ground_truth"])
        if answer and len(answer) < 60 and not withheld(probe["prompt"]):
            probe_questions = (probe["prompt"], *_cloze_questions(record["subject"], probe["prompt"]))
            yield BenchmarkFact(record["subject"], probe["prompt"], answer, probe_questions)


def _cloze_questions(subject: str, cloze: str) -> tuple[str, ...]:
    """A cloze `The (name of the) NOUN of SUBJECT is` as a question."""
    match = re.fullmatch(rf"The (?:name of the )?(.+) of {re.escape(subject)} is", cloze)
    return (f"What is the {match[1]} of {subject}?",) if match else ()


def _templates(record: Mapping[str, Any]) -> Iterator[Template]:
    subject, prompt = record["subject"], record["prompt"]
    prompts = [text for text in (prompt, record.get("rephrase_prompt") or "") if subject in text]
    if prompts and prompts[0] == prompt and not withheld(prompt):
        yield Template(tuple(text.replace(subject, "{s}") for text in prompts), _kind(record["target_new"]))


def _kind(target: str) -> str:
    if re.fullmatch(r"\d{4}", target):
        return "year"
    if re.search(r"\d{4}", target) and len(target) < 25:
        return "date"
    return "number" if target.isdigit() else "any"


def _pararel(data: Path) -> list[tuple[str, str]]:
    lines = (data / "pararel" / "tuples.jsonl").read_text(encoding="utf-8").splitlines()
    return [(row["subject"], row["object"]) for row in map(json.loads, lines)]


def _texts(data: Path) -> Iterator[str]:
    for line in (data / "wiki_extracts" / "extracts.jsonl").read_text(encoding="utf-8").splitlines():
        for paragraph in json.loads(line)["text"].split("\n"):
            if len(paragraph) > 200 and not withheld(paragraph):
                yield paragraph


def _open_questions(data: Path) -> Iterator[tuple[str, str]]:
    for name in ("dev", "efficientqa_test"):
        for line in (data / "nq_open" / f"{name}.jsonl").read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            if not withheld(row["question"]):
                yield row["question"], row["answer"][0]
