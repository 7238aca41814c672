"""The configured encoder, gate and model, for commands that work without a daemon."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from daemon.cli.options import Arch
    from daemon.settings import Settings
    from lte_runtime.answer.engine.protocol import Engine
    from lte_runtime.answer.scope.gate import GateCalibration
    from lte_runtime.progress import Progress
    from lte_runtime.types import Encoder
    from ops.lab.evals.arms import Kit


def settings(config: Path | None, arch: Arch | None) -> Settings:
    """The configuration, with the embedded model of an architecture where one is named."""
    from daemon.config import load
    from lte_runtime import embedded

    return load(config, {"model.path": embedded.ARCHITECTURES[arch]} if arch else {}).settings


def encoder(settings: Settings) -> Encoder:
    """The sentence encoder that the daemon would use."""
    from lte_runtime.answer.encoder import load_encoder

    chosen = settings.encoder
    return load_encoder(chosen.model, engine=chosen.engine, download=chosen.download)


def calibration(settings: Settings, encoder: Encoder) -> GateCalibration:
    """The gate that the daemon would use with this encoder."""
    from lte_runtime.answer.scope import gate

    chosen = settings.gate
    if chosen.calibration:
        loaded = gate.load(chosen.calibration)
    elif settings.encoder.model == "stub":
        loaded = gate.lexical_calibration(encoder.fingerprint)
    else:
        loaded = gate.default_calibration()
    return loaded if chosen.threshold is None else replace(loaded, threshold=chosen.threshold)


@contextmanager
def engine(settings: Settings) -> Iterator[Engine]:
    """The language model with its adapter, closed afterwards."""
    from daemon.build import load_engine

    loaded = load_engine(settings)
    try:
        yield loaded
    finally:
        loaded.close()


def kit(settings: Settings, cache: Path, train_data: Path | None, progress: Progress) -> Kit:
    """What methods of editing are compared with: the configured model in float32, encoder, gate, material."""
    from daemon.build import model_paths
    from ops.lab.baselines.base import BaselineModel
    from ops.lab.baselines.material import LessonMaterial
    from ops.lab.baselines.registry import Supplies
    from ops.lab.evals import arms

    model, adapter = model_paths(settings)
    base, sentence_encoder = BaselineModel.load(model), encoder(settings)
    supplies = Supplies(base, sentence_encoder, LessonMaterial.load(train_data), cache, progress)
    adapted = None if adapter is None else arms.adapted(base, adapter)
    return arms.Kit(
        supplies, calibration(settings, sentence_encoder), adapted, adapter.name if adapter else ""
    )
