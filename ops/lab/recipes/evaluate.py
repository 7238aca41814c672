"""Figures of a model by itself: right facts given, free greedy decoding, exact match."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lte_runtime.align.stock import names
from lte_runtime.align.stock.relations import NOUN_KINDS
from lte_runtime.align.stock.sources import KNOWEDIT, Sources, first_text, records
from lte_runtime.align.stock.split import held_out
from lte_runtime.answer import prompt
from lte_runtime.scoring import matches
from ops.lab.recipes import invented


@dataclass(frozen=True, slots=True)
class ReaderProbe:
    """A question with the facts given to it and the answers that count as right."""

    question: str
    facts: tuple[str, ...]
    answers: tuple[str, ...]


def answers(
    model: Any, tokenizer: Any, prompts: Sequence[Sequence[int]], most: int = 24, batch: int = 48
) -> list[str]:
    """The first line that the model writes greedily after each prompt, in the order given."""
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    replies = [""] * len(prompts)
    for start in range(0, len(order), batch):
        chunk = order[start : start + batch]
        for index, text in zip(
            chunk, _greedy(model, tokenizer, [prompts[i] for i in chunk], most), strict=True
        ):
            replies[index] = text
    return replies


@torch.no_grad()
def _greedy(model: Any, tokenizer: Any, prompts: Sequence[Sequence[int]], most: int) -> list[str]:
    width = max(map(len, prompts))
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    ids = torch.tensor([[pad] * (width - len(prompt_ids)) + list(prompt_ids) for prompt_ids in prompts])
    mask = torch.tensor([[0] * (width - len(prompt_ids)) + [1] * len(prompt_ids) for prompt_ids in prompts])
    outputs = model.generate(
        input_ids=ids,
        attention_mask=mask,
        max_new_tokens=most,
        do_sample=False,
        eos_token_id=sorted(prompt.ends(tokenizer)),
        pad_token_id=pad,
    )
    texts = tokenizer.batch_decode(outputs[:, width:], skip_special_tokens=True)
    return [prompt.first_line(text) for text in texts]


Form = Callable[[Any, ReaderProbe], Sequence[int]]


def lte_form(tokenizer: Any, probe: ReaderProbe) -> Sequence[int]:
    """The prompt as it is served."""
    return prompt.build(tokenizer, probe.question, probe.facts, max_tokens=900).token_ids


def own_form(tokenizer: Any, probe: ReaderProbe) -> Sequence[int]:
    """One of the base model's own reading forms."""
    passage = " ".join(probe.facts)
    question = f"Passage: {passage}\nQuestion: {probe.question}" if probe.facts else probe.question
    return prompt.build_raw(tokenizer, question)


def accuracy(model: Any, tokenizer: Any, probes: Sequence[ReaderProbe], form: Form = lte_form) -> float:
    """Share of probes answered right."""
    if not probes:
        return float("nan")
    replies = answers(model, tokenizer, [form(tokenizer, probe) for probe in probes])
    return sum(matches(text, probe.answers) for text, probe in zip(replies, probes, strict=True)) / len(
        probes
    )


def sets(sources: Sources, data: Path | None, facts: Path | None, limit: int) -> dict[str, list[ReaderProbe]]:
    """Every set of probes by name, each at most `limit` long."""
    probe_sets = {"stock": list(stock_probes(sources))}
    if facts is not None:
        probe_sets |= user_probes(facts)
    if data is not None:
        probe_sets |= knowedit_probes(data)
    for count in (2, 3):
        probe_sets[f"choosing among {count}"] = [
            choosing(random.Random(f"choose:{count}:{i}"), count) for i in range(300)
        ]
    probe_sets["two hops"] = [two_hops(random.Random(f"hop:{index}")) for index in range(300)]
    probe_sets["aliases"] = [aliased(random.Random(f"alias:{index}")) for index in range(300)]
    for kind in ("number", "date", "price", "version", "address", "contact", "person"):
        probe_sets[f"{kind} alone"] = [alone(random.Random(f"{kind}:{index}"), kind) for index in range(150)]
    return {
        name: random.Random(name).sample(probes, min(limit, len(probes)))
        for name, probes in probe_sets.items()
    }


def stock_probes(sources: Sources) -> Iterator[ReaderProbe]:
    rng = random.Random("stock")
    for fact in sources.stock:
        yield ReaderProbe(rng.choice(fact.questions), (), (fact.target, *fact.aliases))


def knowedit_probes(data: Path) -> dict[str, list[ReaderProbe]]:
    """The set-aside half: the edit's own prompt, its rephrasing, its aliases, with the right fact alone."""
    probe_sets: dict[str, list[ReaderProbe]] = {"subject aliasing": []}
    for name in KNOWEDIT:
        probe_sets[name] = []
        for record in records(data, name):
            if held_out(record["subject"]):
                target = (record["target_new"],)
                fact = (f"{record['prompt']} {record['target_new']}.",)
                probe_sets[name].append(ReaderProbe(record["prompt"], fact, target))
                if record.get("rephrase_prompt"):
                    probe_sets.setdefault(f"{name} rephrased", []).append(
                        ReaderProbe(record["rephrase_prompt"], fact, target)
                    )
                for probe in record.get("portability", {}).get("Subject_Aliasing", ()):
                    probe_sets["subject aliasing"].append(
                        ReaderProbe(probe["prompt"], fact, (first_text(probe["ground_truth"]),))
                    )
    return probe_sets


def user_probes(path: Path) -> dict[str, list[ReaderProbe]]:
    """Facts as users write them (JSON Lines with event, question, paraphrase, alias_question, expected)."""
    probe_sets: dict[str, list[ReaderProbe]] = {"user facts": [], "user paraphrases": [], "user aliases": []}
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        event, answers = row["event"], tuple(row["expected"])
        subject = event["subject"]
        fact = event.get("statement") or f"The {event['relation']} of {subject} is {event['target']}."
        probe_sets["user facts"].append(ReaderProbe(row["question"], (fact,), answers))
        probe_sets["user paraphrases"].append(ReaderProbe(row["paraphrase"], (fact,), answers))
        alias = next(
            (name for name in event.get("subject_aliases", ()) if name in row.get("alias_question", "")), ""
        )
        if alias:
            fact_with_alias = prompt.explained(fact, subject, alias)
            probe_sets["user aliases"].append(ReaderProbe(row["alias_question"], (fact_with_alias,), answers))
    return probe_sets


def choosing(rng: random.Random, count: int) -> ReaderProbe:
    """`count` facts: the right one, one with its subject, one with its relation; in random order."""
    (noun, kind), (other, other_kind) = rng.sample(list(NOUN_KINDS), 2)
    subject, neighbour = names.product(rng), names.product(rng)
    target = names.value(kind, rng)
    facts = [
        f"The {noun} of {subject} is {target}.",
        f"The {other} of {subject} is {names.value(other_kind, rng)}.",
        f"The {noun} of {neighbour} is {names.value(kind, rng)}.",
    ]
    given_facts = facts if count == 3 else [facts[0], rng.choice(facts[1:])]
    rng.shuffle(given_facts)
    wordings = [
        f"What is the {noun} of {subject}?",
        f"What is {subject}'s {noun}?",
        f"Tell me the {noun} of {subject}.",
    ]
    return ReaderProbe(rng.choice(wordings), tuple(given_facts), (target,))


def alone(rng: random.Random, kind: str) -> ReaderProbe:
    """One generic fact with a value of `kind`."""
    noun = rng.choice([noun for noun, of in NOUN_KINDS if of == kind])
    subject, target = names.value(rng.choice(("product", "org", "place")), rng), names.value(kind, rng)
    return ReaderProbe(
        f"What is the {noun} of {subject}?", (f"The {noun} of {subject} is {target}.",), (target,)
    )


def aliased(rng: random.Random) -> ReaderProbe:
    """One fact asked by its subject's declared alias."""
    noun, kind = rng.choice(NOUN_KINDS)
    subject, target = names.product(rng), names.value(kind, rng)
    alias = invented.alias_of(rng, subject)
    fact = prompt.explained(f"The {noun} of {subject} is {target}.", subject, alias)
    return ReaderProbe(f"What is the {noun} of {alias}?", (fact,), (target,))


def two_hops(rng: random.Random) -> ReaderProbe:
    """Two facts in the order of the chain, and a question over both."""
    first, kind = rng.choice(
        [pair for pair in NOUN_KINDS if pair[1] in ("person", "org", "place", "product")]
    )
    second, second_kind = rng.choice(NOUN_KINDS)
    subject, middle, target = names.product(rng), names.value(kind, rng), names.value(second_kind, rng)
    facts = (f"The {first} of {subject} is {middle}.", f"The {second} of {middle} is {target}.")
    word = "Who" if second_kind == "person" else "What"
    form = rng.choice(("{w} is the {b} of the {a} of {s}?", "The {b} of the {a} of {s} is"))
    return ReaderProbe(form.format(w=word, a=first, b=second, s=subject), facts, (target,))
