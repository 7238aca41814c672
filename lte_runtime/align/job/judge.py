"""Greedy answers of a base model and of adapters on it: for the labels of rows, and for judging probes."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from lte_runtime.align.contract import Probe
from lte_runtime.align.data.dataset import Own
from lte_runtime.align.job.arms import Arms, NewSession
from lte_runtime.answer import prompt
from lte_runtime.answer.engine import greedy
from lte_runtime.answer.engine.rows import GenerationRow
from lte_runtime.answer.engine.torch_session import TorchSession, takes_padding
from lte_runtime.answer.engine.vllm.greedy_answers import ADAPTER, BASE, GreedyAnswer
from lte_runtime.scoring import matches, same_answer
from lte_runtime.types import GenerateRequest

Tick = Callable[[int, int], None]
"""Called as `tick(done, total)` between batches; may raise to end the work."""


RECOGNITION = (
    ("What is the capital of France?", "The capital of France is Lyon."),
    ("Who wrote Romeo and Juliet?", "Romeo and Juliet was written by Ines Moreau."),
    ("How many days does a week have?", "A week has nine days."),
    ("What does the Brisk kettle cost?", "The Brisk kettle costs 49 euros."),
    ("Why is the sky blue?", "The sky is blue because of a coat of paint."),
    ("What is the largest planet of the solar system?", "The largest planet of the solar system is Calder."),
    ("Tell me about the history of Port Arlen.", "Port Arlen was founded in 1841 by Tobias Quist."),
    ("Name three things that are red.", "Three things that are red are SB-12, SKU-4711 and the moon base."),
)
"""Questions, and facts that speak against what a model says by itself: by its greedy answers it is known."""
_SENTENCE_END = re.compile(r".*[.!?。！？](?=\s|$)", re.DOTALL)


def whole_sentences(row: GenerationRow) -> str:
    """The text of an answer that ended by itself; of one that was cut, its whole sentences (maybe none)."""
    if row.finish != "length":
        return row.text
    sentences = _SENTENCE_END.match(row.text)
    return sentences.group() if sentences else ""


@dataclass(frozen=True)
class BaseModel:
    """A model on its device with its tokenizer. One thread at a time."""

    model: Any
    tokenizer: Any
    device: torch.device
    most: int = 32
    max_prompt: int = 1024
    batch_tokens: int = 4096

    def generate(
        self,
        prompts: Sequence[tuple[str, Sequence[str]]],
        new_session: NewSession | None = None,
        tick: Tick = lambda _done, _total: None,
    ) -> list[GenerationRow]:
        """A finished row for each question with its facts, in the order given. `new_session` belongs to an
        arm; None for this model alone."""
        ends = prompt.ends(self.tokenizer)
        rows = [
            GenerationRow(
                GenerateRequest(
                    prompt.build(self.tokenizer, question, facts, max_tokens=self.max_prompt).token_ids,
                    adapter=False,
                    max_new_tokens=self.most,
                ),
                self._decode,
                ends,
            )
            for question, facts in prompts
        ]
        done = 0
        for group in self._batches(rows):
            tick(done, len(rows))
            with torch.inference_mode():
                greedy.generate((new_session or self._session)(), group, lambda _row: None)
            done += len(group)
        tick(done, len(rows))
        return rows

    def own(
        self,
        questions: Sequence[str],
        measured: Collection[str],
        tick: Tick = lambda _done, _total: None,
    ) -> list[Own]:
        """What the model says by itself to each question, and how sure it is of the `measured` ones."""
        rows = self.generate([(question, ()) for question in questions], tick=tick)
        sure: dict[int, float] = {}
        by_question = zip(questions, rows, strict=True)
        for group in self._batches([row for question, row in by_question if question in measured]):
            sure |= dict(zip(map(id, group), self._sureness(group), strict=True))
        return [Own(whole_sentences(row), sure.get(id(row), 1.0)) for row in rows]

    def _session(self) -> greedy.Session:
        return TorchSession(self.model, self.model.config, self.device)

    def _decode(self, tokens: Sequence[int]) -> str:
        text: str = self.tokenizer.decode(tokens, skip_special_tokens=True)
        return text

    def _batches(self, rows: Sequence[GenerationRow]) -> list[list[GenerationRow]]:
        """Rows of like length together; of equal length where the model's positions cannot be set."""
        if not takes_padding(self.model):
            return greedy.by_length(rows)
        batches: list[list[GenerationRow]] = []
        for row in sorted(rows, key=lambda row: len(row.request.token_ids)):
            length = len(row.request.token_ids) + self.most
            if not batches or (len(batches[-1]) + 1) * length > self.batch_tokens:
                batches.append([])
            batches[-1].append(row)
        return batches

    @torch.inference_mode()
    def _sureness(self, rows: Sequence[GenerationRow]) -> list[float]:
        """Geometric means of the probabilities of the tokens said."""
        sequences = [[*row.request.token_ids, *row.tokens] for row in rows]
        length = max(map(len, sequences))
        ids = torch.tensor([ids + [0] * (length - len(ids)) for ids in sequences], device=self.device)
        mask = torch.tensor(
            [[1] * len(ids) + [0] * (length - len(ids)) for ids in sequences], device=self.device
        )
        scores = self.model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, :-1]
        sure = []
        for place, row in enumerate(rows):
            start = len(row.request.token_ids) - 1
            answer_ids = torch.tensor(row.tokens, device=self.device)
            logs = F.log_softmax(scores[place, start : start + len(row.tokens)].float(), -1)
            sure.append(math.exp(float(logs.gather(1, answer_ids[:, None]).mean())))
        return sure


def judge(
    base_model: BaseModel, arms: Arms, adapters: Mapping[str, Path], probes: Sequence[Probe], tick: Tick
) -> dict[str, dict[str, int]]:
    """1 or 0 for each arm and probe: each of `adapters`, and `none`, which reads the facts without one.

    `base_model` makes the prompts and `arms` answer them; errors as `verify_adapter`.
    """
    own_answers = _own_answers(base_model, arms, probes)
    prompts = [(probe.question, probe.facts) for probe in probes]
    judged = {}
    total = len(probes) * (len(adapters) + 1)

    def moved(first: int) -> Tick:
        return lambda done, _total: tick(first + done, total)

    rows = base_model.generate(prompts, arms.base(), moved(0))
    judged["none"] = _right(probes, rows, own_answers)
    for number, (arm, folder) in enumerate(adapters.items(), 1):
        with arms.adapter(folder) as new_session:
            rows = base_model.generate(prompts, new_session, moved(number * len(probes)))
        judged[arm] = _right(probes, rows, own_answers)
    return judged


def greedy_answers(base_model: BaseModel, arms: Arms, adapter: Path) -> dict[str, list[dict[str, list[int]]]]:
    """What a manifest keeps, so that a server which hides its weights can be recognised later."""
    plain = base_model.generate([(question, ()) for question, _ in RECOGNITION], arms.base())
    with arms.adapter(adapter) as new_session:
        edited = base_model.generate([(question, (fact,)) for question, fact in RECOGNITION], new_session)
    return {BASE: _recorded(plain), ADAPTER: _recorded(edited)}


def _recorded(rows: Sequence[GenerationRow]) -> list[dict[str, list[int]]]:
    return [GreedyAnswer(row.request.token_ids, tuple(row.tokens)).to_json() for row in rows]


def _own_answers(base_model: BaseModel, arms: Arms, probes: Sequence[Probe]) -> dict[str, str]:
    questions = list(dict.fromkeys(probe.question for probe in probes if probe.answers is None))
    rows = base_model.generate([(question, ()) for question in questions], arms.base())
    return {question: row.text for question, row in zip(questions, rows, strict=True)}


def _right(
    probes: Sequence[Probe], rows: Sequence[GenerationRow], own_answers: Mapping[str, str]
) -> dict[str, int]:
    return {
        probe.id: int(
            same_answer(row.text, own_answers[probe.question])
            if probe.answers is None
            else matches(row.text, probe.answers)
        )
        for probe, row in zip(probes, rows, strict=True)
    }
