"""What models are on this machine, and in which state. Looks at names, sizes and manifests."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lte_runtime import sealed
from lte_runtime.errors import Damaged
from lte_runtime.models.cache import ModelCache
from lte_runtime.models.catalogue import CATALOGUE, CatalogueModel
from lte_runtime.models.locate import digest, gguf_files, source_of
from lte_runtime.models.resolve import shipped_adapter


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """A model by the name or path that `model.path` takes.

    `origin` is package, fetched, file or absent. `bytes` and `sha256` are those of the GGUF file that it
    comes from. `converted` is its directory in transformers' layout, None before the conversion.
    """

    name: str
    origin: str
    path: str | None
    bytes: int
    sha256: str
    converted: str | None
    adapter: str | None


def inventory(cache: ModelCache) -> list[ModelEntry]:
    """All catalogue models, here or not; all converted .gguf files."""
    return [
        *(_of_catalogue(model, cache) for model in CATALOGUE.values()),
        *_other_files(cache),
    ]


def _of_catalogue(model: CatalogueModel, cache: ModelCache) -> ModelEntry:
    file = next(gguf_files(model, cache), None)
    folder = cache.folder(source_of(model))
    return ModelEntry(
        name=model.name,
        origin=file.origin if file else "absent",
        path=str(file.path) if file else None,
        bytes=model.gguf_bytes,
        sha256=model.gguf_sha256,
        converted=str(folder) if folder in dict(cache.folders()) else None,
        adapter=_text(shipped_adapter(model.name)),
    )


def _other_files(cache: ModelCache) -> Iterator[ModelEntry]:
    catalogue_folders = {cache.folder(source_of(model)) for model in CATALOGUE.values()}
    for folder, about in cache.folders():
        if folder not in catalogue_folders:
            yield ModelEntry(
                name=str(about["source"]),
                origin="file",
                path=None,
                bytes=int(str(about["source_bytes"])),
                sha256=str(about["source_sha256"]),
                converted=str(folder),
                adapter=None,
            )


def problems(entry: ModelEntry) -> list[str]:
    """What is wrong with the bytes of a model that is here; reads all of them."""
    faults = []
    if entry.path and entry.origin in ("package", "fetched") and digest(Path(entry.path)) != entry.sha256:
        faults.append(f"{entry.path} has the wrong SHA-256")
    if entry.converted:
        try:
            sealed.verified(Path(entry.converted))
        except Damaged as error:
            faults.append(str(error))
    return faults


def _text(path: Path | None) -> str | None:
    return str(path) if path else None
