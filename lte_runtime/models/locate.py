"""Where the GGUF file of a catalogue model lies: with its installed package, or fetched into the cache."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from lte_runtime.disk import sha256_file
from lte_runtime.errors import Damaged, Refused
from lte_runtime.models.cache import GgufSource, ModelCache
from lte_runtime.models.catalogue import CatalogueModel


@dataclass(frozen=True, slots=True)
class GgufFile:
    """A file that is there, its hash not yet checked."""

    path: Path
    origin: Literal["package", "fetched", "file"]


def source_of(model: CatalogueModel) -> GgufSource:
    return GgufSource(model.file_name, model.gguf_sha256, model.weights_sha256)


def gguf_files(model: CatalogueModel, cache: ModelCache) -> Iterator[GgufFile]:
    """All copies of the file, the installed package's first. Nothing of the package is imported."""
    installed = _installed(model)
    if installed:
        yield GgufFile(installed, "package")
    fetched = cache.gguf(source_of(model))
    if fetched.is_file():
        yield GgufFile(fetched, "fetched")


def sound_gguf(model: CatalogueModel, cache: ModelCache) -> Path:
    """A copy whose hash is right. Raises `Damaged` when only wrong ones are there, `Refused` for none."""
    wrong = []
    for file in gguf_files(model, cache):
        if digest(file.path) == model.gguf_sha256:
            return file.path
        wrong.append(str(file.path))
    if wrong:
        raise Damaged(
            f"{', '.join(wrong)} is not the file of {model.requirement} (wrong SHA-256): "
            f"`lte model fetch {model.name}` brings the right one"
        )
    raise Refused(
        f"model {model.name} is not on this machine: `lte model fetch {model.name}` brings it "
        f"({model.gguf_bytes / 1e6:.0f} MB), or set model.path to a directory, a .gguf file or a hub id"
    )


def has_sound_gguf(model: CatalogueModel, cache: ModelCache) -> bool:
    """Whether a copy with the right hash is here."""
    return any(digest(file.path) == model.gguf_sha256 for file in gguf_files(model, cache))


def digest(file: Path) -> str:
    """SHA-256 of a model file; raises `Refused` when it cannot be read."""
    try:
        return sha256_file(file)
    except OSError as error:
        raise Refused(f"model file {file} cannot be read: {error.strerror}") from error


def _installed(model: CatalogueModel) -> Path | None:
    try:
        files = metadata.distribution(model.distribution).files or ()
    except metadata.PackageNotFoundError:
        return None
    paths = (Path(str(file.locate())) for file in files if file.as_posix() == model.member)
    return next((path for path in paths if path.is_file()), None)
