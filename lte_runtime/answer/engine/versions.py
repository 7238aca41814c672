"""Which adapters are loaded, which one new requests get, and who still uses an old one. Knows no model.

A request is pinned to its version when it is submitted and keeps it to its last token. A switch changes
nothing that is under way, and a version that was unloaded goes when its last request has ended.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lte_runtime.errors import NotFound, Refused
from lte_runtime.types import AdapterRef


@dataclass(eq=False)
class Version:
    """A loaded adapter, or the base model where `ref` is None; `model` is what the engine runs for it.

    `loaded` is False once it is unloaded and only requests under way still use it.
    """

    ref: AdapterRef | None
    model: Any
    users: int = 0
    loaded: bool = True


class Versions:
    """Safe from several threads; nothing here blocks. `on_drop` gets the model of each version that goes; it
    is called under the lock and must not block either."""

    def __init__(self, base: Any, on_drop: Callable[[Any], None] = lambda _: None) -> None:
        self._on_drop = on_drop
        self._lock = threading.Lock()
        self._base = Version(None, base)
        self._current = self._base
        self._named: dict[str, Version] = {}

    @property
    def current(self) -> AdapterRef | None:
        """The adapter that new requests get."""
        return self._current.ref

    def loaded(self) -> tuple[AdapterRef, ...]:
        """The adapters that requests may be given; not those that only old requests still use."""
        with self._lock:
            return tuple(version.ref for version in self._named.values() if version.ref and version.loaded)

    def pin(self, *, adapter: bool, name: str | None = None) -> Version:
        """The version of a new request: the base, the current adapter, or a loaded one by its name.

        Raises `NotFound` for a name that is not loaded. Every pin is followed by one `release`.
        """
        with self._lock:
            version = self._find(adapter, name)
            version.users += 1
            return version

    def _find(self, adapter: bool, name: str | None) -> Version:
        if not adapter:
            return self._base
        if name is None:
            return self._current
        version = self._named.get(name)
        if version is None or not version.loaded:
            raise NotFound(f"adapter {name} is not loaded")
        return version

    def release(self, version: Version) -> None:
        """One request of the version has ended."""
        with self._lock:
            version.users -= 1
            self._drop_unused(version)

    def add(self, ref: AdapterRef, model: Any) -> None:
        """A version beside the others; raises `Refused` for a name that is in use: names are never reused."""
        with self._lock:
            if ref.id in self._named:
                raise Refused(f"adapter {ref.id} is loaded already")
            self._named[ref.id] = Version(ref, model)

    def revive(self, ref: AdapterRef) -> bool:
        """Takes back the unloading of this very adapter while old requests still hold it; else False."""
        with self._lock:
            version = self._named.get(ref.id)
            if version is None or version.loaded or version.ref != ref:
                return False
            version.loaded = True
            return True

    def switch(self, name: str | None) -> AdapterRef | None:
        """Gives new requests this adapter (None: no adapter); returns the one before. `NotFound` as `pin`."""
        with self._lock:
            before = self._current.ref
            self._current = self._base if name is None else self._find(True, name)
            return before

    def unload(self, name: str) -> None:
        """Lets a version go as soon as nobody uses it; raises `Refused` for the current one."""
        with self._lock:
            version = self._find(True, name)
            if version is self._current:
                raise Refused(f"adapter {name} is in use")
            version.loaded = False
            self._drop_unused(version)

    def _drop_unused(self, version: Version) -> None:
        if version.ref and not version.loaded and version.users == 0:
            self._named.pop(version.ref.id, None)
            self._on_drop(version.model)
            version.model = None
