"""Names that are reserved for publishers, as `kafka.publishers` says. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from lte_runtime.names.normalise import key_form
from lte_runtime.types import Edit

ANY = "*"
"""As a publisher: all of them. At the end of a name: whatever begins so."""
FREE: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class NameOwners:
    """Publishers by reserved name and by the beginning of names, both in the form of keys.

    A name that several publishers have reserved is theirs together. The exact name decides, then the longest
    beginning. `pattern` finds all of them in a prompt.
    """

    exact: Mapping[str, frozenset[str]]
    beginnings: Mapping[str, frozenset[str]]
    pattern: re.Pattern[str]

    @classmethod
    def of(cls, reserved: Mapping[str, Iterable[str]]) -> NameOwners:
        """From publisher -> names; a name that ends in `*` stands for all that begin so."""
        exact: dict[str, frozenset[str]] = {}
        beginnings: dict[str, frozenset[str]] = {}
        for publisher, names in reserved.items():
            for name in names:
                table = beginnings if name.endswith(ANY) else exact
                bare = name.removesuffix(ANY)
                form = key_form(bare) + " " * (bare != bare.rstrip())  # "Acme *" leaves Acmeite free
                table[form] = table.get(form, FREE) | {publisher}
        return cls(exact, beginnings, _pattern(exact, beginnings))

    def of_name(self, name: str) -> frozenset[str]:
        """The publishers that a name is reserved for; `FREE` for none."""
        form = key_form(name)
        if form in self.exact:
            return self.exact[form]
        fitting = (beginning for beginning in self.beginnings if form.startswith(beginning))
        return self.beginnings.get(max(fitting, key=len, default=""), FREE)

    def forbidden_name(self, edit: Edit) -> str | None:
        """The first name of an edit that is reserved for others than its publisher."""
        if not (self.exact or self.beginnings):
            return None
        return next((name for name in self._names(edit) if not self._allows(name, edit.publisher)), None)

    def are_joint(self, name: str, publishers: Iterable[str]) -> bool:
        """Whether a name is reserved for all of these publishers together."""
        return all(self.of_name(name) and self._allows(name, publisher) for publisher in publishers)

    def _allows(self, name: str, publisher: str) -> bool:
        owners = self.of_name(name)
        return not owners or publisher in owners or ANY in owners

    def _names(self, edit: Edit) -> Iterable[str]:
        """Subject and aliases; of a prompt the whole of it, and reserved names that stand in it."""
        if edit.key is not None:
            yield edit.subject or edit.key.subject
            if not edit.key.relation:
                yield from self.pattern.findall(edit.key.subject)
        yield from edit.subject_aliases


def _pattern(exact: Iterable[str], beginnings: Iterable[str]) -> re.Pattern[str]:
    """Whole words that are a reserved name or begin like one, of two at one place the longer one."""
    ends = [(name, r"(?!\w)") for name in exact] + [(name, r"\w*") for name in beginnings if name]
    longest_first = sorted(ends, key=lambda end: -len(end[0]))
    choices = "|".join(re.escape(name) + end for name, end in longest_first)
    return re.compile(rf"(?<!\w)(?:{choices})" if choices else r"(?!)")
