"""Adapters on an fsspec URL, for all replicas: one directory for each, its record written last.

What comes from there is bytes of a stranger until the registry has checked them. Nothing is ever changed or
removed: a directory without a whole record is one that is still being written, or was left so.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from lte_runtime import redact
from lte_runtime.answer.engine.files import CONFIG, MANIFEST, WEIGHTS
from lte_runtime.errors import BadRequest, LteError, NotFound, Refused, Retry
from lte_runtime.private_files import follow
from lte_runtime.types import AdapterRef

RECORD = "record.json"
FILES = (CONFIG, WEIGHTS, MANIFEST, RECORD)
_NAME = re.compile(r"(align-\d{6})\.([0-9a-f]{64})")
_CHUNK = 1 << 20


class AdapterStore:
    """Thread-safe as far as the URL's file system is. Every fault of it is `Retry`, with what it said.

    `url` is without its credentials, for messages. `options` go to the file system; credentials come from its
    own environment or files.
    """

    def __init__(self, url: str, options: Mapping[str, Any] | None = None) -> None:
        try:
            self._fs, self._root = fsspec.core.url_to_fs(url, **(options or {}))
        except (ImportError, ValueError) as error:
            shown = redact.url(url)
            raise BadRequest(f"registry.url {shown}: {redact.url_in(str(error), url)}") from None
        self.url = redact.url(url)
        self._secret_url = url

    def refs(self) -> list[AdapterRef]:
        """The adapters that are there whole, by name; one listing for each."""
        with self._store_errors():
            self._fs.invalidate_cache()
            if not self._fs.exists(self._root):
                return []
            names = [path.rstrip("/").rpartition("/")[2] for path in self._fs.ls(self._root, detail=False)]
            matches = [match for name in sorted(names) if (match := _NAME.fullmatch(name))]
            return [
                AdapterRef(match[1], match[2])
                for match in matches
                if self._fs.exists(self._at(match[0], RECORD))
            ]

    def find(self, adapter_id: str) -> AdapterRef:
        """Raises `NotFound`."""
        for ref in self.refs():
            if ref.id == adapter_id:
                return ref
        raise NotFound(f"no adapter {adapter_id} at {self.url}")

    def put(self, directory: Path, ref: AdapterRef) -> None:
        """Copy a checked adapter there, its record last; one that is there stays as it is.

        Raises `Refused` where the name stands for another content.
        """
        for existing in self.refs():
            if existing == ref:
                return
            if existing.id == ref.id:
                raise Refused(f"the name {ref.id} is taken at {self.url}: names are never used again")
        with self._store_errors():
            self._fs.makedirs(self._at(_name(ref)), exist_ok=True)
            for file in FILES:
                self._fs.put_file(str(directory / file), self._at(_name(ref), file))
            if isinstance(self._fs, LocalFileSystem):  # a shared path: replicas may run as other users
                follow(Path(self._root), Path(self._at(_name(ref))))

    def fetch(self, ref: AdapterRef, target: Path, limits: Mapping[str, int]) -> None:
        """Copy the files of an adapter into the new directory `target`; at most `limits` bytes of each."""
        target.mkdir(parents=True)
        with self._store_errors():
            for file in FILES:
                with self._fs.open(self._at(_name(ref), file), "rb") as source:
                    _copy(source, target / file, limits[file])

    def _at(self, *parts: str) -> str:
        return "/".join((str(self._root).rstrip("/"), *parts))

    @contextmanager
    def _store_errors(self) -> Iterator[None]:
        """Each file system has errors of its own; to us all of them are the store's fault."""
        try:
            yield
        except LteError:
            raise
        except Exception as error:  # noqa: BLE001 - raised again, without the credentials
            message = redact.url_in(str(error), self._secret_url)
            raise Retry(f"adapters at {self.url}: {type(error).__name__}: {message}") from None


def _name(ref: AdapterRef) -> str:
    return f"{ref.id}.{ref.sha256}"


def _copy(source: Any, target: Path, limit: int) -> None:
    remaining = limit
    with target.open("xb") as copy:
        while chunk := source.read(_CHUNK):
            remaining -= len(chunk)
            if remaining < 0:
                raise Refused(f"{target.name} in the adapter store has more than {limit} bytes")
            copy.write(chunk)
