"""The scope gate: is a question about an edit at all? Pure decisions from signals and a fitted calibration.

What is asked of which view, a `Relevance` model tells (`lte_runtime/answer/relevance`); the gate weighs its
log-odds with a few signals that are no language. The likeliest path is decided on. `ops.lab.gate.calibrate`
fits the weights and measures the ROC; the committed default is for all-MiniLM-L6-v2.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np

from lte_runtime.answer.scope import logistic
from lte_runtime.errors import Damaged
from lte_runtime.types import GateDecision, Scope, ScopeMode

SIGNALS = (
    "asks",  # the model's log-odds that the question asks for what the path's view tells, a tenth of them
    "likeness",  # cosine of question and view, both without the subject's name
    "name",  # how surely the question names the subject: 1 by its own words, less when misspelt, 0 not at all
    "inside",  # the name goes on in the question (`Acme Labs` for `Acme`)
    "nameless",  # 1 when the fact has no name at all to look for
    "codes",  # of those: the question's digits are not the fact's
    "prompted",  # the fact was published as a prompt, so its view is a whole question
    "mentioned",  # the question already tells the target
    "hops",  # 0 for one fact, 1 and 2 for chains
)
EARLIER, BEYOND = "earlier", "beyond"
"""The model's log-odds, a tenth of them, that a value from before is asked for, or something else of what the
path describes: not weighed, each has a threshold of its own."""
ODDS_SCALE = 10.0


@dataclass(frozen=True, slots=True)
class GateCalibration:
    """How signals become a probability, and the probability from which a question is in scope.

    The log-odds are `bias` and the weighted sum of `weights`; `prompted_shift` is added for facts published
    as prompts, whose threshold is chosen apart. `earlier_from` and `beyond_from` are the model's
    probabilities from which a former value, or something of what the facts describe, is asked for. From
    `sure_from` on an answer must say the value (above 1: none must). Facts whose log-odds are less than
    `tie_margin` apart compete.

    `model` is the path of the relevance model, empty for shared words; in a calibration's file it is a
    name, of a file beside it or of the one that ships. `model_sha256` is its hash, `model_base` the
    fingerprint of the encoder that it was trained on. `roc` holds (false open rate, open rate) points of
    the test split; `data_sha256` names the data used.
    """

    encoder: str
    threshold: float
    weights: Mapping[str, float] = field(default_factory=dict)
    bias: float = 0.0
    prompted_shift: float = 0.0
    earlier_from: float = 0.7
    beyond_from: float = 0.7
    sure_from: float = 2.0
    tie_margin: float = 0.5
    model: str = ""
    model_sha256: str = ""
    model_base: str = ""
    roc: tuple[tuple[float, float], ...] = ()
    data_sha256: str = ""
    report: Mapping[str, float] = field(default_factory=dict)

    def probability(self, signals: Mapping[str, float]) -> float:
        """The probability that the path with these signals is what is asked for."""
        odds = self.bias + sum(weight * signals.get(name, 0.0) for name, weight in self.weights.items())
        return probability(odds + self.prompted_shift * signals.get("prompted", 0.0))

    def to_json(self) -> str:
        model = Path(self.model).name if self.model else ""
        return json.dumps({**asdict(self), "model": model}, indent=1, sort_keys=True) + "\n"


def load(path: Path) -> GateCalibration:
    """The calibration in `path`; `Damaged` when it is not one of this version's signals."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        raw["roc"] = tuple((float(x), float(y)) for x, y in raw["roc"])
        calibration = GateCalibration(**raw)
    except (ValueError, TypeError, KeyError) as error:
        raise Damaged(
            f"{path} is no gate calibration of this version, fit one with `lte gate calibrate`: {error}"
        ) from error
    if set(calibration.weights) - set(SIGNALS):
        raise Damaged(
            f"{path} weighs signals that this version does not have: fit it again with `lte gate calibrate`"
        )
    return (
        replace(calibration, model=_model_path(path, calibration.model)) if calibration.model else calibration
    )


def _model_path(calibration: Path, model: str) -> str:
    beside = calibration.with_name(model)
    return str(beside if beside.is_file() else DEFAULT.with_name(model))


DEFAULT = Path(__file__).with_name("gate_default.json")


def default_calibration() -> GateCalibration:
    """The committed calibration, for all-MiniLM-L6-v2."""
    return load(DEFAULT)


def lexical_calibration(encoder: str) -> GateCalibration:
    """For encoders without meaning (the stub): opens on the name and words of the relation."""
    weights = {"asks": 10.0, "name": 6.0, "nameless": 6.0, "mentioned": -6.0, "inside": -6.0}
    return GateCalibration(encoder, 0.5, weights, bias=-6.0)


def decide(
    signals: Mapping[str, float] | None, gate: GateCalibration, mode: ScopeMode, score: float | None = None
) -> GateDecision:
    """The gate's word on the best path; `signals` None means that nothing was found.

    `score` is the path's probability where more than its own signals speak for it.
    """
    if mode is ScopeMode.BASE:
        return GateDecision(Scope.BASE, 0.0, gate.threshold, "asked for the base model")
    if signals is None:
        return GateDecision(Scope.BASE, 0.0, gate.threshold, "no fact found")
    score = gate.probability(signals) if score is None else score
    sure = score >= gate.sure_from
    if mode is ScopeMode.EDITED:
        return GateDecision(Scope.EDITED, score, gate.threshold, "asked for edits", signals, sure)
    scope = Scope.EDITED if score >= gate.threshold else Scope.BASE
    return GateDecision(scope, score, gate.threshold, _reason(scope, signals), signals, sure)


def _reason(scope: Scope, signals: Mapping[str, float]) -> str:
    if scope is Scope.EDITED:
        return "the question asks for a stored fact"
    if signals.get("mentioned"):
        return "the question already names the answer"
    if signals.get("inside"):
        return "the name in the question is a longer one"
    unnamed = not signals.get("name") and not signals.get("nameless")
    return "the fact's subject is not named" if unnamed else "the question asks for something else"


def fit(
    rows: Sequence[Mapping[str, float]],
    labels: Sequence[bool],
    encoder: str,
    *,
    weights: Sequence[float] | None = None,
    ridge: float = 1.0,
) -> GateCalibration:
    """A calibration from weighted rows; equal arguments give equal ones.

    `labels` tell whether the path of a row answers its question; the threshold is left at 0.5.
    """
    x = np.array([[r.get(name, 0.0) for name in SIGNALS] for r in rows], dtype=np.float64)
    y = np.array(labels, dtype=np.float64)
    w = np.ones_like(y) if weights is None else np.array(weights, dtype=np.float64)
    bias, slopes = logistic.fit(x, y, w, ridge)
    fitted = {name: round(float(slope), 6) for name, slope in zip(SIGNALS, slopes, strict=True)}
    return GateCalibration(encoder, 0.5, fitted, round(float(bias), 6))


def probability(odds: float) -> float:
    """The probability of log-odds, which are kept within what a float can tell from 0 and 1."""
    return 1.0 / (1.0 + math.exp(-max(-40.0, min(40.0, odds))))


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
