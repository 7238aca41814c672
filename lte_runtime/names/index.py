"""Names of keys by namespace: which of them a question mentions, exactly, nearly or by a part.

Dense vectors are weak on rare names, codes and versions. What counts as a mention is told in `mention`; here
are only the ways to the few names that are worth a look.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, groupby, islice

from lte_runtime.names.mention import (
    Mention,
    close_form,
    is_acronym,
    misspelt_name,
    part_of_name,
    whole_name,
)
from lte_runtime.names.parts import NamesByPart, end_of, first_of
from lte_runtime.names.reading import Reading
from lte_runtime.names.tokens import folded_name
from lte_runtime.names.trigrams import TrigramIndex

_LONGEST = 32  # words of a question that one name is looked for in
_PARTED = 2  # words that a question may make more of a name than the name has: "SKU 4711" of SKU4711
_SWEEP_FROM = 1024
MOST_RUNS = 16
"""Stretches between names in which misspelt names and parts of names are looked for, the first ones.

Each reads the postings of its trigrams."""
MOST_COMPARED = 4_096
"""Pairs of a name and a word of the question that are compared by letters, the likeliest names first."""

MOST_SAME = 4_096
"""Keys that are compared to tell whether names with one end are names of one subject."""
MOST_ALIKE = 64
"""Names with the same letters in other words or with other accents that are looked at, the first ones."""

Nearest = Callable[[], Sequence[int]]
"""Gives keys, those that are nearest to what is asked first. Asked for only where a name is crowded."""
_Run = tuple[int, int]


@dataclass(frozen=True, slots=True)
class NameHit:
    """A key whose name the question mentions."""

    key_id: int
    mention: Mention


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
        reading = Reading(question)
        with self._lock:
            space = self._spaces.get(namespace)
            if space is None:
                return []
            mentions = sorted(space.find(reading), key=lambda mention: (-mention.score, -len(mention.name)))
            best: dict[int, NameHit] = {}
            for _, alike in groupby(mentions, key=lambda mention: (mention.score, len(mention.name))):
                hits = (
                    NameHit(key_id, mention)
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


@dataclass(slots=True)
class _Name:
    """One name (folded) with its slot among the trigrams and the keys that bear it."""

    folded: str
    slot: int
    key_ids: tuple[int, ...]
    acronym: bool
    end: str
    first: str


class _Names:
    """One namespace: names by their close form, mostly one for each."""

    def __init__(self) -> None:
        self._names: dict[str, tuple[_Name, ...]] = {}
        self._names_of: dict[int, tuple[str, ...]] = {}
        self._ends, self._firsts = NamesByPart(), NamesByPart()
        self._trigrams = TrigramIndex()
        self._longest = 1

    def add(self, key_id: int, names: Sequence[str]) -> None:
        folded = {folded_name(name): name for name in names}
        folded.pop("", None)
        self._names_of[key_id] = tuple(self._enter(key_id, key, name) for key, name in folded.items())

    def _enter(self, key_id: int, folded: str, name: str) -> str:
        close = close_form(folded)
        entries = self._names.get(close, ())
        entry = next((entry for entry in entries if entry.folded == folded), None)
        if entry is None:
            entry = self._new(folded, name)
            self._names[close] = (*entries, entry)
        entry.key_ids = (*entry.key_ids, key_id)
        return entry.folded

    def _new(self, folded: str, name: str) -> _Name:
        slot, end, first = self._trigrams.put(folded), end_of(name), first_of(name, folded)
        self._ends.add(end, folded)
        self._firsts.add(first, folded)
        self._longest = max(self._longest, min(_LONGEST, folded.count(" ") + 1 + _PARTED))
        return _Name(folded, slot, (), is_acronym(name, folded), end, first)

    def remove(self, key_id: int) -> None:
        for folded in self._names_of.pop(key_id):
            entry = self._get(folded)
            if entry is None:
                continue
            entry.key_ids = tuple(other for other in entry.key_ids if other != key_id)
            if not entry.key_ids:
                self._drop(entry)
        self._sweep()

    def _drop(self, entry: _Name) -> None:
        close = close_form(entry.folded)
        others = tuple(other for other in self._names[close] if other is not entry)
        if others:
            self._names[close] = others
        else:
            del self._names[close]
        self._ends.remove(entry.end, entry.folded)
        self._firsts.remove(entry.first, entry.folded)
        self._trigrams.drop(entry.slot)

    def _sweep(self) -> None:
        """Build the trigram index anew when half of its slots are given up."""
        if self._trigrams.dropped < max(_SWEEP_FROM, len(self._trigrams) // 2):
            return
        self._trigrams = TrigramIndex()
        for entries in self._names.values():
            for entry in entries:
                entry.slot = self._trigrams.put(entry.folded)

    def _get(self, folded: str) -> _Name | None:
        entries = self._names.get(close_form(folded), ())
        return next((entry for entry in entries if entry.folded == folded), None)

    def ids_of(self, folded: str) -> tuple[int, ...]:
        entry = self._get(folded)
        return entry.key_ids if entry else ()

    def bearers(self, folded: str, limit: int, nearest: Nearest) -> Sequence[int]:
        """At most `limit` keys that bear the name: all, or the nearest ones and then the first ones."""
        ids = self.ids_of(folded)
        if len(ids) <= limit or limit == 0:
            return ids[:limit]
        near = [key_id for key_id in nearest() if folded in self._names_of.get(key_id, ())]
        return list(dict.fromkeys([*near, *ids[:limit]]))[:limit]

    def find(self, reading: Reading) -> list[Mention]:
        """Whole names first; misspelt ones and parts among the words that these leave."""
        places = self._whole(reading)
        mentions = [mention for _, alike in places for mention in alike]
        runs = list(islice(_between(reading, [run for run, _ in places]), MOST_RUNS))
        mentions += self._misspelt(reading, runs)
        named = [mention for mention in mentions if mention.named]
        for run in runs:
            mentions += (m for m in self._parted(reading, run) if not _within(m, named))
        return mentions

    def _whole(self, reading: Reading) -> list[tuple[_Run, list[Mention]]]:
        """Places of names: the longest at each start, without those that lie within another's place."""
        places: list[tuple[_Run, list[Mention]]] = []
        end = 0
        for start in range(len(reading.words)):
            place = self._longest_at(reading, start)
            if place and place[0][1] > end:
                places.append(place)
                end = place[0][1]
        return places

    def _longest_at(self, reading: Reading, start: int) -> tuple[_Run, list[Mention]] | None:
        if reading.words[start].joined:
            return None
        for stop in range(min(len(reading.words), start + self._longest), start, -1):
            entries = self._names.get(reading.close_of(start, stop))
            if not entries or not reading.whole(start, stop):
                continue
            exact = self._get(reading.folded.of(start, stop))
            entries = (exact,) if exact else entries[:MOST_ALIKE]
            met = (whole_name(reading, start, stop, entry.folded, acronym=entry.acronym) for entry in entries)
            mentions = [mention for mention in met if mention is not None]
            if mentions:
                best = max(mention.score for mention in mentions)
                return (start, stop), [mention for mention in mentions if mention.score == best]
        return None

    def _misspelt(self, reading: Reading, runs: Sequence[_Run]) -> list[Mention]:
        mentions, compared = list[Mention](), MOST_COMPARED
        for first, stop in runs:
            for name in self._trigrams.near(reading.plain.of(first, stop)):
                compared -= stop - first
                if compared < 0:
                    return mentions
                mention = misspelt_name(reading, name, first, stop)
                if mention is not None:
                    mentions.append(mention)
        return mentions

    def _parted(self, reading: Reading, run: _Run) -> Iterator[Mention]:
        """Names of which only a part stands among the words of a run."""
        ends, firsts, met = self._ends, self._firsts, set[str]()
        for start in range(*run):
            most = start + self._longest if len(ends) else start + 1
            for stop in range(min(run[1], most), start, -1):
                close = reading.close.of(start, stop)
                if close in met or (close not in ends and (stop - start > 1 or close not in firsts)):
                    continue
                if reading.whole(start, stop) and not reading.inside(start, stop, at_most=True):
                    met.add(close)
                    yield from self._parts_at(reading, start, stop, close)

    def _parts_at(self, reading: Reading, start: int, stop: int, close: str) -> Iterator[Mention]:
        names, ambiguous = self._ends.of(close), False
        if stop - start == 1 and not names and not reading.is_small(start):
            names, ambiguous = self._firsts.of(close), True
        if ambiguous or self._are_one_subjects(names):
            for name in sorted(names):
                yield part_of_name(reading, start, stop, name, ambiguous=ambiguous)

    def _are_one_subjects(self, names: Collection[str]) -> bool:
        """Whether the keys of one of the names are all that bear any of them: a subject and its aliases.

        Names that very many keys bear are not compared, and count as several subjects'.
        """
        if len(names) <= 1:
            return len(names) == 1
        key_ids = sorted((self.ids_of(name) for name in names), key=len)
        return sum(map(len, key_ids)) <= MOST_SAME and set(key_ids[-1]) == set(chain(*key_ids))


def _between(reading: Reading, places: Sequence[_Run]) -> Iterator[_Run]:
    """Runs of words that lie in none of the places, which stand in order."""
    start = 0
    for first, stop in [*places, (len(reading.words), 0)]:
        if start < first:
            yield start, first
        start = max(start, stop)


def _within(mention: Mention, others: Sequence[Mention]) -> bool:
    return any(mention.overlaps(other.start, other.end) for other in others)
