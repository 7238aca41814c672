"""Facts that the training stream must never hold: those of the demo and of the tests."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_WORDS = re.compile(r"\w+")


@dataclass(frozen=True)
class Excluded:
    """Pairs of subject and target, found fast by the subject's first word."""

    by_word: Mapping[str, tuple[tuple[str, str], ...]] = field(default_factory=dict)

    def hit(self, text: str) -> bool:
        """Whether some pair's subject and target both stand in `text`."""
        words = _WORDS.findall(text.casefold())
        word_text = f" {' '.join(words)} "
        first_words = self.by_word.keys() & set(words)
        return any(s in word_text and t in word_text for word in first_words for s, t in self.by_word[word])


def excluded(paths: Iterable[Path]) -> Excluded:
    """The pairs of fact events in JSON Lines files; an event may stand under `event`."""
    index: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for path in paths:
        for line in path.read_text(encoding="utf-8").splitlines():
            for subject, target in _pairs(json.loads(line)):
                index[subject.split()[0]].append((f" {subject} ", f" {target} "))
    return Excluded({word: tuple(pairs) for word, pairs in index.items()})


def _pairs(record: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    event = record.get("event", record)
    if event.get("target"):
        for name in [event.get("subject") or event.get("prompt", ""), *event.get("subject_aliases", ())]:
            if _WORDS.search(name):
                yield plain(name), plain(str(event["target"]))


def plain(text: str) -> str:
    """The words alone, case-folded."""
    return " ".join(_WORDS.findall(text.casefold()))
