"""Snapshots: folders of finished files that appear by rename, with a manifest of hashes written last.

A snapshot is disposable: one that is torn or damaged is put aside and the next older one is taken.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lte_runtime.disk import sha256_file, sync
from lte_runtime.errors import Damaged
from lte_runtime.private_files import DIRECTORY_MODE, FILE_MODE, create, make_private

_MANIFEST = "manifest.json"
_NAME = re.compile(r"snapshot-(\d{12})")
_DAMAGED_KEPT = 3


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A finished snapshot. `about` is what the writer said of it; `files` maps relative paths to SHA-256."""

    path: Path
    about: Mapping[str, Any]
    files: Mapping[str, str]
    size: int


def write(
    directory: Path, fill: Callable[[Path], None], about: Mapping[str, Any], *, keep: int = 2
) -> Snapshot:
    """Make a new snapshot of what `fill` writes into its directory; older ones beyond `keep` are removed.

    `about` must be JSON. Raises OSError when the disk refuses; nothing half-made is left then.
    """
    make_private(directory)
    _sweep(directory)
    number = max((_number(path) for path in directory.iterdir()), default=0) + 1
    scratch = directory / f"tmp-{number:012d}"
    scratch.mkdir(mode=DIRECTORY_MODE)
    try:
        fill(scratch)
        _finish(scratch, dict(about))
        final = directory / f"snapshot-{number:012d}"
        scratch.rename(final)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise
    sync(directory)
    for old in _finished(directory)[keep:]:
        shutil.rmtree(old)
    return _verified(final)


def read_verified(directory: Path) -> Snapshot | None:
    """The newest snapshot whose bytes agree with its manifest, or None.

    Damaged ones are renamed to `damaged-...`, of which three at most are kept.
    """
    if not directory.is_dir():
        return None
    _sweep(directory)
    for path in _finished(directory):
        try:
            return _verified(path)
        except Damaged:
            put_aside(path)
    return None


def put_aside(path: Path) -> Path:
    """Rename a snapshot that cannot be used, so that only people look at it. Returns its new path."""
    directory = path.parent
    aside = directory / path.name.replace("snapshot-", "damaged-")
    shutil.rmtree(aside, ignore_errors=True)
    path.rename(aside)
    for old in sorted(directory.glob("damaged-*"), reverse=True)[_DAMAGED_KEPT:]:
        shutil.rmtree(old)
    sync(directory)
    return aside


def remove_all(directory: Path) -> int:
    """Delete every snapshot, finished, damaged or half-made; returns how many there were."""
    if not directory.is_dir():
        return 0
    snapshots = [path for path in directory.iterdir() if path.is_dir()]
    for path in snapshots:
        shutil.rmtree(path)
    sync(directory)
    return len(snapshots)


def _number(path: Path) -> int:
    digits = path.name.rpartition("-")[2]
    return int(digits) if digits.isdigit() else 0


def _finished(directory: Path) -> list[Path]:
    """Newest first."""
    return sorted((path for path in directory.iterdir() if _NAME.fullmatch(path.name)), reverse=True)


def _sweep(directory: Path) -> None:
    """Take away what a crash left half-made; only the owner of the state directory comes here."""
    for path in directory.glob("tmp-*"):
        shutil.rmtree(path)


def _finish(directory: Path, about: dict[str, Any]) -> None:
    """Make all files durable, then the manifest, then the folder."""
    hashes = {}
    for path in _files(directory):
        path.chmod(FILE_MODE)
        sync(path)
        hashes[path.relative_to(directory).as_posix()] = _sha256(path)
    body = {"about": about, "files": hashes}
    manifest = {"body": body, "sha256": hashlib.sha256(_canonical(body)).hexdigest()}
    target = directory / _MANIFEST
    create(target)
    target.write_bytes(_canonical(manifest))
    sync(target)
    for place in (*(path for path in directory.rglob("*") if path.is_dir()), directory):
        sync(place)


def _verified(directory: Path) -> Snapshot:
    """The snapshot in `directory`; raises `Damaged` when a byte, a file or the manifest is not as written."""
    body = _manifest_body(directory / _MANIFEST)
    expected = body["files"]
    present = {
        path.relative_to(directory).as_posix(): path for path in _files(directory) if path.name != _MANIFEST
    }
    if set(present) != set(expected):
        raise Damaged(
            f"{directory.name}: files {sorted(set(present) ^ set(expected))} are missing or unexpected"
        )
    for name, path in present.items():
        if _sha256(path) != expected[name]:
            raise Damaged(f"{directory.name}: {name} is not what was written")
    return Snapshot(directory, body["about"], expected, sum(path.stat().st_size for path in present.values()))


def _manifest_body(path: Path) -> dict[str, Any]:
    try:
        manifest = json.loads(path.read_bytes())
        body: dict[str, Any] = manifest["body"]
        if hashlib.sha256(_canonical(body)).hexdigest() == manifest["sha256"]:
            return body
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Damaged(f"{path.parent.name}: the manifest cannot be read: {error}") from error
    raise Damaged(f"{path.parent.name}: the manifest is not what was written")


def _files(directory: Path) -> list[Path]:
    """Regular files below `directory`, sorted; anything else (a link, a socket) is damage."""
    files = []
    for path in sorted(directory.rglob("*")):
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise Damaged(f"{directory.name}: {path.name} is not a plain file")
        if path.is_file():
            files.append(path)
    return files


def _canonical(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def _sha256(path: Path) -> str:
    try:
        return sha256_file(path)
    except OSError as error:
        raise Damaged(f"{path.name} cannot be read: {error}") from error
