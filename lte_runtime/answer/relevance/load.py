"""From a calibration to the relevance model that it names."""

from __future__ import annotations

from pathlib import Path

from lte_runtime.answer.relevance.cache import CachedRelevance
from lte_runtime.answer.relevance.lexical import LexicalRelevance
from lte_runtime.answer.relevance.protocol import Relevance
from lte_runtime.answer.scope.gate import GateCalibration


def relevance_of(calibration: GateCalibration) -> Relevance:
    """The model of the calibration, loaded once in a process; shared words where it names none.

    Raises `Damaged` where the model's file is not the one of the calibration.
    """
    if not calibration.model:
        return LexicalRelevance()
    from lte_runtime.answer.relevance.cross_encoder import load

    return CachedRelevance(load(Path(calibration.model), calibration.model_sha256, calibration.model_base))
