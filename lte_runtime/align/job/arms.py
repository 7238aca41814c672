"""What answers probes: the base model, and adapters on it, by the engine that will serve them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import torch

from lte_runtime.answer.engine import lora
from lte_runtime.answer.engine.files import verify_adapter
from lte_runtime.answer.engine.greedy import Session
from lte_runtime.answer.engine.torch_session import TorchSession

log = logging.getLogger(__name__)
NewSession = Callable[[], Session]


class Arms(Protocol):
    """One thread at a time, one arm at a time."""

    @property
    def runtime(self) -> str:
        """As `protocol.Engine.runtime`."""
        ...

    def base(self) -> NewSession: ...

    def adapter(self, folder: Path) -> AbstractContextManager[NewSession]:
        """Verified first; raises as `verify_adapter`."""
        ...


class TorchArms:
    """Adapters are kept beside the weights, never merged."""

    def __init__(self, model: Any, device: torch.device, fingerprint: str) -> None:
        self._model, self._device, self._fingerprint = model, device, fingerprint

    @property
    def runtime(self) -> str:
        return f"transformers/{str(self._model.dtype).removeprefix('torch.')}"

    def base(self) -> NewSession:
        return partial(TorchSession, self._model, self._model.config, self._device)

    @contextmanager
    def adapter(self, folder: Path) -> Iterator[NewSession]:
        verified = verify_adapter(folder, self._fingerprint)
        pairs = lora.read_pairs(verified, self._model)
        beside = lora.Unmerged(self._model)
        beside.reach(pairs)
        forward = partial(beside.forward, beside.halves(pairs, verified.scale))
        try:
            yield partial(TorchSession, forward, self._model.config, self._device)
        finally:
            beside.close()


class OpenVinoArms:
    """The graphs that serve, with their rounded weights."""

    def __init__(self, directory: Path, weights: str, fingerprint: str, threads: int = 0) -> None:
        from lte_runtime.answer.engine.openvino_engine import OpenVinoModel

        self._model = OpenVinoModel.read(directory, weights, threads)
        self._weights, self._fingerprint = weights, fingerprint

    @property
    def runtime(self) -> str:
        return f"openvino/{self._weights}"

    def base(self) -> NewSession:
        return partial(self._model.session, self._model.base, 0)

    @contextmanager
    def adapter(self, folder: Path) -> Iterator[NewSession]:
        version = self._model.load(verify_adapter(folder, self._fingerprint))
        yield partial(self._model.session, version, 0)


def serving_arms(
    runtime: str, directory: Path, model: Any, device: torch.device, fingerprint: str, threads: int = 0
) -> Arms:
    """By the engine of a runtime where this host has it, else by torch: a job may run elsewhere."""
    engine, _, weights = runtime.partition("/")
    if engine != "openvino":
        return TorchArms(model, device, fingerprint)
    if find_spec("openvino") is None:
        log.warning("this host has no OpenVINO: probes are judged by transformers, not by %s", runtime)
        return TorchArms(model, device, fingerprint)
    return OpenVinoArms(directory, weights, fingerprint, threads)
