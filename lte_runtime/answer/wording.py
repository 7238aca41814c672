"""How questions are worded and how relations are called: a linear map learnt between the two.

Sentence encoders put "Who edits it?" far from "The chief editor of it", and "Who left it?" near to it.
The map takes the vector of a question without its subject to where the view of the relation that it asks
for should be: ridge regression in closed form, drawn towards the identity; questions that ask for
something else are sent to where they have nothing of the near view. Pure.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from lte_runtime.answer import logistic
from lte_runtime.types import Encoder, Vectors

Floats = npt.NDArray[np.float64]

FEATURES = ("wording", "wording_squared", "wording_cosine", "wording_length", "wording_margin", "opposite")

_OPPOSITE_SCALE, _OPPOSITE_RIDGE = 4.0, 4.0
_OTHER_RELATION = 0.75
"""Views less alike than this (cosine) are views of different relations."""


_KEPT = 256


@dataclass(frozen=True, slots=True)
class Pair:
    """A question and a view, both without the subject's name; `fits` tells whether one asks for the other.

    `opposite` marks questions that do not fit since they ask for an end, a refusal or a change.
    """

    question: str
    view: str
    fits: bool
    weight: float = 1.0
    opposite: bool = False


@dataclass(frozen=True, eq=False, slots=True)
class _Asked:
    """A question's vector after the map, its length, and how it stands to the cohort and to opposites."""

    vector: Floats
    length: float
    cohort: Floats
    against: float


@dataclass(frozen=True, eq=False)
class Wording:
    """The map as identity + left @ right (both [dimension, rank], right transposed), and a cohort.

    `opposite` [dimension] and `offset` tell questions about an end, a refusal or a change from questions
    that ask for a fact as it is. `cohort` [n, dimension] are views of common relations: a question that fits
    one of them better asks for that one (the cohort normalisation of speaker verification).
    """

    left: Floats
    right: Floats
    cohort: Floats
    opposite: Floats
    offset: float

    def features(self, question: Vectors, view: Vectors) -> Mapping[str, float]:
        """What the gate sees of one question and one view, vectors of [dimension]."""
        asked = self._kept_asked(question.dtype.char, question.tobytes())
        fit = float(asked.vector @ view)
        others = asked.cohort[self._kept_others(view.dtype.char, view.tobytes())]
        margin = fit - float(others.max(initial=0.0))
        values = (fit, fit * abs(fit), fit / max(asked.length, 1e-6), asked.length, margin, asked.against)
        return dict(zip(FEATURES, values, strict=True))

    @cached_property
    def _kept_asked(self) -> Callable[[str, bytes], _Asked]:
        """One question is compared with many views, and forms of questions come again."""
        return lru_cache(_KEPT)(self._asked)

    @cached_property
    def _kept_others(self) -> Callable[[str, bytes], npt.NDArray[np.bool_]]:
        return lru_cache(_KEPT)(self._others)

    def _asked(self, kind: str, data: bytes) -> _Asked:
        question = np.frombuffer(data, kind)
        vector = question + (question @ self.left) @ self.right
        return _Asked(vector, float(np.linalg.norm(vector)), self.cohort @ vector, self.against(question))

    def _others(self, kind: str, data: bytes) -> npt.NDArray[np.bool_]:
        """Which of the cohort are views of other relations."""
        return np.asarray(self.cohort @ np.frombuffer(data, kind) < _OTHER_RELATION)

    def against(self, question: Vectors) -> float:
        """How surely a question asks for the opposite: log-odds above -1, else 0."""
        return max(0.0, float(question @ self.opposite) + self.offset + 1.0)

    @cached_property
    def packed(self) -> Mapping[str, Any]:
        """For JSON: half floats in base64."""
        arrays = {"left": self.left, "right": self.right, "cohort": self.cohort, "opposite": self.opposite}
        return {"shape": list(self.left.shape), "offset": self.offset} | {
            name: _packed(a) for name, a in arrays.items()
        }


def unpacked(packed: Mapping[str, Any]) -> Wording:
    """Raises `ValueError` or `KeyError` when the arrays do not have the shape that is told."""
    rows, rank = packed["shape"]
    left = _unpacked(packed["left"]).reshape(rows, rank)
    right = _unpacked(packed["right"]).reshape(rank, rows)
    cohort = _unpacked(packed["cohort"]).reshape(-1, rows)
    opposite = _unpacked(packed["opposite"]).reshape(rows)
    return Wording(left, right, cohort, opposite, float(packed["offset"]))


def _packed(array: Floats) -> str:
    return base64.b64encode(array.astype("<f2").tobytes()).decode("ascii")


def _unpacked(text: str) -> Floats:
    return np.frombuffer(base64.b64decode(text, validate=True), dtype="<f2").astype(np.float64)


def learn(
    pairs: Sequence[Pair], cohort: Sequence[str], encoder: Encoder, *, ridge: float = 0.3, rank: int = 128
) -> Wording:
    """The map that brings fitting questions to their view, and takes the view out of those that do not fit.

    Closed form: with residuals R = wanted - X, the map is I + (X'WX + ridge I)^-1 X'WR, cut to `rank` by SVD.
    """
    x = encoder.encode([p.question for p in pairs], query=True).astype(np.float64)
    v = encoder.encode([p.view for p in pairs]).astype(np.float64)
    w = np.array([p.weight for p in pairs])[:, None]
    fits = np.array([p.fits for p in pairs])[:, None]
    residual = np.where(fits, v - x, -(x * v).sum(axis=1, keepdims=True) * v)
    change = np.linalg.solve((x * w).T @ x + ridge * np.eye(x.shape[1]), (x * w).T @ residual)
    u, s, vt = np.linalg.svd(change)
    k = min(rank, len(s))
    known = encoder.encode(cohort).astype(np.float64)
    return Wording(u[:, :k] * s[:k], vt[:k], known, *_opposite(pairs, x))


def _opposite(pairs: Sequence[Pair], x: Floats) -> tuple[Floats, float]:
    """Direction and offset of a logistic regression: opposite questions against fitting ones."""
    rows = list({p.question: i for i, p in enumerate(pairs) if p.fits or p.opposite}.values())
    labels = np.array([float(pairs[i].opposite) for i in rows])
    weights = np.where(labels > 0, 1.0, 0.5)
    offset, slopes = logistic.fit(_OPPOSITE_SCALE * x[rows], labels, weights, _OPPOSITE_RIDGE)
    return _OPPOSITE_SCALE * slopes, offset
