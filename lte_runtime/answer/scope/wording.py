"""How a question's wording goes with a fact's view: a linear map learnt between the two.

Sentence encoders put "Who edits it?" far from "The chief editor of it", and "Who left it?" near to it.
The map is learnt from pairs by contrast (InfoNCE, van den Oord et al., 2018, arXiv 1807.03748): a question
without its subject belongs nearer to the view of the relation that it asks for than to the other views of a
batch, which are about things of the same kind, and questions that ask for something else stay away from the
near view. Learnt with torch, used with numpy alone.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from lte_runtime.answer.scope import logistic
from lte_runtime.types import Encoder, Vectors

Floats = npt.NDArray[np.float32]
Places = npt.NDArray[np.intp]

_Map = tuple[Floats, Floats, float, float]
"""Left, right, scale and shift."""

FEATURES = (
    "wording",  # log-odds that the question asks for the view, a tenth of them
    "wording_cosine",  # cosine of the mapped question and the view
    "wording_squared",
    "wording_margin",  # how much better the view fits than the best common relation of another kind
    "wording_share",  # log of the view's share among all common relations
    "opposite",  # how surely the question asks for an end, a refusal or a change
)

_OPPOSITE_SCALE, _OPPOSITE_RIDGE = 4.0, 4.0
_OTHER_RELATION = 0.75
"""Views less alike than this (cosine) are views of different relations."""

_CACHED_VECTORS = 256


@dataclass(frozen=True, slots=True)
class WordingPair:
    """A question and a view, both without the subject's name; `fits` tells whether one asks for the other.

    `opposite` marks questions that do not fit since they ask for an end, a refusal or a change. Pairs of one
    `kind` are about things of one kind, so that their questions are told apart from each other.
    """

    question: str
    view: str
    fits: bool
    weight: float = 1.0
    opposite: bool = False
    kind: str = ""


@dataclass(frozen=True, eq=False, slots=True)
class _Asked:
    """A question's vector after the map, its cosines with the cohort, and how it stands to opposites."""

    vector: Floats
    cohort: Floats
    against: float


@dataclass(frozen=True, eq=False)
class Wording:
    """The map as identity + left_factor @ right_factor ([dimension, rank], [rank, dimension]), and a cohort.

    A mapped question, scaled to unit length, fits a view with the log-odds `scale` * cosine + `shift`.
    `opposite` [dimension] and `offset` tell questions about an end, a refusal or a change from questions
    that ask for a fact as it is. `cohort` [n, dimension] are views of common relations: a question that fits
    one of them better asks for that one (the cohort normalisation of speaker verification).
    """

    left_factor: Floats
    right_factor: Floats
    scale: float
    shift: float
    cohort: Floats
    opposite: Floats
    offset: float

    def features(self, question: Vectors, view: Vectors) -> Mapping[str, float]:
        """What the gate sees of one question and one view, vectors of [dimension]."""
        mapped = self._cached_question(question.dtype.char, question.tobytes())
        fit = float(mapped.vector @ view)
        others = mapped.cohort[self._cached_others(view.dtype.char, view.tobytes())]
        best = float(others.max(initial=0.0))
        cohort_odds = self.scale * best + math.log(float(np.exp(self.scale * (others - best)).sum()) + 1e-9)
        share = -float(np.logaddexp(0.0, cohort_odds - self.scale * fit))
        odds = (self.scale * fit + self.shift) / 10
        values = (odds, fit, fit * abs(fit), fit - best, share, mapped.against)
        return dict(zip(FEATURES, values, strict=True))

    def rows(self, questions: Vectors, views: Vectors) -> list[Mapping[str, float]]:
        """The features of each question with the view beside it, both [n, dimension]."""
        return [self.features(q, v) for q, v in zip(questions, views, strict=True)]

    @cached_property
    def _cached_question(self) -> Callable[[str, bytes], _Asked]:
        """One question is compared with many views, and forms of questions come again."""
        return lru_cache(_CACHED_VECTORS)(self._map_question)

    @cached_property
    def _cached_others(self) -> Callable[[str, bytes], npt.NDArray[np.bool_]]:
        return lru_cache(_CACHED_VECTORS)(self._others)

    def _map_question(self, kind: str, data: bytes) -> _Asked:
        question = np.frombuffer(data, kind)
        moved = question + (question @ self.left_factor) @ self.right_factor
        vector = moved / max(float(np.linalg.norm(moved)), 1e-6)
        against = max(0.0, float(question @ self.opposite) + self.offset + 1.0)
        return _Asked(vector, self.cohort @ vector, against)

    def _others(self, kind: str, data: bytes) -> npt.NDArray[np.bool_]:
        """Which of the cohort are views of other relations."""
        return np.asarray(self.cohort @ np.frombuffer(data, kind) < _OTHER_RELATION)

    @cached_property
    def packed(self) -> Mapping[str, Any]:
        """For JSON: half floats in base64."""
        arrays = {"left": self.left_factor, "right": self.right_factor}
        arrays |= {"cohort": self.cohort, "opposite": self.opposite}
        numbers = {"scale": self.scale, "shift": self.shift, "offset": self.offset}
        packed = {name: _packed(array) for name, array in arrays.items()}
        return {"shape": list(self.left_factor.shape)} | numbers | packed


def unpacked(packed: Mapping[str, Any]) -> Wording:
    """Raises `ValueError` or `KeyError` when the arrays do not have the declared shape."""
    rows, rank = packed["shape"]
    return Wording(
        _unpacked(packed["left"]).reshape(rows, rank),
        _unpacked(packed["right"]).reshape(rank, rows),
        float(packed["scale"]),
        float(packed["shift"]),
        _unpacked(packed["cohort"]).reshape(-1, rows),
        _unpacked(packed["opposite"]).reshape(rows),
        float(packed["offset"]),
    )


def _packed(array: Floats) -> str:
    return base64.b64encode(array.astype("<f2").tobytes()).decode("ascii")


def _unpacked(text: str) -> Floats:
    return np.frombuffer(base64.b64decode(text, validate=True), dtype="<f2").astype(np.float32)


@dataclass(frozen=True, slots=True)
class Contrast:
    """How the map is learnt: `steps` of `batch` fitting questions and half as many that do not fit.

    The map is the mean of `maps` maps of rank `rank` that differ by seed alone: chance weighs less in it.
    """

    maps: int = 4
    rank: int = 64
    steps: int = 500
    batch: int = 256
    rate: float = 2e-3
    dropped: float = 0.25
    alike: float = 0.7
    seed: int = 0


def learn(
    pairs: Sequence[WordingPair], cohort: Sequence[str], encoder: Encoder, how: Contrast | None = None
) -> Wording:
    """The map that brings fitting questions to their view and keeps others away; equal arguments, equal maps.

    Views that are more `alike` than that (cosine) are not told apart.
    """
    views = list(dict.fromkeys(p.view for p in pairs))
    x = encoder.encode([p.question for p in pairs], query=True)
    v = encoder.encode(views)
    place = {view: i for i, view in enumerate(views)}
    of_view = np.array([place[p.view] for p in pairs])
    how = how or Contrast()
    maps = [_map(pairs, x, v, of_view, replace(how, seed=how.seed + i)) for i in range(how.maps)]
    return Wording(*_mean(maps), encoder.encode(cohort), *_opposite(pairs, x.astype(np.float64)))


def _mean(maps: Sequence[_Map]) -> _Map:
    """The mean of linear maps, as one of their joint rank."""
    lefts, rights, scales, shifts = zip(*maps, strict=True)
    count = len(maps)
    right: Floats = np.concatenate(rights).astype(np.float32) / np.float32(count)
    return np.concatenate(lefts, axis=1), right, sum(scales) / count, sum(shifts) / count


def _map(pairs: Sequence[WordingPair], x: Vectors, v: Vectors, of_view: Places, how: Contrast) -> _Map:
    """By Adam on `_loss`."""
    import torch

    draw = torch.Generator().manual_seed(how.seed)
    left_factor = (torch.randn(x.shape[1], how.rank, generator=draw) * 0.05).requires_grad_()
    right_factor = torch.zeros(how.rank, x.shape[1], requires_grad=True)
    line = torch.tensor([10.0, -5.0], requires_grad=True)
    optimizer = torch.optim.Adam([left_factor, right_factor, line], lr=how.rate)
    questions, views, alike = torch.from_numpy(x), torch.from_numpy(v), torch.from_numpy(v @ v.T > how.alike)

    def thinned(rows: Any) -> Any:
        return rows * (torch.rand(rows.shape, generator=draw) >= how.dropped) / (1.0 - how.dropped)

    for step, (fitting, others) in enumerate(_batches(pairs, how)):
        rows = np.concatenate([fitting, others])
        columns, column = np.unique(of_view[rows], return_inverse=True)
        mapped = thinned(questions[rows])
        mapped = torch.nn.functional.normalize(mapped + (mapped @ left_factor) @ right_factor, dim=-1)
        logits = line[0] * (mapped @ thinned(views[columns]).T) + line[1]
        near = alike[of_view[fitting]][:, columns]
        optimizer.param_groups[0]["lr"] = how.rate * (1.0 - step / how.steps)
        optimizer.zero_grad()
        _loss(logits, torch.from_numpy(column), near).backward()
        optimizer.step()
    scale, shift = line.detach().tolist()
    return left_factor.detach().numpy(), right_factor.detach().numpy(), scale, shift


def _loss(logits: Any, column: Any, near: Any) -> Any:
    """Contrast among the batch's views, and log-odds of right, nearest wrong and not fitting pairs.

    `logits` [n + m, views] of n fitting questions and m others, `column` [n + m] the view of each pair,
    `near` [n, views] the views that are too alike to the right one to be told apart.
    """
    from torch.nn import functional as F

    count = len(near)
    own = F.one_hot(column[:count], logits.shape[1]).bool()
    fitting = logits[:count].masked_fill(near & ~own, -1e4)
    right = fitting[own]
    nearest = fitting.masked_fill(own, -1e4).topk(min(3, logits.shape[1]), dim=1).values
    refused = logits[count:].gather(1, column[count:, None])
    loss = F.cross_entropy(fitting, column[:count]) + F.softplus(-right).mean()
    loss = loss + 0.3 * F.softplus(nearest).mean()
    return loss + 0.7 * F.softplus(refused).mean() if len(refused) else loss


def _batches(pairs: Sequence[WordingPair], how: Contrast) -> Iterator[tuple[Places, Places]]:
    """Places of fitting pairs, a third each of two kinds and a third of all, and of pairs that do not fit."""
    draw = np.random.default_rng(how.seed)
    fitting = np.array([i for i, p in enumerate(pairs) if p.fits])
    others = np.array([i for i, p in enumerate(pairs) if not p.fits], dtype=np.intp)
    weights = np.array([pairs[i].weight for i in fitting])
    kinds = sorted({p.kind for p in pairs if p.fits})
    members = {kind: np.array([i for i in fitting if pairs[i].kind == kind]) for kind in kinds}
    shares = np.array([min(len(members[kind]), 400) ** 0.7 for kind in kinds])
    third = how.batch // 3
    for _ in range(how.steps):
        chosen = [draw.permutation(members[kinds[k]])[:third] for k in _drawn(draw, shares, 2)]
        chosen.append(fitting[_drawn(draw, weights, min(third, int(np.count_nonzero(weights))))])
        yield np.concatenate(chosen), draw.permutation(others)[: how.batch // 2]


def _drawn(draw: np.random.Generator, weights: npt.NDArray[Any], count: int) -> Places:
    """`count` places without repeats (fewer where there are fewer), likelier by weight."""
    return draw.choice(len(weights), size=min(count, len(weights)), replace=False, p=weights / weights.sum())


def _opposite(pairs: Sequence[WordingPair], x: npt.NDArray[np.float64]) -> tuple[Floats, float]:
    """Direction and offset of a logistic regression: opposite questions against fitting ones."""
    rows = list({p.question: i for i, p in enumerate(pairs) if p.fits or p.opposite}.values())
    labels = np.array([float(pairs[i].opposite) for i in rows])
    weights = np.where(labels > 0, 1.0, 0.5)
    offset, slopes = logistic.fit(_OPPOSITE_SCALE * x[rows], labels, weights, _OPPOSITE_RIDGE)
    return (_OPPOSITE_SCALE * slopes).astype(np.float32), offset
