"""SERAC's scope classifier in its embedding form: how near a question is to the nearest stored edit."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from lte_runtime.types import Encoder
from ops.lab.baselines.material import Lesson


@dataclass(frozen=True, slots=True)
class ScopeTraining:
    """Adam over `lessons`, encoded once; `scale` is the first length of an embedding."""

    lessons: int = 3000
    epochs: int = 12
    batch: int = 64
    rate: float = 3e-4
    scale: float = 1.5
    seed: int = 0


class ScopeClassifier(nn.Module):
    """p(in scope) = exp(-||phi(z_e) - phi(x)||^2) (Mitchell et al., 2022, section 3.2), phi = A encode(.).

    The sentence encoder stays as it is; the map A [width, width] is learnt and begins as `scale` times the
    identity.
    """

    def __init__(self, width: int, scale: float) -> None:
        super().__init__()
        self.map = nn.Parameter(torch.eye(width) * scale)

    def forward(self, edits: Tensor, questions: Tensor) -> Tensor:
        """Log probabilities of pairs, [n], of embeddings [n, width]."""
        return -((edits - questions) @ self.map.T).square().sum(-1)

    @torch.no_grad()
    def table(self, edits: Tensor, questions: Tensor) -> Tensor:
        """Probabilities [questions, edits]."""
        return torch.cdist(questions @ self.map.T, edits @ self.map.T).square().neg().exp()


Step = Callable[[float], None]
"""Called with the share that is done."""


def train_scope(
    encoder: Encoder, lessons: Sequence[Lesson], training: ScopeTraining, done: Step
) -> ScopeClassifier:
    """Cross-entropy over pairs of an edit and its own wordings, unrelated questions, other questions."""
    torch.manual_seed(training.seed)
    edits, questions, labels = _pairs(encoder, lessons, random.Random(training.seed))
    classifier = ScopeClassifier(edits.shape[1], training.scale)
    optimizer = torch.optim.Adam(classifier.parameters(), lr=training.rate)
    seeded = torch.Generator().manual_seed(training.seed)
    for epoch in range(training.epochs):
        order = torch.randperm(len(labels), generator=seeded)
        for start in range(0, len(order), training.batch):
            chunk = order[start : start + training.batch]
            loss = pair_loss(classifier(edits[chunk], questions[chunk]), labels[chunk])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        done((epoch + 1) / training.epochs)
    return classifier.requires_grad_(False)


def pair_loss(log_p: Tensor, labels: Tensor) -> Tensor:
    """Binary cross-entropy from log probabilities [n]; log(1 - p) is kept finite where p is one."""
    outside = torch.log1p(-log_p.exp().clamp_max(1 - 1e-6))
    return -torch.where(labels, log_p, outside).mean()


def _pairs(encoder: Encoder, lessons: Sequence[Lesson], rng: random.Random) -> tuple[Tensor, Tensor, Tensor]:
    """Embeddings of edits and of questions [n, width], and whether they belong together [n]."""
    pairs: list[tuple[str, str, bool]] = []
    for lesson in lessons:
        statement = lesson.request.statement
        pairs += [(statement, question, True) for question in (lesson.request.prompt, *lesson.rephrased)]
        other = rng.choice(lessons).request
        pairs.append((statement, lesson.unrelated[0], False))
        if other.prompt not in (lesson.request.prompt, *lesson.rephrased):
            pairs.append((statement, other.prompt, False))
    edits = encoder.encode([statement for statement, _, _ in pairs])
    questions = encoder.encode([question for _, question, _ in pairs], query=True)
    return tensor(edits), tensor(questions), torch.tensor([belongs for _, _, belongs in pairs])


def tensor(vectors: object) -> Tensor:
    """Embeddings in float32."""
    return torch.from_numpy(np.array(vectors, dtype=np.float32))
