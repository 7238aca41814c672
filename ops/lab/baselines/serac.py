"""SERAC: edits stay text; a scope classifier sends a question to the base or to a counterfactual model.

Mitchell et al., 2022 (arXiv 2206.06520), equation 1. The paper's counterfactual model is a smaller
pre-trained model, tuned to answer a question given an edit. Here it is a copy of the base itself, tuned in
the same way: it shares the base's tokenizer, so that both can be read under teacher forcing. That costs the
base's size in memory once more.
"""

from __future__ import annotations

import copy
import itertools
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from lte_runtime.progress import Progress
from lte_runtime.types import Encoder
from ops.lab.baselines import base as reading
from ops.lab.baselines import tensor_cache
from ops.lab.baselines.base import BaselineModel, Sample
from ops.lab.baselines.edit_texts import EditTexts
from ops.lab.baselines.material import LessonMaterial
from ops.lab.baselines.protocol import EditRequest, Forced
from ops.lab.baselines.scope import ScopeClassifier, ScopeTraining, tensor, train_scope


@dataclass(frozen=True, slots=True)
class CounterfactualTraining:
    """AdamW on lessons until `steps` or `seconds` of processor time; the rate falls linearly to zero."""

    steps: int = 1500
    seconds: float = 480.0
    batch: int = 16
    rate: float = 2e-4
    seed: int = 0


@dataclass(frozen=True, slots=True)
class SeracParams:
    """A question is in scope from probability `threshold` on; `form` has the places {edit} and {question}."""

    threshold: float = 0.5
    form: str = "{edit}. {question}"
    scope: ScopeTraining = field(default_factory=ScopeTraining)
    counterfactual: CounterfactualTraining = field(default_factory=CounterfactualTraining)


class Serac:
    """`Editor` that leaves the base alone. A later edit of the same prompt replaces the earlier one."""

    def __init__(
        self,
        base: BaselineModel,
        params: SeracParams,
        encoder: Encoder,
        material: LessonMaterial,
        directory: Path,
        progress: Progress,
    ) -> None:
        self._base, self._params, self._encoder = base, params, encoder
        self._scope = trained_scope(encoder, params.scope, material, directory, progress)
        self._counterfactual = trained_counterfactual(base, params, material, directory, progress)
        self._texts = EditTexts(encoder)

    def edit(self, requests: Sequence[EditRequest]) -> None:
        self._texts.add(requests)

    def undo(self) -> None:
        self._texts.clear()

    def answer(self, prompts: Sequence[str], *, max_new_tokens: int = 32) -> list[str]:
        edits = self.scopes(prompts)
        prompt_ids = [self._prompt_ids(text, edit) for text, edit in zip(prompts, edits, strict=True)]
        answers = [""] * len(prompts)
        for base, places in self._sides(edits):
            texts = reading.answers(base, [prompt_ids[at] for at in places], max_new_tokens)
            for at, text in zip(places, texts, strict=True):
                answers[at] = text
        return answers

    def forced(self, pairs: Sequence[tuple[str, str]]) -> list[Forced]:
        edits = self.scopes([question for question, _ in pairs])
        samples = [
            Sample(self._prompt_ids(question, edit), reading.target_ids(self._base, target))
            for (question, target), edit in zip(pairs, edits, strict=True)
        ]
        results: dict[int, Forced] = {}
        for base, places in self._sides(edits):
            results |= zip(places, reading.forced(base, [samples[at] for at in places]), strict=True)
        return [results[at] for at in range(len(pairs))]

    def scopes(self, prompts: Sequence[str]) -> list[EditRequest | None]:
        """For each question the likeliest edit, or None where even that is out of scope."""
        edits = self._texts.edits
        if not edits or not prompts:
            return [None] * len(prompts)
        edit_vectors = tensor(self._texts.vectors)
        likely, which = self._scope.table(
            edit_vectors, tensor(self._encoder.encode(prompts, query=True))
        ).max(-1)
        return [
            edits[at] if p >= self._params.threshold else None
            for p, at in zip(likely.tolist(), which.tolist(), strict=True)
        ]

    def _prompt_ids(self, text: str, edit: EditRequest | None) -> tuple[int, ...]:
        return reading.question(
            self._base, text if edit is None else conditioned_prompt(self._params.form, edit, text)
        )

    def _sides(self, edits: Sequence[EditRequest | None]) -> list[tuple[BaselineModel, list[int]]]:
        """Which of the two models reads which questions."""
        outside = [at for at, edit in enumerate(edits) if edit is None]
        inside = [at for at, edit in enumerate(edits) if edit is not None]
        sides = [(self._base, outside), (self._counterfactual, inside)]
        return [(base, places) for base, places in sides if places]


def conditioned_prompt(form: str, edit: EditRequest, question: str) -> str:
    """What the counterfactual model is asked."""
    return form.format(edit=edit.statement.rstrip("."), question=question)


def trained_scope(
    encoder: Encoder, training: ScopeTraining, material: LessonMaterial, directory: Path, progress: Progress
) -> ScopeClassifier:
    """The classifier for this encoder, from disk where it is there and sound, else trained and written."""
    name = tensor_cache.name_of(encoder.fingerprint, material.name, repr(training))
    path = directory / f"serac-scope-{name}.safetensors"
    tensors = tensor_cache.read(path)
    if tensors is not None:
        classifier = ScopeClassifier(len(tensors["map"]), training.scale)
        classifier.load_state_dict(tensors)
        return classifier.requires_grad_(False)
    lessons = material.lessons(random.Random(training.seed), training.lessons)
    classifier = train_scope(
        encoder, lessons, training, lambda share: progress("SERAC's scope trains", int(100 * share), 100)
    )
    tensor_cache.write(path, classifier.state_dict())
    return classifier


def trained_counterfactual(
    base: BaselineModel, params: SeracParams, material: LessonMaterial, directory: Path, progress: Progress
) -> BaselineModel:
    """h(z_e, x) for this base, from disk where it is there and sound, else trained and written."""
    training = params.counterfactual
    name = tensor_cache.name_of(base.fingerprint, material.name, params.form, repr(training))
    path = directory / f"serac-model-{name}.safetensors"
    learner = replace(base, model=copy.deepcopy(base.model))
    tensors = tensor_cache.read(path)
    own = dict(learner.model.named_parameters())
    if tensors is None:
        _train(learner, params.form, training, material, progress)
        tensor_cache.write(path, {name: value.detach() for name, value in own.items()})
    else:
        with torch.no_grad():
            for name, value in own.items():
                value.copy_(tensors[name])
    learner.model.requires_grad_(False)
    return learner


def _train(
    learner: BaselineModel,
    form: str,
    training: CounterfactualTraining,
    material: LessonMaterial,
    progress: Progress,
) -> None:
    """Minimises -log h(y | z_e, x) over edits in their own and in other words (equation 3)."""
    rng = random.Random(training.seed)
    learnt: list[nn.Parameter] = list(learner.model.requires_grad_(True).parameters())
    optimizer = torch.optim.AdamW(learnt, lr=training.rate, weight_decay=0.0)
    began = time.process_time()
    for step in itertools.count():
        share = max(step / training.steps, (time.process_time() - began) / training.seconds)
        if share >= 1:
            return
        optimizer.param_groups[0]["lr"] = training.rate * (1 - share)
        loss = lesson_loss(learner, form, material, rng, training.batch)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(learnt, 1.0)
        optimizer.step()
        what = f"SERAC's counterfactual model trains: loss {float(loss.detach()):.3f}"
        progress(what, int(1000 * share), 1000)


def lesson_loss(
    learner: BaselineModel, form: str, material: LessonMaterial, rng: random.Random, batch: int
) -> Tensor:
    """The mean loss of edits' targets behind edit and question, the end token included."""
    rows: list[Sample] = []
    for lesson in material.lessons(rng, batch):
        question = rng.choice((lesson.request.prompt, *lesson.rephrased))
        text = conditioned_prompt(form, lesson.request, question)
        rows.append(reading.sample(learner, text, lesson.request.target, end=True))
    return reading.losses(reading.logits(learner, [(*row.prompt, *row.target) for row in rows]), rows).mean()
