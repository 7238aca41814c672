"""The cache of converted models: one sealed folder for each GGUF file, named by the file and its hash.

A folder appears by rename when all of it is written. One that is torn, changed or of another recipe is made
anew. A complete cache may be read-only.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lte_runtime import sealed
from lte_runtime.disk import sha256_file, sync
from lte_runtime.errors import Damaged, Refused
from lte_runtime.locks import waiting_lock
from lte_runtime.models.conversion import WEIGHTS, Convert, run_conversion
from lte_runtime.private_files import follow
from lte_runtime.progress import Progress, silent

# A conversion that gives other bytes needs another number, so that old folders are made anew.
RECIPE = 1
# Characters of the hash in a folder's name; the manifest holds all of them.
_SHORT = 12
_FOLDER = re.compile(r"(?P<stem>.+)-(?P<short>[0-9a-f]{12})")


def default_directory() -> Path:
    """`$XDG_CACHE_HOME/lte-daemon/models`, else `~/.cache/lte-daemon/models`."""
    cache_home = os.environ.get("XDG_CACHE_HOME")
    if cache_home:
        return Path(cache_home) / "lte-daemon" / "models"
    try:
        return Path.home() / ".cache" / "lte-daemon" / "models"
    except RuntimeError as error:
        raise Refused("this user has no home directory to cache models in: set model.cache") from error


@dataclass(frozen=True, slots=True)
class GgufSource:
    """A GGUF file by its hash. `weights_sha256`: what its conversion must give, where that is known."""

    file_name: str
    sha256: str
    weights_sha256: str | None = None

    @property
    def folder_name(self) -> str:
        stem = re.sub(r"[^\w.+-]", "_", self.file_name.removesuffix(".gguf"))
        return f"{stem}-{self.sha256[:_SHORT]}"


@dataclass(frozen=True, slots=True)
class ModelCache:
    """A directory of converted models. Several processes may use it at once."""

    directory: Path

    @classmethod
    def at(cls, directory: Path | None) -> ModelCache:
        """The cache of a setting: an absolute path, and the default place for None."""
        return cls((directory or default_directory()).absolute())

    def folder(self, source: GgufSource) -> Path:
        return self.directory / source.folder_name

    def gguf(self, source: GgufSource) -> Path:
        """Where a fetched GGUF file is kept."""
        return self.directory / f"{source.folder_name}.gguf"

    def converted(self, source: GgufSource) -> Path | None:
        """The folder of the converted model, every byte checked; None where there is none that is sound."""
        folder = self.folder(source)
        try:
            about = sealed.verified(folder).about
        except Damaged:
            return None
        return folder if about.items() >= _about(source).items() else None

    def convert(
        self,
        source: GgufSource,
        gguf: Callable[[], Path],
        progress: Progress = silent,
        run: Convert = run_conversion,
    ) -> Path:
        """The folder of the converted model, converted now unless it is there.

        `gguf` gives the file, its hash checked; it is called only when it is needed. A second process waits
        for the first. Raises `Refused` when the cache cannot be written or the file cannot be converted.
        """
        folder = self.converted(source)
        if folder:
            return folder
        with self.locked(source, progress):
            return self.converted(source) or self._convert(source, gguf(), progress, run)

    @contextmanager
    def locked(self, source: GgufSource, progress: Progress = silent) -> Iterator[None]:
        """Alone with what belongs to one file; waits for others. Makes the directory."""
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            lock = self.directory / f"{source.folder_name}.lock"
            with waiting_lock(lock, lambda: progress("waiting for another process that prepares it", 0, 0)):
                yield
        except OSError as error:
            raise self.unwritable(error) from error

    def unwritable(self, error: OSError) -> Refused:
        return Refused(
            f"the model cache {self.directory} cannot be written: {error.strerror or error}. Make it "
            "writable or free some space, or set model.cache to another directory; a model that "
            "`lte model convert` converted elsewhere can be copied there whole"
        )

    def _convert(self, source: GgufSource, gguf: Path, progress: Progress, run: Convert) -> Path:
        folder = self.folder(source)
        scratch = self.directory / f"{source.folder_name}.tmp"
        _remove(scratch)
        scratch.mkdir()
        try:
            details = run(gguf, scratch, progress)
            _check_weights(scratch, source, details)
            size = gguf.stat().st_size
            sealed.seal(scratch, {**_about(source), "source_bytes": size, **details})
            follow(self.directory, scratch)
            _remove(folder)
            scratch.rename(folder)
        except BaseException:
            shutil.rmtree(scratch, ignore_errors=True)
            raise
        sync(self.directory)
        return folder

    def folders(self) -> list[tuple[Path, Mapping[str, object]]]:
        """All converted models with what their manifests say; their files are not checked."""
        models = []
        for folder in sorted(self.directory.glob("*/")):
            if _FOLDER.fullmatch(folder.name):
                try:
                    models.append((folder, sealed.about(folder)))
                except Damaged:
                    continue
        return models


def _about(source: GgufSource) -> dict[str, object]:
    return {"source": source.file_name, "source_sha256": source.sha256, "recipe": RECIPE}


def _check_weights(folder: Path, source: GgufSource, details: Mapping[str, object]) -> None:
    """Adapters name the hash of their base: other bytes would leave them without one."""
    if source.weights_sha256 is None:
        return
    digest = sha256_file(folder / WEIGHTS)
    if digest != source.weights_sha256:
        raise Refused(
            f"{source.file_name} was converted to other weights ({digest[:_SHORT]}) than its adapters are "
            f"made for ({source.weights_sha256[:_SHORT]}), by {details}: install the versions of uv.lock, "
            "or set model.path to the .gguf file to use it without them"
        )


def _remove(path: Path) -> None:
    if path.is_symlink() or path.is_file():
        path.unlink()
    elif path.exists():
        shutil.rmtree(path)
