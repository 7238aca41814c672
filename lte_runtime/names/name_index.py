"""Names in questions: exact and slightly misspelt mentions of subjects and aliases.

Dense vectors are weak on rare names, codes and versions; here SKU-4711 is never SKU-4712.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, islice

from lte_runtime.names.fuzzy import TrigramIndex, likeness
from lte_runtime.names.tokens import Token, fold, folded_name, joined, tokens

_LONGEST = 32  # tokens of a name that an exact look-up goes up to
_ACRONYM = 4  # letters
_SWEEP_FROM = 1024
MOST_CHARS = 2_048
"""Characters of a question in which names are looked for; whoever answers questions reads fewer."""
MOST_TOKENS = 512
"""Tokens of a question in which names are looked for, the first ones: each may begin a name."""
MOST_RUNS = 16
"""Stretches between exact names in which misspelt names are looked for, the first ones.

Each reads the postings of its trigrams."""
MOST_COMPARED = 4_096
"""Pairs of a name and a word of the question that are compared by letters, the likeliest names first."""

Nearest = Callable[[], Sequence[int]]
"""Gives keys, those that are nearest to what is asked first. Asked for only where a name is crowded."""


@dataclass(frozen=True, slots=True)
class NameHit:
    """A key whose name (folded) the question mentions; `score` is 1 when exact, else below 1."""

    key_id: int
    name: str
    score: float
    exact: bool


@dataclass(frozen=True, slots=True)
class Mention:
    """A name (folded) that a question mentions; `score` and `exact` as in `NameHit`."""

    name: str
    score: float
    exact: bool


class NameIndex:
    """Names of keys by namespace, in memory. Safe to call from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._spaces: dict[str, _Names] = {}
        self._space_of: dict[int, str] = {}

    def add(self, key_id: int, namespace: str, names: Sequence[str]) -> None:
        """Set the names of a key, in place of those that it had; empty ones are left out."""
        with self._lock:
            self._remove(key_id)
            self._space_of[key_id] = namespace
            self._spaces.setdefault(namespace, _Names()).add(key_id, names)

    def remove(self, key_id: int) -> None:
        """Forget a key; nothing happens when it is not there."""
        with self._lock:
            self._remove(key_id)

    def find(self, question: str, namespace: str, limit: int, nearest: Nearest = tuple) -> list[NameHit]:
        """At most `limit` keys that the question mentions, one hit each, best first, longer names first.

        Where more than `limit` keys bear a name, those among `nearest()` are taken first.
        """
        with self._lock:
            space = self._spaces.get(namespace)
            if space is None:
                return []
            mentions = sorted(space.find(question), key=lambda hit: (-hit.score, -len(hit.name)))
            best: dict[int, NameHit] = {}
            for _, alike in groupby(mentions, key=lambda hit: (hit.score, len(hit.name))):
                hits = (
                    NameHit(key_id, mention.name, mention.score, mention.exact)
                    for mention in alike
                    for key_id in space.bearers(mention.name, limit, nearest)
                )
                for hit in sorted(islice(hits, 2 * limit), key=lambda hit: hit.key_id):
                    best.setdefault(hit.key_id, hit)
                if len(best) >= limit:
                    break
        return list(best.values())[:limit]

    def ids_of(
        self, name: str, namespace: str, limit: int | None = None, nearest: Nearest = tuple
    ) -> list[int]:
        """Keys that bear exactly this name (folded), in ascending order; the arguments as in `find`."""
        with self._lock:
            space = self._spaces.get(namespace)
            if space is None:
                return []
            folded = folded_name(name)
            return sorted(space.ids_of(folded) if limit is None else space.bearers(folded, limit, nearest))

    def __len__(self) -> int:
        return len(self._space_of)

    def _remove(self, key_id: int) -> None:
        namespace = self._space_of.pop(key_id, None)
        if namespace is not None:
            self._spaces[namespace].remove(key_id)


class _Names:
    """One namespace. An entry is (slot in the trigram index, key ids ...)."""

    def __init__(self) -> None:
        self._entries: dict[str, tuple[int, ...]] = {}
        self._names_of: dict[int, tuple[str, ...]] = {}
        self._acronyms: set[str] = set()
        self._trigrams = TrigramIndex()
        self._longest = 1

    def add(self, key_id: int, names: Sequence[str]) -> None:
        folded = {folded_name(name): name for name in names}
        folded.pop("", None)
        self._names_of[key_id] = tuple(self._enter(key_id, key, name) for key, name in folded.items())

    def _enter(self, key_id: int, folded: str, name: str) -> str:
        entry = self._entries.get(folded)
        if entry is None:
            entry = (self._trigrams.put(folded),)
            self._longest = max(self._longest, min(_LONGEST, folded.count(" ") + 1))
            if len(folded) <= _ACRONYM and folded.isalpha() and name.isupper():
                self._acronyms.add(folded)
        self._entries[folded] = (*entry, key_id)
        return folded

    def remove(self, key_id: int) -> None:
        for name in self._names_of.pop(key_id):
            slot, *ids = self._entries[name]
            ids.remove(key_id)
            if ids:
                self._entries[name] = (slot, *ids)
            else:
                del self._entries[name]
                self._acronyms.discard(name)
                self._trigrams.drop(slot)
        self._sweep()

    def _sweep(self) -> None:
        """Build the trigram index anew when half of its slots are given up."""
        if self._trigrams.dropped < max(_SWEEP_FROM, len(self._trigrams) // 2):
            return
        self._trigrams = TrigramIndex()
        for name, (_, *ids) in self._entries.items():
            self._entries[name] = (self._trigrams.put(name), *ids)

    def ids_of(self, folded: str) -> tuple[int, ...]:
        return self._entries.get(folded, (0,))[1:]

    def bearers(self, folded: str, limit: int, nearest: Nearest) -> Sequence[int]:
        """At most `limit` keys that bear the name: all, or the nearest ones and then the first ones."""
        ids = self.ids_of(folded)
        if len(ids) <= limit or limit == 0:
            return ids[:limit]
        near = [key_id for key_id in nearest() if folded in self._names_of.get(key_id, ())]
        return list(dict.fromkeys([*near, *ids[:limit]]))[:limit]

    def find(self, question: str) -> list[Mention]:
        question = question[:MOST_CHARS]
        text = fold(question)
        words = tokens(text)[:MOST_TOKENS]
        spans = self._exact(question, text, words)
        mentions = [Mention(name, 1.0, True) for name in spans.values()]
        compared = MOST_COMPARED
        for run in islice(_uncovered(text, words, spans), MOST_RUNS):
            for name in self._trigrams.near(" ".join(run)):
                compared -= len(run)
                if compared < 0:
                    return mentions
                score = likeness(name, " ".join(run), run)
                if score:
                    mentions.append(Mention(name, score, False))
        return mentions

    def _exact(self, question: str, text: str, words: Sequence[Token]) -> dict[range, str]:
        """Places of names: the longest at each start, without those that lie within another's place."""
        spans: dict[range, str] = {}
        end = 0
        for start in range(len(words)):
            span = self._longest_at(question, text, words, start)
            if span and span[0].stop > end:
                spans[span[0]] = span[1]
                end = span[0].stop
        if not words and text.strip() in self._entries:
            spans[range(0)] = text.strip()
        return spans

    def _longest_at(
        self, question: str, text: str, words: Sequence[Token], start: int
    ) -> tuple[range, str] | None:
        if start and joined(text, words[start - 1], words[start]):
            return None
        for stop in range(min(len(words), start + self._longest), start, -1):
            name = " ".join(word.text for word in words[start:stop])
            if name not in self._entries or (
                stop < len(words) and joined(text, words[stop - 1], words[stop])
            ):
                continue
            if name not in self._acronyms or _as_acronym(name, question):
                return range(start, stop), name
        return None


def _as_acronym(name: str, question: str) -> bool:
    """Whether a short name in capitals stands so in the question, or the question has no capitals at all.

    "tell us who" does not mention US.
    """
    return question == question.lower() or name.upper() in question


def _uncovered(text: str, words: Sequence[Token], spans: dict[range, str]) -> Iterator[list[str]]:
    """Runs of words that no exact name covers; words that are written as one stay together, "4711 b"."""
    covered = {index for span in spans for index in span}
    run: list[str] = []
    for index, word in enumerate(words):
        if index in covered:
            if run:
                yield run
            run = []
        elif run and joined(text, words[index - 1], word):
            run[-1] += " " + word.text
        else:
            run.append(word.text)
    if run:
        yield run
