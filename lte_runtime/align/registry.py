"""Adapters on disk: immutable directories named by their content, which appear whole or not at all.

An adapter is copied beside, checked there byte by byte, and renamed to the hash of its files. Nothing in it
is ever changed afterwards. Beside its manifest stands a record: when it came, the verdict that let it in.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import stat
import threading
import time
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lte_runtime.align.shared_store import RECORD, AdapterStore
from lte_runtime.answer.engine.files import CONFIG, MANIFEST, WEIGHTS, read_json
from lte_runtime.disk import sha256_file, sync
from lte_runtime.errors import Damaged, LteError, NotFound, Refused
from lte_runtime.private_files import follow, make_private
from lte_runtime.types import AdapterRef

REMOVED = "removed"
ID = re.compile(r"align-(\d{6})")
MAX_JSON_BYTES = 64 << 20
MAX_WEIGHTS_BYTES = 8 << 30
_LIMITS = {
    CONFIG: MAX_JSON_BYTES,
    WEIGHTS: MAX_WEIGHTS_BYTES,
    MANIFEST: MAX_JSON_BYTES,
    RECORD: MAX_JSON_BYTES,
}
# What a directory may not hold, even unnamed by its manifest: files that run when they are read.
PICKLES = frozenset({".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".npy", ".npz", ".py"})
# A copy that another process of the same store is making is younger than this.
SWEEP_AFTER_S = 3600.0
# States of an edit (see `EditRecord`) in which what an adapter learned from it is no longer so.
TAINTING = frozenset({"retracted", "superseded", "conflict_lost", "erased"})


@dataclass(frozen=True, slots=True)
class RegistryEntry:
    """One adapter of the registry. `problem` says why it cannot be used; `verdict` is the promotion gate's
    word and its numbers."""

    ref: AdapterRef
    directory: Path
    manifest: Mapping[str, Any] = field(default_factory=dict)
    verdict: Mapping[str, Any] = field(default_factory=dict)
    added_ms: int = 0
    size_bytes: int = 0
    problem: str = ""

    @property
    def edit_ids(self) -> tuple[str, ...]:
        """The edits that its training set was made from."""
        listed = self.manifest.get("edit_ids", ())
        return tuple(map(str, listed)) if isinstance(listed, list) else ()


class Registry:
    """`check` is everything that can be said of a directory without serving it (`Engine.check_adapter`): it
    returns the adapter's name and hash, or raises `Damaged` or `Refused`. Thread-safe; several processes may
    share `root`. `reserved` are ids that belong to adapters outside, such as the one that ships.

    With a `store` every adapter goes there too, and what is asked for by name and is not here, or is damaged
    here, is brought from there: `root` is this machine's checked copy.
    """

    def __init__(
        self,
        root: Path,
        check: Callable[[Path], AdapterRef],
        *,
        reserved: Collection[str] = (),
        store: AdapterStore | None = None,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._root, self._check, self._now_ms = root, check, now_ms
        self._reserved, self._store = frozenset(reserved), store
        self._lock = threading.Lock()

    @property
    def root(self) -> Path:
        return self._root

    def add(self, directory: Path, verdict: Mapping[str, Any]) -> AdapterRef:
        """Copy an adapter in, verified; its manifest comes last and the directory appears by rename.

        The same content is one adapter: adding it again changes nothing and returns the name that it has.
        Raises `Damaged` or `Refused` with the reason, or OSError; nothing is left behind then. Raises `Retry`
        when the store cannot be reached: added again, the adapter goes there.
        """
        with self._lock, self._beside() as beside:
            _copy_in(directory, beside)
            ref = self._check(beside)
            ref = self._existing(ref) or self._appear(beside, ref, verdict)
        if self._store is not None:
            self._store.put(self._root / ref.sha256, ref)
        return ref

    @contextmanager
    def _beside(self) -> Iterator[Path]:
        """A place for a copy that is not checked yet; gone afterwards unless it was renamed."""
        make_private(self._root)
        beside = self._root / f"tmp-{uuid.uuid4().hex}"
        try:
            yield beside
        finally:
            shutil.rmtree(beside, ignore_errors=True)

    def _existing(self, ref: AdapterRef) -> AdapterRef | None:
        """The name under which this content is here already; raises `Refused` for a name that is taken."""
        if not ID.fullmatch(ref.id):
            raise Refused(f"{ref.id!r} is not an adapter name: it must be align- and six digits")
        if (self._root / ref.sha256).exists():
            try:
                return self._verified(self._root / ref.sha256).ref
            except Damaged:
                self._put_aside(self._root / ref.sha256)
        if ref.id in self._reserved or any(ref.id == used for used in self._used()):
            raise Refused(f"the name {ref.id} is taken: names are never used again")
        return None

    def _appear(self, beside: Path, ref: AdapterRef, verdict: Mapping[str, Any]) -> AdapterRef:
        record = {
            "id": ref.id,
            "sha256": ref.sha256,
            "manifest_sha256": sha256_file(beside / MANIFEST),
            "added_ms": self._now_ms(),
            "verdict": dict(verdict),
        }
        _write(beside / RECORD, _sealed(record))
        return self._renamed(beside, ref)

    def _renamed(self, beside: Path, ref: AdapterRef) -> AdapterRef:
        follow(self._root, beside)  # who may read the registry may read all of it
        sync(beside)
        try:
            beside.rename(self._root / ref.sha256)
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                raise
            return self._verified(self._root / ref.sha256).ref  # another process was quicker
        sync(self._root)
        return ref

    def entries(self) -> list[RegistryEntry]:
        """All adapters by name, with what is wrong with those that cannot be read; reads no weights."""
        if not self._root.is_dir():
            return []
        entries = [
            _read(path, path.name)
            for path in self._root.iterdir()
            if re.fullmatch(r"[0-9a-f]{64}", path.name)
        ]
        return sorted(entries, key=lambda entry: entry.ref.id)

    def get(self, adapter_id: str) -> RegistryEntry:
        """An adapter by its name; raises `NotFound`, and `Retry` when a store cannot be asked."""
        for entry in self.entries():
            if entry.ref.id == adapter_id:
                return entry
        if self._store is None:
            raise NotFound(f"no adapter {adapter_id} in the registry")
        return self._fetched(self._store, self._store.find(adapter_id))

    def verify(self, adapter_id: str) -> RegistryEntry:
        """An adapter whose every byte was checked; raises `NotFound`, `Damaged`, `Refused` or `Retry`."""
        entry = self.get(adapter_id)
        try:
            return self._verified(entry.directory)
        except Damaged:
            if self._store is None:
                raise
        return self._fetched(self._store, self._store.find(adapter_id))

    def _fetched(self, store: AdapterStore, ref: AdapterRef) -> RegistryEntry:
        """From the store, checked before it is here under its name."""
        with self._lock, self._beside() as beside:
            store.fetch(ref, beside, _LIMITS)
            entry = _sound(_read(beside, ref.sha256))
            if self._check(beside) != ref or entry.ref != ref:
                raise Damaged(f"{store.url} has another adapter under the name {ref.id}")
            if (self._root / ref.sha256).exists():
                self._put_aside(self._root / ref.sha256)
            for path in beside.iterdir():
                sync(path)
            self._renamed(beside, ref)
        return self._verified(self._root / ref.sha256)

    def _verified(self, directory: Path) -> RegistryEntry:
        entry = _sound(_read(directory, directory.name))
        ref = self._check(directory)
        if ref != entry.ref:
            raise Damaged(f"{directory.name[:12]} contains {ref.id}, but its record says {entry.ref.id}")
        return entry

    def next_id(self) -> str:
        """A name that no adapter of this registry has or had, nor one of its store."""
        there = {ref.id for ref in self._store.refs()} if self._store else set()
        numbers = [int(match[1]) for name in self._used() | there if (match := ID.fullmatch(name))]
        return f"align-{max(numbers, default=0) + 1:06d}"

    def _used(self) -> set[str]:
        gone = {path.stem for path in (self._root / REMOVED).glob("*.json")}
        return {entry.ref.id for entry in self.entries()} | gone | self._reserved

    def prune(self, keep: int, referenced: Collection[str]) -> list[str]:
        """Remove the oldest adapters beyond the newest `keep`, none of `referenced`; returns their names.

        Their records stay under `removed/`, so that a verdict can be read and no name is used again. A store
        keeps everything: another replica may need it.
        """
        with self._lock:
            old = sorted(self.entries(), key=lambda entry: (entry.added_ms, entry.ref.id), reverse=True)[
                keep:
            ]
            gone = [entry for entry in old if entry.ref.id not in referenced and not entry.problem]
            for entry in gone:
                self._remove(entry)
            return [entry.ref.id for entry in gone]

    def _remove(self, entry: RegistryEntry) -> None:
        removed = self._root / REMOVED
        if not removed.exists():
            make_private(removed)
            follow(self._root, removed)
        shutil.copy(entry.directory / RECORD, removed / f"{entry.ref.id}.json")
        sync(removed)
        aside = self._root / f"tmp-{uuid.uuid4().hex}"
        entry.directory.rename(aside)
        shutil.rmtree(aside)

    def _put_aside(self, directory: Path) -> None:
        """A damaged directory is kept for people to look at; one of each content."""
        aside = self._root / f"damaged-{directory.name}"
        shutil.rmtree(aside, ignore_errors=True)
        directory.rename(aside)

    def sweep(self, older_than_s: float = SWEEP_AFTER_S) -> int:
        """Remove copies that a killed process left half-made; returns how many."""
        if not self._root.is_dir():
            return 0
        limit = time.time() - older_than_s
        abandoned = [path for path in self._root.glob("tmp-*") if path.lstat().st_mtime <= limit]
        for path in abandoned:
            shutil.rmtree(path)
        return len(abandoned)


def tainted(edit_ids: Iterable[str], state_of: Callable[[str], str]) -> dict[str, str]:
    """Which of the edits that an adapter learned no longer stand, with their state. `state_of` gives it as
    `EditRecord` names it, `erased` where the text is gone, and an empty text for an unknown edit."""
    return {name: state for name in edit_ids if (state := state_of(name)) in TAINTING}


def _sound(entry: RegistryEntry) -> RegistryEntry:
    if entry.problem:
        raise Damaged(entry.problem)
    return entry


def _read(directory: Path, sha256: str) -> RegistryEntry:
    """An entry from its record and manifest, where `sha256` is expected; raises nothing, `problem` tells."""
    unknown = AdapterRef("", sha256)
    try:
        record = read_json(directory, RECORD)
        seal = record.pop("seal", None)
        if seal != _seal(record):
            raise Damaged(f"the record of {sha256[:12]} was changed: its seal does not match")
        unknown = AdapterRef(record["id"], record["sha256"])
        if sha256 != record["sha256"]:
            raise Damaged(f"{sha256[:12]} contains the record of {record['sha256'][:12]}")
        if sha256_file(directory / MANIFEST) != record["manifest_sha256"]:
            raise Damaged(f"the manifest of {record['id']} was changed after it was added")
        size = sum(path.lstat().st_size for path in directory.iterdir())
        manifest, verdict = read_json(directory, MANIFEST), record["verdict"]
        return RegistryEntry(unknown, directory, manifest, verdict, record["added_ms"], size)
    except (LteError, OSError, KeyError) as error:
        return RegistryEntry(unknown, directory, problem=str(error))


def _copy_in(source: Path, target: Path) -> None:
    """The three files of an adapter and nothing else; the manifest last."""
    _refuse_strangers(source)
    manifest = read_json(source, MANIFEST)
    files = manifest.get("files")
    if not isinstance(files, dict) or set(files) != {CONFIG, WEIGHTS}:
        raise Damaged(f"the manifest of {source.name} must list {CONFIG} and {WEIGHTS} and nothing else")
    target.mkdir()
    for name in (CONFIG, WEIGHTS, MANIFEST):
        _copy(source / name, target / name, _LIMITS[name])


def _refuse_strangers(source: Path) -> None:
    if source.is_symlink() or not source.is_dir():
        raise Refused(f"{source} is not a directory")
    for path in source.iterdir():
        if path.is_symlink() or not path.is_file():
            raise Refused(f"{path.name} in {source.name} is not a plain file")
        if path.suffix in PICKLES:
            raise Refused(f"{source.name} contains {path.name}: only safetensors files are accepted")
    size = (source / MANIFEST).stat().st_size if (source / MANIFEST).exists() else 0
    if size > MAX_JSON_BYTES:
        raise Refused(f"the manifest of {source.name} has {size} bytes, more than {MAX_JSON_BYTES}")


def _copy(source: Path, target: Path, limit: int) -> None:
    try:
        number = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise Damaged(f"{source.name} cannot be read: {error.strerror}") from error
    with open(number, "rb") as file, target.open("xb") as copy:
        about = os.fstat(file.fileno())
        if not stat.S_ISREG(about.st_mode) or about.st_size > limit:
            raise Refused(f"{source.name} is not a plain file or has more than {limit} bytes")
        shutil.copyfileobj(file, copy, 1 << 20)
        copy.flush()
        os.fsync(copy.fileno())


def _seal(record: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def _sealed(record: Mapping[str, Any]) -> bytes:
    return (json.dumps({**record, "seal": _seal(record)}, indent=1, sort_keys=True) + "\n").encode()


def _write(path: Path, data: bytes) -> None:
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
