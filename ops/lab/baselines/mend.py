"""MEND: a network turns the gradient of one example into an edit of the weights.

Mitchell et al., 2022 (arXiv 2110.11309). The gradient of a linear map by one example is a sum over tokens of
outer(delta, u), so the network maps the vectors and not the matrix. What it says for each token is again a
pair of vectors: the edit is of rank one for each token.
"""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lte_runtime.progress import Progress
from ops.lab.baselines import base as reading
from ops.lab.baselines import tensor_cache
from ops.lab.baselines.base import BaselineModel, Sample
from ops.lab.baselines.low_rank import Factors, Place, Traces, changed, mlp_places
from ops.lab.baselines.material import Lesson, LessonMaterial
from ops.lab.baselines.protocol import EditRequest
from ops.lab.baselines.weights import OriginalWeights


@dataclass(frozen=True, slots=True)
class MendTraining:
    """Adam on lessons until `steps` or `seconds` of processor time.

    `edit` weighs the edit's loss against the drift of unrelated answers.

    `rank` is that of the network's own matrices, `rate` their rate, `step_rate` that of the learnt step
    sizes' logarithms, `first_step` the step size to start from.
    """

    blocks: int = 3
    rank: int = 128
    steps: int = 4000
    seconds: float = 600.0
    batch: int = 8
    rate: float = 5e-4
    step_rate: float = 2e-2
    first_step: float = 1e-3
    edit: float = 0.1
    calibration: int = 64
    seed: int = 0


@dataclass(frozen=True, slots=True)
class MendParams:
    """`strength` multiplies the learnt step sizes; with `end` the target's end is edited in too."""

    strength: float = 1.0
    end: bool = True
    training: MendTraining = field(default_factory=MendTraining)


class Transform(nn.Module):
    """g of equation 3 for linear maps of one shape, shared by them but for scales and offsets.

    h = z + relu(s1 * (U1 V1 z + b) + o1);  g(z) = h + relu(s2 * U2 V2 h + o2),  z = (u, delta), normalised.
    U1 and U2 begin at zero, so that g begins as the identity (section 3.2).
    """

    def __init__(self, width: int, rank: int, maps: int, generator: torch.Generator) -> None:
        super().__init__()

        def drawn() -> nn.Parameter:
            return nn.Parameter(torch.randn(rank, width, generator=generator) * width**-0.5)

        self.v1, self.v2 = drawn(), drawn()
        self.u1, self.u2 = nn.Parameter(torch.zeros(width, rank)), nn.Parameter(torch.zeros(width, rank))
        self.b = nn.Parameter(torch.zeros(width))
        self.s1, self.s2 = nn.Parameter(torch.ones(maps, width)), nn.Parameter(torch.ones(maps, width))
        self.o1, self.o2 = nn.Parameter(torch.zeros(maps, width)), nn.Parameter(torch.zeros(maps, width))

    def forward(self, z: Tensor, which: int) -> Tensor:
        h = z + F.relu(self.s1[which] * (z @ self.v1.T @ self.u1.T + self.b) + self.o1[which])
        out: Tensor = h + F.relu(self.s2[which] * (h @ self.v2.T @ self.u2.T) + self.o2[which])
        return out


class Hypernetwork(nn.Module):
    """The transforms of all places, their normalisation and their step sizes."""

    def __init__(self, places: Sequence[Place], training: MendTraining) -> None:
        super().__init__()
        self._places = tuple(places)
        shapes = sorted({place.shape for place in places})
        self._kind = {shape: number for number, shape in enumerate(shapes)}
        self._index: dict[str, int] = {}
        for shape in shapes:
            same = [place.name for place in places if place.shape == shape]
            self._index |= {name: number for number, name in enumerate(same)}
        seeded = torch.Generator().manual_seed(training.seed)
        self.transforms = nn.ModuleList(
            Transform(sum(shape), training.rank, sum(p.shape == shape for p in places), seeded)
            for shape in shapes
        )
        self.log_steps = nn.Parameter(torch.full((len(places),), float(training.first_step)).log())
        for number, place in enumerate(places):
            self.register_buffer(f"mean{number}", torch.zeros(sum(place.shape)))
            self.register_buffer(f"spread{number}", torch.ones(sum(place.shape)))

    def normalise_by(self, seen: Mapping[str, Tensor]) -> None:
        """Means and deviations of z [tokens, in + out] of each place, as section 3.2 asks for."""
        for number, place in enumerate(self._places):
            z = seen[place.name]
            self.get_buffer(f"mean{number}").copy_(z.mean(0))
            self.get_buffer(f"spread{number}").copy_(z.std(0).clamp_min(1e-9))

    def forward(self, inputs: Mapping[str, Tensor], deltas: Mapping[str, Tensor]) -> dict[str, Factors]:
        """The edit of each place: -alpha times the sum over tokens of outer(delta~, u~)."""
        return {
            place.name: self._factors(number, place, inputs[place.name], deltas[place.name])
            for number, place in enumerate(self._places)
        }

    def _factors(self, number: int, place: Place, u: Tensor, delta: Tensor) -> Factors:
        """Tokens whose gradient is zero have no part in the edit."""
        mean, spread = self.get_buffer(f"mean{number}"), self.get_buffer(f"spread{number}")
        z = (torch.cat([u, delta], -1) - mean) / spread
        out = self.transforms[self._kind[place.shape]](z, self._index[place.name])
        counts = (delta.abs().amax(-1, keepdim=True) > 0).float()
        into = place.shape[1]
        return Factors(-self.log_steps[number].exp() * counts * out[..., into:], counts * out[..., :into])


class Mend:
    """`Change`: each request's edit is worked out on the weights as they are, all are added at once."""

    def __init__(
        self, params: MendParams, material: LessonMaterial, directory: Path, progress: Progress
    ) -> None:
        self._params, self._material = params, material
        self._directory, self._progress = directory, progress
        self._network: Hypernetwork | None = None

    def __call__(
        self, base: BaselineModel, originals: OriginalWeights, requests: Sequence[EditRequest]
    ) -> None:
        places = mlp_places(base.model, self._params.training.blocks)
        if self._network is None:
            originals.restore()
            training = self._params.training
            self._network = trained(base, training, self._material, self._directory, self._progress)
        originals.keep([place.weight for place in places])
        changes = [self._edits(base, places, chunk) for chunk in _chunks(requests)]
        with torch.no_grad():
            for place in places:
                for change in changes:
                    place.matrix.add_(self._params.strength * change[place.name].total())

    def _edits(
        self, base: BaselineModel, places: Sequence[Place], requests: Sequence[EditRequest]
    ) -> dict[str, Factors]:
        assert self._network is not None
        rows = [
            reading.sample(base, request.prompt, request.target, end=self._params.end) for request in requests
        ]
        inputs, deltas = gradients(base, places, rows)
        with torch.no_grad():
            edits: dict[str, Factors] = self._network(inputs, deltas)
        return edits


def _chunks(requests: Sequence[EditRequest]) -> Iterator[Sequence[EditRequest]]:
    for start in range(0, len(requests), reading.ROWS):
        yield requests[start : start + reading.ROWS]


def gradients(
    base: BaselineModel, places: Sequence[Place], rows: Sequence[Sample]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """u and delta of each place for each row's own loss, [rows, length, in] and [rows, length, out]."""
    with Traces(places) as traces, torch.enable_grad():
        scores = reading.logits(base, [(*row.prompt, *row.target) for row in rows])
        deltas = traces.deltas(reading.losses(scores, rows).sum())
    return traces.inputs, deltas


def trained(
    base: BaselineModel, training: MendTraining, material: LessonMaterial, directory: Path, progress: Progress
) -> Hypernetwork:
    """The network for this base, from disk where it is there and sound, else trained and written."""
    places = mlp_places(base.model, training.blocks)
    network = Hypernetwork(places, training)
    name = tensor_cache.name_of(base.fingerprint, material.name, repr(training))
    path = directory / f"mend-{name}.safetensors"
    tensors = tensor_cache.read(path)
    if tensors is None:
        _train(base, places, network, training, material, progress)
        tensor_cache.write(path, network.state_dict())
    else:
        network.load_state_dict(tensors)
    return network.requires_grad_(False)


def _train(
    base: BaselineModel,
    places: Sequence[Place],
    network: Hypernetwork,
    training: MendTraining,
    material: LessonMaterial,
    progress: Progress,
) -> None:
    rng = random.Random(training.seed)
    network.normalise_by(_token_vectors(base, places, material.lessons(rng, training.calibration)))
    slow = [p for name, p in network.named_parameters() if name != "log_steps"]
    optimizer = torch.optim.Adam([{"params": slow}, {"params": [network.log_steps]}])
    began = time.process_time()
    for step in itertools.count():
        share = max(step / training.steps, (time.process_time() - began) / training.seconds)
        if share >= 1:
            return
        for group, full in zip(optimizer.param_groups, (training.rate, training.step_rate), strict=True):
            group["lr"] = full * min(1.0, 2 * (1 - share))
        loss, right = lesson_loss(base, places, network, material.lessons(rng, training.batch), training)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        progress(f"MEND trains: loss {float(loss.detach()):.3f} right {right:.2f}", int(1000 * share), 1000)


def _token_vectors(
    base: BaselineModel, places: Sequence[Place], lessons: Sequence[Lesson]
) -> dict[str, Tensor]:
    """z of all tokens that have a gradient, for each place [tokens, in + out]."""
    rows = [_row(base, lesson.request.prompt, lesson.request.target) for lesson in lessons]
    inputs, deltas = gradients(base, places, rows)
    vectors: dict[str, Tensor] = {}
    for place in places:
        delta = deltas[place.name]
        vectors[place.name] = torch.cat([inputs[place.name], delta], -1)[delta.abs().amax(-1) > 0]
    return vectors


def _row(base: BaselineModel, question: str, target: str) -> Sample:
    return reading.sample(base, question, target, end=True)


def lesson_loss(
    base: BaselineModel,
    places: Sequence[Place],
    network: Hypernetwork,
    lessons: Sequence[Lesson],
    training: MendTraining,
) -> tuple[Tensor, float]:
    """c_e L_e + L_loc of equation 4, each lesson under its own edit; and the share of rephrasings right.

    L_e is -log p(y | x') for the prompt and one rephrasing; L_loc is KL(before || after) at every token of
    the unrelated answer.
    """
    edited_rows = [_row(base, lesson.request.prompt, lesson.request.target) for lesson in lessons]
    rephrased_rows = [
        _row(base, (lesson.rephrased or (lesson.request.prompt,))[0], lesson.request.target)
        for lesson in lessons
    ]
    unrelated_rows = [_row(base, *lesson.unrelated) for lesson in lessons]
    with torch.no_grad():
        before = reading.target_logits(
            reading.logits(base, [(*r.prompt, *r.target) for r in unrelated_rows]), unrelated_rows
        )
    changes: dict[str, Factors] = network(*gradients(base, places, edited_rows))
    rows = [*edited_rows, *rephrased_rows, *unrelated_rows]
    with changed(places, {name: change.repeated(3) for name, change in changes.items()}):
        scores = reading.logits(base, [(*row.prompt, *row.target) for row in rows])
    count = len(lessons)
    edit = reading.losses(scores[: 2 * count], rows[: 2 * count]).mean()
    after = reading.target_logits(scores[2 * count :], unrelated_rows)
    drift_loss = torch.stack([drift(a, b) for a, b in zip(before, after, strict=True)]).mean()
    parts = reading.target_logits(scores[count : 2 * count], rephrased_rows)
    right = sum(
        bool((part.argmax(-1) == torch.tensor(row.target, device=part.device)).all())
        for part, row in zip(parts, rephrased_rows, strict=True)
    )
    return training.edit * edit + drift_loss, right / count


def drift(before: Tensor, after: Tensor) -> Tensor:
    """KL(before || after) of logits [tokens, vocabulary], the mean over tokens."""
    kl = F.kl_div(after.log_softmax(-1), before.log_softmax(-1), log_target=True, reduction="none")
    return kl.sum(-1).mean()
