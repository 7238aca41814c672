"""Folders of finished files under a manifest of their hashes, which is written last.

What lacks a valid manifest, or differs from it by a byte or a file, was not finished or was changed since.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lte_runtime.disk import sha256_file, sync
from lte_runtime.errors import Damaged
from lte_runtime.private_files import create

MANIFEST = "manifest.json"


@dataclass(frozen=True, slots=True)
class Contents:
    """A verified folder. `about` is what its writer said of it; `files` maps relative paths to SHA-256;
    `size` is in bytes."""

    about: Mapping[str, Any]
    files: Mapping[str, str]
    size: int


def seal(directory: Path, about: Mapping[str, Any]) -> None:
    """Make all files durable, then the manifest, then the folder. `about` must be JSON. Raises OSError."""
    hashes = {}
    for path in plain_files(directory):
        sync(path)
        hashes[path.relative_to(directory).as_posix()] = sha256_file(path)
    body = {"about": dict(about), "files": hashes}
    manifest = {"body": body, "sha256": hashlib.sha256(_canonical(body)).hexdigest()}
    target = directory / MANIFEST
    create(target)
    target.write_bytes(_canonical(manifest))
    sync(target)
    for place in (*(path for path in directory.rglob("*") if path.is_dir()), directory):
        sync(place)


def verified(directory: Path) -> Contents:
    """What a sealed folder holds; raises `Damaged` when a byte, a file or the manifest is not as written."""
    body = _manifest_body(directory / MANIFEST)
    expected = body["files"]
    present = {
        path.relative_to(directory).as_posix(): path
        for path in plain_files(directory)
        if path.name != MANIFEST
    }
    if set(present) != set(expected):
        raise Damaged(
            f"{directory.name}: files {sorted(set(present) ^ set(expected))} are missing or unexpected"
        )
    for name, path in present.items():
        if _sha256(path) != expected[name]:
            raise Damaged(f"{directory.name}: {name} is not what was written")
    return Contents(body["about"], expected, sum(path.stat().st_size for path in present.values()))


def plain_files(directory: Path) -> list[Path]:
    """Regular files below `directory`, sorted; anything else (a link, a socket) is damage."""
    files = []
    for path in sorted(directory.rglob("*")):
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise Damaged(f"{directory.name}: {path.name} is not a plain file")
        if path.is_file():
            files.append(path)
    return files


def about(directory: Path) -> Mapping[str, Any]:
    """What the manifest says without a look at the files; raises `Damaged` where it cannot be read."""
    body = _manifest_body(directory / MANIFEST)
    manifest_about: Mapping[str, Any] = body["about"]
    return manifest_about


def _manifest_body(path: Path) -> dict[str, Any]:
    try:
        manifest = json.loads(path.read_bytes())
        body: dict[str, Any] = manifest["body"]
        if hashlib.sha256(_canonical(body)).hexdigest() == manifest["sha256"]:
            return body
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Damaged(f"{path.parent.name}: the manifest cannot be read: {error}") from error
    raise Damaged(f"{path.parent.name}: the manifest is not what was written")


def _canonical(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def _sha256(path: Path) -> str:
    try:
        return sha256_file(path)
    except OSError as error:
        raise Damaged(f"{path.name} cannot be read: {error}") from error
