"""Names that belong to facts of another publisher: which edits of a batch take one.

A name is held by the publishers of the standing facts under it that took it from nobody; whoever comes first
holds a name that is free. Two daemons may see two partitions in another order, so the flag is a warning: no
hash of the state contains it, and it decides nothing about which fact is current.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from lte_runtime.facts.events import FOREIGN_NAME
from lte_runtime.facts.name_owners import NameOwners
from lte_runtime.store.key_update import names_of
from lte_runtime.types import Edit, Op

MOST_KEYS = 64
"""Keys under one name whose publishers are read, the first ones: a subject may have thousands."""
MOST_FACTS = 256
"""Standing facts of these keys that are read: a set may have thousands of members."""

KeysOfName = Callable[[str, str], Sequence[int]]
"""(name, namespace) to the keys that bear it, at most `MOST_KEYS`."""
HoldersOfKeys = Callable[[tuple[int, ...]], set[str]]


@dataclass(slots=True)
class NameClaims:
    """The holders of each name, looked up once for a batch and then kept up with its edits."""

    keys_of: KeysOfName
    holders_of: HoldersOfKeys
    owners: NameOwners
    _holders: dict[tuple[str, str], set[str]] = field(default_factory=dict)

    def flagged(self, edits: Sequence[Edit]) -> tuple[Edit, ...]:
        """The edits, flagged `foreign_name` where they assert a fact under a name that others hold."""
        return tuple(map(self._flagged, edits))

    def _flagged(self, edit: Edit) -> Edit:
        if edit.op is not Op.ASSERT or edit.key is None:
            return edit
        names = names_of(edit)
        holders = [self._holders_of(edit.namespace, form, name) for form, name in names.items()]
        if any(
            self._takes(edit, name, of_name) for name, of_name in zip(names.values(), holders, strict=True)
        ):
            return replace(edit, flags=(*edit.flags, FOREIGN_NAME))
        for of_name in holders:
            of_name.add(edit.publisher)
        return edit

    def _holders_of(self, namespace: str, form: str, name: str) -> set[str]:
        if (namespace, form) not in self._holders:
            key_ids = tuple(self.keys_of(name, namespace))
            self._holders[namespace, form] = set(self.holders_of(key_ids)) if key_ids else set()
        return self._holders[namespace, form]

    def _takes(self, edit: Edit, name: str, holders: set[str]) -> bool:
        if not holders or edit.publisher in holders:
            return False
        return not self.owners.are_joint(name, {edit.publisher, *holders})
