"""The baselines by name: how each is made, and with which hyperparameters unless others are given."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lte_runtime.errors import BadRequest
from lte_runtime.progress import Progress, silent
from lte_runtime.types import Encoder
from ops.lab.baselines.base import BaselineModel
from ops.lab.baselines.ft import Ft, FtParams
from ops.lab.baselines.ft_l import FtL, FtLParams
from ops.lab.baselines.ice import Ice, IceParams
from ops.lab.baselines.material import LessonMaterial
from ops.lab.baselines.memit import Memit, MemitParams
from ops.lab.baselines.mend import Mend, MendParams
from ops.lab.baselines.moments import Moments
from ops.lab.baselines.protocol import Editor
from ops.lab.baselines.rome import Rome, RomeParams
from ops.lab.baselines.serac import Serac, SeracParams
from ops.lab.baselines.weights import Change, WeightEditor


@dataclass(frozen=True, slots=True)
class Supplies:
    """What methods are made from. The model in `base` is changed by them: one editor at a time.

    What is learnt or counted before the first edit is kept in `directory`, by the hash of the base.
    """

    base: BaselineModel
    encoder: Encoder
    material: LessonMaterial
    directory: Path
    progress: Progress = silent

    @property
    def moments(self) -> Moments:
        """Key statistics over the material's texts."""
        return Moments(
            self.base,
            lambda: self.material.texts(self.base),
            source=self.material.name,
            directory=self.directory,
            progress=self.progress,
        )


@dataclass(frozen=True, slots=True)
class BaselineMethod:
    """`default` is a frozen dataclass; a search tries `dataclasses.replace(default, ...)`."""

    default: Any
    make: Callable[[Supplies, Any], Editor]


def _serac(supplies: Supplies, params: SeracParams) -> Editor:
    return Serac(
        supplies.base, params, supplies.encoder, supplies.material, supplies.directory, supplies.progress
    )


def _mend(supplies: Supplies, params: MendParams) -> Change:
    return Mend(params, supplies.material, supplies.directory, supplies.progress)


def _rome(supplies: Supplies, params: RomeParams) -> Change:
    return Rome(params, supplies.moments, supplies.progress)


def _memit(supplies: Supplies, params: MemitParams) -> Change:
    return Memit(params, supplies.moments, supplies.progress)


METHODS: Mapping[str, BaselineMethod] = {
    "serac": BaselineMethod(SeracParams(), _serac),
    "ice": BaselineMethod(IceParams(), lambda supplies, params: Ice(supplies.base, params, supplies.encoder)),
    "mend": BaselineMethod(
        MendParams(), lambda supplies, params: WeightEditor(supplies.base, _mend(supplies, params))
    ),
    "rome": BaselineMethod(
        RomeParams(), lambda supplies, params: WeightEditor(supplies.base, _rome(supplies, params))
    ),
    "memit": BaselineMethod(
        MemitParams(), lambda supplies, params: WeightEditor(supplies.base, _memit(supplies, params))
    ),
    "ft-l": BaselineMethod(FtLParams(), lambda supplies, params: WeightEditor(supplies.base, FtL(params))),
    "ft": BaselineMethod(FtParams(), lambda supplies, params: WeightEditor(supplies.base, Ft(params))),
}


def editor(name: str, supplies: Supplies, params: Any = None) -> Editor:
    """The method called `name`; raises `BadRequest` for unknown names and parameters of another method."""
    if name not in METHODS:
        raise BadRequest(f"there is no baseline {name}; there are {', '.join(METHODS)}")
    method = METHODS[name]
    if params is not None and type(params) is not type(method.default):
        raise BadRequest(f"{name} does not take {type(params).__name__}")
    return method.make(supplies, method.default if params is None else params)
