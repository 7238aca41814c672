"""Snapshots: folders of finished files that appear by rename, with a manifest of hashes written last.

A snapshot is disposable: one that is torn or damaged is put aside and the next older one is taken.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lte_runtime.disk import sync
from lte_runtime.errors import Damaged
from lte_runtime.private_files import DIRECTORY_MODE, FILE_MODE, make_private
from lte_runtime.sealed import plain_files, seal, verified

_NAME = re.compile(r"snapshot-(\d{12})")
_DAMAGED_KEPT = 3
# The newest, and the one before should the newest be damaged; a start needs no other.
SNAPSHOTS_KEPT = 2


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A finished snapshot. `about` is what the writer said of it; `files` maps relative paths to SHA-256."""

    path: Path
    about: Mapping[str, Any]
    files: Mapping[str, str]
    size: int


def write(
    directory: Path, fill: Callable[[Path], None], about: Mapping[str, Any], *, keep: int = SNAPSHOTS_KEPT
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
        for path in plain_files(scratch):
            path.chmod(FILE_MODE)
        seal(scratch, about)
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


def _verified(directory: Path) -> Snapshot:
    """The snapshot in `directory`; raises `Damaged` when a byte, a file or the manifest is not as written."""
    contents = verified(directory)
    return Snapshot(directory, contents.about, contents.files, contents.size)
