"""What is measured to notice drift: one value a name and cycle, with the sample that it rests on. Pure."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from lte_runtime.names.normalise import key_form

EDIT_SUCCESS = "edit_success"
GENERALITY = "generality"
ALIAS = "alias"
PORTABILITY = "portability"
LOCALITY = "locality"
CHOICE = "choice"
RETRIEVAL_HITS = "retrieval_hits"
RECALL = "recall_self_check"
GATE_MARGIN = "gate_margin"
UNSEEN_RELATIONS = "unseen_relations"
EDITS_SINCE = "edits_since_alignment"
QUESTION_SHIFT = "question_shift"
EVENT_SHIFT = "event_shift"
NEGATIVE_FEEDBACK = "negative_feedback"

NAMES = (
    EDIT_SUCCESS,
    GENERALITY,
    ALIAS,
    PORTABILITY,
    LOCALITY,
    CHOICE,
    RETRIEVAL_HITS,
    RECALL,
    GATE_MARGIN,
    UNSEEN_RELATIONS,
    EDITS_SINCE,
    QUESTION_SHIFT,
    EVENT_SHIFT,
    NEGATIVE_FEEDBACK,
)


@dataclass(frozen=True, slots=True)
class Reading:
    """`value` is the mean over `n` observations at `time_ms` (since the epoch); `n` 0 says nothing.

    Shares are in [0, 1]; shifts are p-values; `edits_since_alignment` is a count with `n` 1. A cycle may
    give its probes as several readings in a row (say 16 each): a change is then found sooner.
    Raises `ValueError` for a value that is not finite or a negative `n`.
    """

    name: str
    value: float
    n: int
    time_ms: int

    def __post_init__(self) -> None:
        if not math.isfinite(self.value) or self.n < 0:
            raise ValueError(f"reading {self.name}: value {self.value}, n {self.n}")


def share(name: str, outcomes: Sequence[bool], time_ms: int) -> Reading:
    """The share of true outcomes."""
    return Reading(name, sum(outcomes) / max(len(outcomes), 1), len(outcomes), time_ms)


def unseen_relations(relations: Sequence[str], aligned: Collection[str], time_ms: int) -> Reading:
    """The share of events whose relation the last alignment has not seen.

    `aligned` holds relations in key form (`key_form`).
    """
    return share(UNSEEN_RELATIONS, [key_form(relation) not in aligned for relation in relations], time_ms)
