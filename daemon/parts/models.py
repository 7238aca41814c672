"""The models that the settings name: sentence encoder, scope gate, language model with its adapter."""

from __future__ import annotations

import atexit
import gc
from dataclasses import replace
from pathlib import Path

from daemon.settings import ModelSettings, Settings
from lte_runtime.answer.encoder import load_encoder
from lte_runtime.answer.engine.protocol import AdapterEngine
from lte_runtime.answer.scope import gate
from lte_runtime.answer.scope.gate import GateCalibration
from lte_runtime.errors import Refused
from lte_runtime.models.resolve import base_model, shipped_adapter
from lte_runtime.progress import Progress, silent
from lte_runtime.types import Encoder

# A driver of a GPU makes one of them: NVIDIA's, Windows' for Linux guests, AMD's.
GPU_DEVICES = ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd")


def is_stub(name: str) -> bool:
    """Whether an encoder or model is the one without weights, for trials: `stub`, or `stub:VARIANT`."""
    return name.partition(":")[0] == "stub"


def encoder(settings: Settings) -> Encoder:
    chosen = settings.encoder
    return load_encoder(chosen.model, engine=chosen.engine, download=chosen.download)


def calibration(settings: Settings, encoder: Encoder) -> GateCalibration:
    """The gate's calibration: the configured file, or the one that fits the encoder."""
    chosen = settings.gate
    if chosen.calibration:
        loaded = gate.load(chosen.calibration)
    elif is_stub(settings.encoder.model):
        loaded = gate.lexical_calibration(encoder.fingerprint)
    else:
        loaded = gate.default_calibration()
    return loaded if chosen.threshold is None else replace(loaded, threshold=chosen.threshold)


def engine(settings: Settings, *, with_adapter: bool = True, progress: Progress = silent) -> AdapterEngine:
    """The stub, or a causal model on the engine that the settings name; with its adapter or, for callers
    that load one themselves, without. `progress` is told of a conversion, which the first load of some
    models needs."""
    chosen = settings.model
    if is_stub(chosen.path):
        from lte_runtime.answer.engine.stub import StubEngine

        # `stub:0.1` takes a tenth of a second for each token, so that load can be tried.
        token_s = float(chosen.path.partition(":")[2] or 0)
        return StubEngine(max_batch=chosen.max_batch, queue_limit=chosen.queue_limit, token_s=token_s)
    adapter = adapter_directory(settings) if with_adapter else None
    directory = model_directory(settings, progress)
    load = _openvino if runs_on_openvino(chosen, directory) else _transformers
    loaded = (_vllm if chosen.engine == "vllm" else load)(chosen, directory, adapter)
    # What loading made stays as long as the process: a full pass of the collector over it would stop every
    # thread for a quarter of a second, whoever is being answered.
    gc.collect()
    gc.freeze()
    atexit.register(gc.unfreeze)
    return loaded


def runs_on_openvino(chosen: ModelSettings, directory: Path) -> bool:
    """Whether OpenVINO computes the model in `directory`: where the settings name it, and by `auto` where it
    reads the model and there is no GPU. Raises `Refused` where other settings contradict the engine."""
    if chosen.engine == "vllm" and chosen.adapter_mode == "merged":
        raise Refused("model.engine = 'vllm' keeps adapters unmerged: set model.adapter_mode = 'auto'")
    contradiction = None
    if chosen.device == "cuda":
        contradiction = "runs on the CPU: set model.device = 'cpu'"
    elif chosen.adapter_mode == "unmerged":
        contradiction = "merges adapters: set model.adapter_mode = 'auto'"
    if chosen.engine == "openvino":
        if contradiction:
            raise Refused(f"model.engine = 'openvino' {contradiction}")
        return True
    if chosen.engine == "auto" and contradiction is None and chosen.dtype in ("auto", "int8"):
        from lte_runtime.answer.engine.openvino_engine import reads

        if (chosen.device == "cpu" or not _has_gpu()) and reads(directory):
            return True
    if chosen.dtype == "int8":
        raise Refused("model.dtype = 'int8' needs model.engine = 'openvino'")
    return False


def _has_gpu() -> bool:
    """Without torch where no driver is: it takes seconds and much memory to load."""
    if not any(Path(device).exists() for device in GPU_DEVICES):
        return False
    import torch

    return torch.cuda.is_available()


def planned_runtime(settings: Settings, directory: Path) -> str:
    """What `Engine.runtime` will be for the model in `directory`, as far as a job needs to know before
    anything is loaded."""
    chosen = settings.model
    if is_stub(chosen.path) or not runs_on_openvino(chosen, directory):
        return "vllm" if chosen.engine == "vllm" else "transformers"
    return f"openvino/{'int8' if chosen.dtype == 'auto' else chosen.dtype}"


def training_dtype(settings: Settings) -> str:
    """The dtype of a job, which computes with torch whatever engine serves."""
    return "auto" if settings.model.dtype == "int8" else settings.model.dtype


def _openvino(chosen: ModelSettings, directory: Path, adapter: Path | None) -> AdapterEngine:
    from lte_runtime.answer.engine.openvino_engine import OpenVinoEngine

    return OpenVinoEngine.load(
        directory,
        adapter,
        weights=chosen.dtype,
        max_batch=chosen.max_batch,
        queue_limit=chosen.queue_limit,
        max_prompt_tokens=chosen.max_prompt_tokens,
        threads=chosen.threads,
    )


def _transformers(chosen: ModelSettings, directory: Path, adapter: Path | None) -> AdapterEngine:
    from lte_runtime.answer.engine.hf import HfEngine

    return HfEngine.load(
        directory,
        adapter,
        device=chosen.device,
        dtype=chosen.dtype,
        adapter_mode=chosen.adapter_mode,
        max_batch=chosen.max_batch,
        queue_limit=chosen.queue_limit,
        max_prompt_tokens=chosen.max_prompt_tokens,
        threads=chosen.threads,
    )


def _vllm(chosen: ModelSettings, directory: Path, adapter: Path | None) -> AdapterEngine:
    from lte_runtime.answer.engine.vllm.engine import VllmEngine

    try:
        token = chosen.url_token_file.read_text("utf-8").strip() if chosen.url_token_file else ""
    except (OSError, UnicodeError) as error:
        raise Refused(f"model.url_token_file cannot be read: {error}") from error
    return VllmEngine.load(
        directory,
        adapter,
        urls=chosen.urls,
        token=token,
        max_batch=chosen.max_batch,
        queue_limit=chosen.queue_limit,
        max_prompt_tokens=chosen.max_prompt_tokens,
    )


def adapter_directory(settings: Settings) -> Path | None:
    """The directory of the adapter that the settings name; None for none, and where none ships."""
    chosen = settings.model
    if chosen.adapter == "embedded":
        # It belongs to one model of the catalogue; another model starts without one.
        return shipped_adapter(chosen.path)
    return None if chosen.adapter == "none" else Path(chosen.adapter)


def model_directory(settings: Settings, progress: Progress = silent) -> Path:
    """The directory of the base model, converted now if need be; raises `Refused` for the stub, which has
    none."""
    chosen = settings.model
    if is_stub(chosen.path):
        raise Refused("the stub has no weights to edit: configure a model")
    from lte_runtime.answer.engine.files import resolve

    return resolve(base_model(chosen.path, chosen.cache, progress), allow_download=chosen.download)
