"""From the history of a key to its facts. Pure: no clock, no store, and no trace of the order of arrival.

Order within a key: (revision, valid_from, effective time, partition, offset); a missing revision is below
every given one, a missing valid_from is the effective time. The rules are told in `docs/events.md`.

Timestamps come from publishers' clocks, so they do not decide within a partition: the effective time of a
record is the largest timestamp of the key so far in its partition, so that a later record is never earlier.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left, bisect_right, insort
from collections.abc import Collection, Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, takewhile
from typing import Protocol

from lte_runtime.facts.events import WITHDRAW_ALL
from lte_runtime.names.normalise import key_form
from lte_runtime.types import Cardinality, Edit, Op, Position

Order = tuple[int, int, int, int, int, int, str]
Moment = tuple[int, int, int, int, str]
EditName = tuple[str, str, str, str]

EARLIEST_MS, LATEST_MS = 946_684_800_000, 4_102_444_800_000
"""2000-01-01 and 2100-01-01. A timestamp outside comes from a broken clock and counts as none."""
HASHED = "target_hashed"
"""Flag of a retraction whose key was erased: its `target` is the hash of the target's form."""


@dataclass(frozen=True, slots=True)
class Member:
    """One fact of a key: an edit, with the ids of all events that said the same at the same revision, for the
    same time."""

    edit: Edit
    ids: tuple[str, ...]
    withdrawn_by: str | None = None

    @property
    def target(self) -> str:
        return target_form(self.edit)


@dataclass(frozen=True, slots=True)
class KeyState:
    """`members` lowest order first: what stands. `withdrawn`: what a retraction took. `tombstones`: the
    retractions, also those that found nothing to take yet. All with their effective times."""

    members: tuple[Member, ...]
    withdrawn: tuple[Member, ...]
    tombstones: tuple[Edit, ...]


@dataclass(frozen=True, slots=True)
class WhyNot:
    """Why an edit is not what questions see: a state's name, and the edit that stands in its place."""

    winner_id: str | None
    reason: str


def order_of(edit: Edit) -> Order:
    """The total order of the asserts of one key."""
    revision = -1 if edit.revision is None else edit.revision
    start = time_of(edit) if edit.valid_from is None else edit.valid_from
    return (revision, start, *moment_of(edit))


def moment_of(edit: Edit) -> Moment:
    """When an edit was published, for what no revision decides."""
    position = edit.position
    return (time_of(edit), position.partition, position.log, position.offset, position.topic_id)


def time_of(edit: Edit) -> int:
    """The effective time in milliseconds, once `effective_times` has set it where it is not the record's."""
    return usable_ms(edit.timestamp_ms) if edit.effective_ms is None else edit.effective_ms


def usable_ms(timestamp_ms: int) -> int:
    """The timestamp, or 0 for one that no working clock gives."""
    return timestamp_ms if EARLIEST_MS <= timestamp_ms < LATEST_MS else 0


def at_time(edit: Edit, effective_ms: int) -> Edit:
    """The edit with its effective time."""
    return edit if time_of(edit) == effective_ms else replace(edit, effective_ms=effective_ms)


def effective_times(history: Iterable[Edit]) -> list[Edit]:
    """All edits of one key, repeated deliveries included, with their effective times."""
    latest: dict[tuple[str, int], int] = {}
    timed = []
    for edit in sorted(history, key=lambda edit: _place(edit.position)):
        partition = (edit.position.topic_id, edit.position.partition)
        latest[partition] = max(latest.get(partition, 0), usable_ms(edit.timestamp_ms))
        timed.append(at_time(edit, latest[partition]))
    return timed


def _place(position: Position) -> tuple[str, int, int, int]:
    return (position.topic_id, position.partition, position.log, position.offset)


def target_form(edit: Edit) -> str:
    """The form in which targets are compared."""
    return key_form(edit.target or "")


class Versioned(Protocol):
    """What an edit, and a row of one, declares of its place in the order of its key."""

    @property
    def revision(self) -> int | None: ...
    @property
    def valid_from(self) -> int | None: ...


def same_version(edit: Versioned, other: Versioned) -> bool:
    """Whether two edits of a key have one revision, or without revisions one declared start: two values
    there are a conflict, and the lower one was never the key's value."""
    if edit.revision is None and other.revision is None:
        return edit.valid_from is not None and edit.valid_from == other.valid_from
    return edit.revision == other.revision


def precedes(assertion: Edit, retraction: Edit) -> bool:
    """Whether a retraction of the key reaches an assertion: by revision where both have one, else in time."""
    by_revision = precedes_by_revision(assertion, retraction)
    return moment_of(assertion) < moment_of(retraction) if by_revision is None else by_revision


def precedes_by_revision(assertion: Edit, retraction: Edit) -> bool | None:
    """The same as far as revisions decide; None where one of the two has none."""
    if assertion.revision is None or retraction.revision is None:
        return None
    return assertion.revision <= retraction.revision


def fold(history: Sequence[Edit]) -> KeyState:
    """The facts of one key from all its edits in any order, repeated deliveries included.

    Retractions by id alone belong to the history of each key that has an edit of that id.
    """
    unique = _deliveries_joined(effective_times(history))
    asserts = sorted((edit for edit in unique if edit.op is Op.ASSERT), key=order_of)
    retractions = sorted((edit for edit in unique if edit.op is Op.RETRACT), key=moment_of)
    members = _revisions_joined(asserts)
    withdrawals = _withdrawals(members, retractions)
    standing = [member for member in members if id(member) not in withdrawals]
    withdrawn = [
        replace(member, withdrawn_by=retraction_id) for member, retraction_id in withdrawals.values()
    ]
    return KeyState(tuple(standing), tuple(withdrawn), tuple(retractions))


def _withdrawals(members: Sequence[Member], retractions: Sequence[Edit]) -> dict[int, tuple[Member, str]]:
    """What retractions take, in their order: each member by its identity, with the id of the retraction."""
    by_id: dict[str, list[Member]] = {}
    for member in members:
        for edit_id in member.ids:
            by_id.setdefault(edit_id, []).append(member)
    withdrawals: dict[int, tuple[Member, str]] = {}
    standing = _Standing(members)
    for retraction in _distinct_retractions(retractions, by_id):
        standing.publish_before(retraction)
        if retraction.retracts in by_id:
            withdrawn = [member for member in by_id[retraction.retracts] if id(member) not in withdrawals]
        else:
            withdrawn = standing.withdrawn_by(retraction)
        standing.remove(withdrawn)
        withdrawals |= {id(member): (member, retraction.id) for member in withdrawn}
    return withdrawals


class _Standing:
    """The members of a key that no retraction has taken yet, so that one retraction costs what it takes, not
    what stands. Members are known by their rank in the key's order, the lowest first."""

    def __init__(self, members: Sequence[Member]) -> None:
        self._members = members
        self._rank = {id(member): rank for rank, member in enumerate(members)}
        self._revisions = [member.edit.revision for member in members if member.edit.revision is not None]
        self._first_revised = len(members) - len(self._revisions)  # those without one are below all others
        self._all = _Ranks(range(self._first_revised, len(members)))
        self._by_target: dict[str, _Ranks] = {}
        for rank, member in enumerate(members):
            ranks = self._by_target.setdefault(member.target, _Ranks(()))
            if rank >= self._first_revised:
                ranks.revised.append(rank)
        self._unpublished = sorted(range(len(members)), key=lambda rank: moment_of(members[rank].edit))
        self._unpublished.reverse()
        self._removed: set[int] = set()

    def publish_before(self, retraction: Edit) -> None:
        """From now on members published before the retraction are reached by moment."""
        moment = moment_of(retraction)
        while self._unpublished and moment_of(self._members[self._unpublished[-1]].edit) < moment:
            rank = self._unpublished.pop()
            if rank not in self._removed:
                self._all.publish(rank)
                self._by_target[self._members[rank].target].publish(rank)

    def withdrawn_by(self, retraction: Edit) -> list[Member]:
        """What a retraction of the key takes."""
        if retraction.key is None:
            return []
        if WITHDRAW_ALL in retraction.flags:
            return list(self._reached(self._all, retraction))
        if not retraction.target:
            return _current_run(self._reached(self._all, retraction), time_of(retraction))
        targets = [target for target in self._targets(retraction) if target in self._by_target]
        return [member for target in targets for member in self._reached(self._by_target[target], retraction)]

    def remove(self, members: Iterable[Member]) -> None:
        for member in members:
            rank = self._rank[id(member)]
            self._removed.add(rank)
            self._all.remove(rank)
            self._by_target[member.target].remove(rank)

    def _targets(self, retraction: Edit) -> Iterable[str]:
        if HASHED not in retraction.flags:
            return (target_form(retraction),)
        return (target for target in self._by_target if hashed_target(target) == retraction.target)

    def _reached(self, ranks: _Ranks, retraction: Edit) -> Iterator[Member]:
        """Members that a retraction of the key reaches, the highest first; see `precedes`."""
        if retraction.revision is None:
            reached = _downwards(ranks.published, len(self._members))
        else:
            limit = self._first_revised + bisect_right(self._revisions, retraction.revision)
            without = _downwards(ranks.published, self._first_revised)
            reached = chain(_downwards(ranks.revised, limit), without)
        return (self._members[rank] for rank in reached)


class _Ranks:
    """Ranks of members in order: those `published` so far, and those with a revision whenever published."""

    def __init__(self, revised: Iterable[int]) -> None:
        self.published: list[int] = []
        self.revised = list(revised)

    def publish(self, rank: int) -> None:
        insort(self.published, rank)

    def remove(self, rank: int) -> None:
        for ranks in (self.published, self.revised):
            place = bisect_left(ranks, rank)
            if ranks[place : place + 1] == [rank]:
                del ranks[place]


def _downwards(ranks: Sequence[int], limit: int) -> Iterator[int]:
    """Ranks below a limit, the highest first."""
    return (ranks[place] for place in range(bisect_left(ranks, limit) - 1, -1, -1))


def _deliveries_joined(history: Iterable[Edit]) -> list[Edit]:
    """One edit per (source, op, id, content), at the earliest of its positions."""
    first: dict[EditName, Edit] = {}
    for edit in history:
        name = name_of(edit)
        if name not in first or moment_of(edit) < moment_of(first[name]):
            first[name] = edit
    return list(first.values())


def name_of(edit: Edit) -> EditName:
    """What all deliveries of one edit of a key share."""
    return (edit.source_uri, edit.op.value, edit.id, edit.content_hash)


def _revisions_joined(asserts: Sequence[Edit]) -> list[Member]:
    """One member per given revision, target and time of validity, represented by the lowest; lowest first."""
    groups: dict[object, list[Edit]] = {}
    for edit in asserts:
        content = (edit.revision, target_form(edit), edit.valid_from, edit.valid_until)
        groups.setdefault(content if edit.revision is not None else object(), []).append(edit)
    return [Member(edits[0], tuple(edit.id for edit in edits)) for edits in groups.values()]


def _distinct_retractions(retractions: Sequence[Edit], edit_ids: Container[str | None]) -> Iterable[Edit]:
    """Retractions of the key with the same revision and target are one."""
    unique: dict[object, Edit] = {}
    for edit in retractions:
        by_key = edit.revision is not None and edit.retracts not in edit_ids
        content = (edit.revision, edit.target and target_form(edit)) if by_key else object()
        unique.setdefault(content, edit)
    return unique.values()


def withdrawn_members(
    retraction: Edit, standing: Sequence[Member], edit_ids: Collection[str], *, newest: bool = False
) -> list[Member]:
    """What one retraction takes. One that names an edit of this key takes that and nothing else, whenever
    it was published; an own id that names nothing here leaves a retraction of the key. `newest`: it was
    published after all that stands, so that only revisions decide what it reaches."""
    if retraction.retracts in edit_ids:
        return [member for member in standing if retraction.retracts in member.ids]
    if retraction.key is None:
        return []
    reaches = precedes_by_revision if newest else precedes
    reached = [member for member in standing if reaches(member.edit, retraction) is not False]
    if WITHDRAW_ALL in retraction.flags:
        return reached
    if retraction.target:
        return [member for member in reached if _has_target(member, retraction)]
    return _current_run(reversed(reached), time_of(retraction))


def _has_target(member: Member, retraction: Edit) -> bool:
    if HASHED in retraction.flags:
        return hashed_target(member.target) == retraction.target
    return member.target == target_form(retraction)


def hashed_target(form: str) -> str:
    """What stays of a target's form when its key is erased."""
    return hashlib.sha256(form.encode()).hexdigest()


def _current_run(reached: Iterable[Member], at_ms: int) -> list[Member]:
    """What a retraction of the key takes: the facts current when it was published (else the newest), with the
    equal ones straight below, or else the same value would still be served. `reached`: highest first."""
    members = iter(reached)
    passed: list[Member] = []
    top = _visible(_valid(members, at_ms, passed)) or _visible(passed)
    if not top:
        return []
    targets = {member.target for member in top}
    lowest = passed.index(top[-1])
    below = takewhile(lambda member: member.target in targets, chain(passed[lowest + 1 :], members))
    return [member for member in passed[: lowest + 1] if member.target in targets] + list(below)


def _valid(members: Iterable[Member], at_ms: int, passed: list[Member]) -> Iterator[Member]:
    """The members that hold at a time; notes all that were looked at."""
    for member in members:
        passed.append(member)
        if _holds(member.edit, at_ms, as_of=False):
            yield member


def _holds(edit: Edit, at_ms: int, *, as_of: bool) -> bool:
    """Validity: an undated fact holds from its effective time on when the past is asked for, and always when
    the present is (a publisher's clock may run ahead)."""
    start = time_of(edit) if as_of and edit.valid_from is None else edit.valid_from
    return (start is None or start <= at_ms) and (edit.valid_until is None or at_ms < edit.valid_until)


def _visible(valid: Iterable[Member]) -> list[Member]:
    """The newest alone, or the set that it belongs to: all `many` members above the newest `one`. `valid`:
    highest first, read no further than needed."""
    members: dict[str, Member] = {}
    for member in valid:
        if member.edit.cardinality is Cardinality.ONE:
            return list(members.values()) or [member]
        members.setdefault(member.target, member)
    return list(members.values())


def current(state: KeyState, at_ms: int, *, as_of: bool = False) -> tuple[Edit, ...]:
    """The facts that questions see at a time, newest first; several only for a set-valued key."""
    valid = (member for member in reversed(state.members) if _holds(member.edit, at_ms, as_of=as_of))
    return tuple(member.edit for member in _visible(valid))
