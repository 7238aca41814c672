"""The configured model and its kit, for commands that work without a daemon."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from daemon.cli.options import Arch
    from daemon.settings import Settings
    from lte_runtime.answer.engine.protocol import Engine
    from lte_runtime.progress import Progress
    from ops.lab.evals.arms import Kit


def settings(config: Path | None, arch: Arch | None) -> Settings:
    """The configuration, with the model of an architecture where one is named."""
    from daemon.config import load
    from ops.models import model_settings

    return load(config, model_settings(arch) if arch else {}).settings


@contextmanager
def engine(settings: Settings) -> Iterator[Engine]:
    """The language model with its adapter, closed afterwards."""
    from daemon.parts import models

    loaded = models.engine(settings)
    try:
        yield loaded
    finally:
        loaded.close()


def kit(settings: Settings, cache: Path, train_data: Path | None, progress: Progress) -> Kit:
    """What methods of editing are compared with: the configured model in float32, encoder, gate, material."""
    from daemon.parts import models
    from ops.lab.baselines.base import BaselineModel
    from ops.lab.baselines.material import LessonMaterial
    from ops.lab.baselines.registry import Supplies
    from ops.lab.evals import arms

    base, adapter = BaselineModel.load(models.model_directory(settings)), models.adapter_directory(settings)
    encoder = models.encoder(settings)
    supplies = Supplies(base, encoder, LessonMaterial.load(train_data), cache, progress)
    adapted = None if adapter is None else arms.adapted(base, adapter)
    return arms.Kit(supplies, models.calibration(settings, encoder), adapted, adapter.name if adapter else "")
