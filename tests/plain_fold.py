"""The fold as its rules are told in docs/events.md, retraction by retraction over all that stands."""

from __future__ import annotations

from collections.abc import Sequence

from lte_runtime.facts import policy
from lte_runtime.facts.events import WITHDRAW_ALL
from lte_runtime.facts.policy import Member, effective_times, moment_of, order_of, precedes, target_form
from lte_runtime.types import Cardinality, Edit, Op

Outcome = tuple[list[tuple[str, ...]], dict[tuple[str, ...], str]]


def plain_fold(history: Sequence[Edit]) -> Outcome:
    """Ids of what stands, lowest first, and the retraction of each withdrawn member."""
    unique = policy._deliveries_joined(effective_times(history))
    asserts = sorted((edit for edit in unique if edit.op is Op.ASSERT), key=order_of)
    retractions = sorted((edit for edit in unique if edit.op is Op.RETRACT), key=moment_of)
    standing = policy._revisions_joined(asserts)
    edit_ids = {edit_id for member in standing for edit_id in member.ids}
    withdrawn: dict[tuple[str, ...], str] = {}
    for retraction in policy._distinct_retractions(retractions, edit_ids):
        reached = _withdrawn_members(retraction, standing, edit_ids)
        withdrawn |= {member.ids: retraction.id for member in reached}
        standing = [member for member in standing if member not in reached]
    return [member.ids for member in standing], withdrawn


def _withdrawn_members(retraction: Edit, standing: Sequence[Member], edit_ids: set[str]) -> list[Member]:
    if retraction.retracts in edit_ids:
        return [member for member in standing if retraction.retracts in member.ids]
    if retraction.key is None:
        return []
    reached = [member for member in standing if precedes(member.edit, retraction)]
    if WITHDRAW_ALL in retraction.flags:
        return reached
    if retraction.target:
        return [member for member in reached if member.target == target_form(retraction)]
    return _current_run(reached, policy.time_of(retraction))


def _current_run(reached: Sequence[Member], at_ms: int) -> list[Member]:
    if not reached:
        return []
    valid = [member for member in reached if policy._holds(member.edit, at_ms, as_of=False)]
    top = _visible(valid or reached)
    targets = {member.target for member in top}
    lowest = list(reached).index(top[-1])
    while lowest > 0 and reached[lowest - 1].target in targets:
        lowest -= 1
    return [member for member in reached[lowest:] if member.target in targets]


def _visible(valid: Sequence[Member]) -> list[Member]:
    if valid[-1].edit.cardinality is Cardinality.ONE:
        return [valid[-1]]
    members: dict[str, Member] = {}
    for member in reversed(valid):
        if member.edit.cardinality is Cardinality.ONE:
            break
        members.setdefault(member.target, member)
    return list(members.values())
