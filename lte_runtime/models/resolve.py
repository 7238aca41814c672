"""From `model.path` to a directory in transformers' layout, and to the adapter that ships for it."""

from __future__ import annotations

from pathlib import Path

from lte_runtime import embedded
from lte_runtime.errors import Refused
from lte_runtime.models.cache import GgufSource, ModelCache
from lte_runtime.models.catalogue import CATALOGUE
from lte_runtime.models.locate import digest, sound_gguf, source_of
from lte_runtime.progress import Progress, silent

_SHIPPED_ADAPTERS = Path(embedded.__file__).parent
# Names that earlier versions had for small models of their own.
_FORMER = ("embedded", "embedded-qwen2")


def base_model(path: str, cache: Path | None = None, progress: Progress = silent) -> str:
    """The directory of a catalogue model or of a .gguf file; a directory or hub id as it is.

    The file is converted into `cache` (None: the default place) unless that was done before. Raises
    `Refused` or `Damaged` with what to do.
    """
    check_name(path)
    return str(converted(path, cache, progress)) if is_gguf(path) else path


def check_name(path: str) -> None:
    """Raises `Refused` for the name of a model that no longer ships."""
    if path in _FORMER:
        raise Refused(
            f"model.path = {path!r} named a small model that no longer ships: set model.path to smollm2, a "
            "directory, a .gguf file or a hub id"
        )


def is_gguf(path: str) -> bool:
    """Whether `model.path` means a file that has to be converted."""
    return path in CATALOGUE or (path.endswith(".gguf") and not Path(path).is_dir())


def converted(path: str, cache: Path | None = None, progress: Progress = silent) -> Path:
    """The folder of a converted catalogue model or .gguf file; raises as `base_model`."""
    model_cache = ModelCache.at(cache)
    return model_cache.convert(source(path), lambda: gguf(path, model_cache), progress)


def source(path: str) -> GgufSource:
    """What a catalogue model or a .gguf file is converted from; reads the whole file."""
    return (
        source_of(CATALOGUE[path]) if path in CATALOGUE else GgufSource(Path(path).name, digest(Path(path)))
    )


def gguf(path: str, cache: ModelCache) -> Path:
    """The file itself; raises `Refused` or `Damaged` where none with the right hash is on this machine."""
    return sound_gguf(CATALOGUE[path], cache) if path in CATALOGUE else Path(path)


def shipped_adapter(path: str) -> Path | None:
    """The adapter that ships for the model of `model.path`; None for models that have none."""
    adapter = _SHIPPED_ADAPTERS / path / "adapters" / "align-000001"
    return adapter if path in CATALOGUE and adapter.is_dir() else None
