"""The scope gate: is a question about an edit at all? Pure decisions from features and a fitted calibration.

A committee of small networks over the features of one path of facts; the likeliest path is decided on.
`ops.lab.gate.calibrate` fits it and measures its ROC; the committed default is for all-MiniLM-L6-v2.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np

from lte_runtime.answer.scope import committee
from lte_runtime.answer.scope.committee import Committee
from lte_runtime.answer.scope.features import KINDS
from lte_runtime.answer.scope.wording import FEATURES as WORDING_FEATURES
from lte_runtime.answer.scope.wording import Wording, unpacked
from lte_runtime.errors import Damaged
from lte_runtime.types import GateDecision, Scope, ScopeMode, Vectors

FEATURES = (
    "likeness",  # cosine of question and view, both without the subject's name
    "likeness_squared",
    "named_likeness",  # likeness where a name was found, else 0
    "dense",  # cosine of the whole question and the whole view
    "name",  # 1 the name's words, less when misspelt, 0 not found
    "nameless",  # 1 when the fact has no name at all to look for
    "codes",  # without the name: the question's digits are not the fact's
    "prompted",  # the fact was published as a prompt, so its view is a whole question
    "prompted_dense",  # dense above 0.8, for those
    "extended",  # the name goes on in the question
    "foreign",  # share of proper names in the question that the fact does not know
    "negation",  # only one of question and view is negated
    "shift",  # words of time or rank in one of them only
    "mentioned",  # the question already tells the target
    "kind_clash",  # asks for a number and the target is none, or the reverse
    "shared",  # share of the view's words that the question repeats
    "swapped",  # the same sentence but for a word of the view
    "rival",  # likeness of the best other fact of the same subject, minus this one's
    "hops",  # 0 for one fact, 1 and 2 for chains
    "gain",  # how much better the whole chain fits than the best part of it
    "outdone",  # the gain of the best longer chain that begins with this path
    *KINDS,  # what is asked for and the target's shape, one of them 1
    *WORDING_FEATURES,  # how the question's wording goes with the view, by a map learnt from pairs
)

TURNED = "turned"
"""Not weighed but final: a verb has the subject for its agent in one of question and view, for its patient in
the other. `X follows` and `X is followed by` share all their words, and no likeness tells them apart."""


@dataclass(frozen=True, slots=True)
class GateCalibration:
    """How features become a probability, and the probability from which a question is in scope.

    The log-odds are those of `committee` (on `features`, in that order), or without one the weighted sum of
    `weights`. `prompted_shift` is added for facts published as prompts, whose threshold is chosen apart.
    `roc` holds (false open rate, open rate) points of the test split; `data_sha256` names the data used.
    """

    encoder: str
    threshold: float
    weights: Mapping[str, float] = field(default_factory=dict)
    bias: float = 0.0
    committee: Committee | None = None
    features: tuple[str, ...] = ()
    prompted_shift: float = 0.0
    hop_margin: float = 0.02
    tie_margin: float = 0.05
    wording: Wording | None = None
    roc: tuple[tuple[float, float], ...] = ()
    data_sha256: str = ""
    report: Mapping[str, float] = field(default_factory=dict)

    def wording_features(self, question: Vectors, view: Vectors) -> Mapping[str, float]:
        """Empty when no map was learnt."""
        return self.wording.features(question, view) if self.wording else {}

    def wording_rows(self, questions: Vectors, views: Vectors) -> list[Mapping[str, float]]:
        """The same for each question [n, dimension] with the view [n, dimension] beside it."""
        return self.wording.rows(questions, views) if self.wording else [{} for _ in questions]

    def probability(self, features: Mapping[str, float]) -> float:
        return self.probabilities([features])[0]

    def probabilities(self, rows: Sequence[Mapping[str, float]]) -> list[float]:
        """The probability of each row of features."""
        shifts = (self.prompted_shift * row.get("prompted", 0.0) for row in rows)
        odds = (z + shift for z, shift in zip(self._log_odds(rows), shifts, strict=True))
        probabilities = [1.0 / (1.0 + math.exp(-max(-40.0, min(40.0, z)))) for z in odds]
        return [0.0 if row.get(TURNED) else p for p, row in zip(probabilities, rows, strict=True)]

    def _log_odds(self, rows: Sequence[Mapping[str, float]]) -> Sequence[float]:
        if self.committee is None:
            return [self.bias + sum(w * r.get(name, 0.0) for name, w in self.weights.items()) for r in rows]
        table = [[row.get(name, 0.0) for name in self.features] for row in rows]
        return self.committee.log_odds(np.array(table, np.float32)).tolist() if table else []

    def to_json(self) -> str:
        flat = asdict(replace(self, wording=None, committee=None))
        flat["wording"] = self.wording.packed if self.wording else None
        flat["committee"] = self.committee.packed if self.committee else None
        return json.dumps(flat, indent=1, sort_keys=True) + "\n"


def load(path: Path) -> GateCalibration:
    """The calibration in `path`; `Damaged` when it is not one of this version's features."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        raw["roc"] = tuple((float(x), float(y)) for x, y in raw["roc"])
        raw["wording"] = unpacked(raw["wording"]) if raw.get("wording") else None
        raw["committee"] = committee.unpacked(raw["committee"]) if raw.get("committee") else None
        raw["features"] = tuple(raw["features"])
        calibration = GateCalibration(**raw)
    except (ValueError, TypeError, KeyError) as error:
        raise Damaged(f"{path} is not a gate calibration: {error}") from error
    if {*calibration.weights, *calibration.features} - set(FEATURES):
        raise Damaged(
            f"{path} weighs features that this version does not have: fit it again with `lte gate calibrate`"
        )
    return calibration


def default_calibration() -> GateCalibration:
    """The committed calibration, for all-MiniLM-L6-v2."""
    return load(Path(__file__).with_name("gate_default.json"))


def lexical_calibration(encoder: str) -> GateCalibration:
    """For encoders without meaning (the stub): opens on the name and words of the relation."""
    weights = {"name": 6.0, "nameless": 3.0, "shared": 6.0, "dense": 4.0, "gain": 6.0}
    weights |= {"mentioned": -6.0, "negation": -6.0, "extended": -4.0}
    return GateCalibration(encoder, 0.5, weights, bias=-9.5)


def decide(
    features: Mapping[str, float] | None, gate: GateCalibration, mode: ScopeMode, score: float | None = None
) -> GateDecision:
    """The gate's word on the best path; `features` None means that nothing was found.

    `score` is the path's probability where more than its own features speak for it.
    """
    if mode is ScopeMode.BASE:
        return GateDecision(Scope.BASE, 0.0, gate.threshold, "asked for the base model")
    if features is None:
        return GateDecision(Scope.BASE, 0.0, gate.threshold, "no fact found")
    score = gate.probability(features) if score is None else score
    if mode is ScopeMode.EDITED:
        return GateDecision(Scope.EDITED, score, gate.threshold, "asked for edits", features)
    scope = Scope.EDITED if score >= gate.threshold else Scope.BASE
    return GateDecision(scope, score, gate.threshold, _reason(scope, features), features)


def _reason(scope: Scope, features: Mapping[str, float]) -> str:
    if scope is Scope.EDITED:
        return "the question asks for a stored fact"
    for name, text in (
        ("negation", "the question asks for the opposite"),
        (TURNED, "the question asks for the opposite"),
        ("mentioned", "the question already names the answer"),
        ("extended", "the name in the question is a longer one"),
        ("kind_clash", "the question wants another kind of answer"),
    ):
        if features.get(name, 0.0) >= 1.0:
            return text
    unnamed = features.get("name", 0.0) == 0.0 and features.get("nameless", 0.0) == 0.0
    return "the fact's subject is not named" if unnamed else "the question asks for something else"


def fit(
    rows: Sequence[Mapping[str, float]],
    labels: Sequence[bool],
    encoder: str,
    *,
    weights: Sequence[float] | None = None,
) -> GateCalibration:
    """A calibration from weighted rows; equal arguments give equal ones.

    `labels` tell whether the path of a row answers its question; the threshold is left at 0.5.
    """
    x = np.array([[r.get(name, 0.0) for name in FEATURES] for r in rows], dtype=np.float64)
    y = np.array(labels, dtype=np.float64)
    w = np.ones_like(y) if weights is None else np.array(weights, dtype=np.float64)
    return GateCalibration(encoder, 0.5, committee=committee.fit(x, y, w), features=FEATURES)


def logit(probability: float) -> float:
    """Log-odds, kept finite."""
    p = min(max(probability, 1e-9), 1.0 - 1e-9)
    return math.log(p / (1.0 - p))


def threshold_for(best: Sequence[float], labels: Sequence[bool], *, closed_at_least: float) -> float:
    """The lowest threshold that keeps `closed_at_least` of the out-of-scope questions closed."""
    outs = np.sort([s for s, inside in zip(best, labels, strict=True) if not inside])
    if len(outs) == 0:
        return 0.5
    allowed = math.floor((1 - closed_at_least) * len(outs) + 1e-9)
    return float(np.nextafter(outs[len(outs) - 1 - allowed], 1.0))


def roc(best: Sequence[float], labels: Sequence[bool], points: int = 41) -> tuple[tuple[float, float], ...]:
    """(share of out-of-scope questions opened, share of in-scope questions opened) over all thresholds."""
    s, y = np.array(best), np.array(labels, dtype=bool)
    cuts = np.quantile(s, np.linspace(1, 0, points))
    return tuple((round(float((s[~y] >= c).mean()), 4), round(float((s[y] >= c).mean()), 4)) for c in cuts)
