"""ICE: the edits stay text, and those nearest to a question are put before it, without any training.

In-context editing after Zheng et al., 2023 (arXiv 2305.12740): the answer is that of the unchanged model
given the new fact and the question. Of that paper's demonstrations the fact itself alone is used, as in the
zero-shot arm of Cohen et al., 2023 (arXiv 2307.12976): no adapter, and no gate, so every question gets a
fact. Facts are found by the similarity of sentence embeddings, as IKE finds its demonstrations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lte_runtime.types import Encoder
from ops.lab.baselines import base as reading
from ops.lab.baselines.base import BaselineModel, Sample
from ops.lab.baselines.edit_texts import EditTexts
from ops.lab.baselines.protocol import EditRequest, Forced


@dataclass(frozen=True, slots=True)
class IceParams:
    """`facts` are put before a question, the nearest last; `form` has the places `{facts}`, `{question}`."""

    facts: int = 1
    form: str = "Imagine that {facts} {question}"


class Ice:
    """`Editor` that leaves the model alone. A later edit of the same prompt replaces the earlier one."""

    def __init__(self, base: BaselineModel, params: IceParams, encoder: Encoder) -> None:
        self._base = base
        self._params = params
        self._encoder = encoder
        self._texts = EditTexts(encoder)

    def edit(self, requests: Sequence[EditRequest]) -> None:
        self._texts.add(requests)

    def answer(self, prompts: Sequence[str], *, max_new_tokens: int = 32) -> list[str]:
        prompt_ids = [reading.question(self._base, text) for text in self._with_facts(prompts)]
        return reading.answers(self._base, prompt_ids, max_new_tokens)

    def forced(self, pairs: Sequence[tuple[str, str]]) -> list[Forced]:
        texts = self._with_facts([prompt for prompt, _ in pairs])
        samples: list[Sample] = [
            reading.sample(self._base, text, target, end=False)
            for text, (_, target) in zip(texts, pairs, strict=True)
        ]
        return reading.forced(self._base, samples)

    def undo(self) -> None:
        self._texts.clear()

    def _with_facts(self, prompts: Sequence[str]) -> list[str]:
        edits = self._texts.edits
        if not edits or not prompts:
            return list(prompts)
        scores = self._encoder.encode(prompts, query=True) @ self._texts.vectors.T
        best = np.argsort(scores, axis=1, kind="stable")[:, -self._params.facts :]
        return [
            self._with_edits(text, [edits[at] for at in row]) for text, row in zip(prompts, best, strict=True)
        ]

    def _with_edits(self, text: str, edits: Sequence[EditRequest]) -> str:
        facts = " ".join(f"{edit.statement.rstrip('.')}." for edit in edits)
        return self._params.form.format(facts=facts, question=text)
