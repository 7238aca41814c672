"""Why an edit is not what questions see. Pure; what questions see is looked up once for a key."""

from __future__ import annotations

from collections.abc import Iterator

from lte_runtime.errors import NotFound
from lte_runtime.facts.policy import KeyState, Member, WhyNot, current, same_version, target_form
from lte_runtime.types import Edit

CURRENT, RETRACTED, RETRACTION = "current", "retracted", "retraction"
SCHEDULED, EXPIRED = "scheduled", "expired"
CONFLICT_LOST, SUPERSEDED = "conflict_lost", "superseded"


def member_reasons(state: KeyState, at_ms: int) -> Iterator[tuple[Member, WhyNot]]:
    """Every member of a key, standing or withdrawn, with its reason; one pass over the members."""
    current_edits = current(state, at_ms)
    current_ids = {id(edit) for edit in current_edits}
    winner = current_edits[0] if current_edits else None
    for member in state.withdrawn:
        yield member, WhyNot(member.withdrawn_by, RETRACTED)
    for member in state.members:
        is_current = id(member.edit) in current_ids
        yield member, standing_reason(member.edit, winner, at_ms, is_current=is_current)


def why_not(state: KeyState, edit_id: str, at_ms: int) -> WhyNot:
    """The reason of one edit; raises `NotFound` for an id of another key."""
    for member, reason in member_reasons(state, at_ms):
        if edit_id in member.ids:
            return reason
    if any(edit.id == edit_id for edit in state.tombstones):
        return WhyNot(None, RETRACTION)
    raise NotFound(f"no edit {edit_id!r} in this key")


def standing_reason(edit: Edit, winner: Edit | None, at_ms: int, *, is_current: bool) -> WhyNot:
    """The reason of an edit that no retraction took. `winner` is the newest fact that questions see at
    `at_ms`, None when they see none; `is_current` says whether `edit` is among those that they see."""
    if is_current:
        return WhyNot(None, CURRENT)
    winner_id = winner.id if winner else None
    if edit.valid_from is not None and edit.valid_from > at_ms:
        return WhyNot(winner_id, SCHEDULED)
    if winner is None or (edit.valid_until is not None and edit.valid_until <= at_ms):
        return WhyNot(winner_id, EXPIRED)
    conflict = same_version(edit, winner) and target_form(edit) != target_form(winner)
    return WhyNot(winner_id, CONFLICT_LOST if conflict else SUPERSEDED)
