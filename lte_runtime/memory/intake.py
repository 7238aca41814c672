"""From decoded edits to what the store takes: new vectors, and the edits whose text cannot be encoded."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from lte_runtime.memory.attempts import Attempts
from lte_runtime.memory.keywork import view_hash, view_text
from lte_runtime.memory.views import encode_views
from lte_runtime.types import Edit, Encoder, Op, Rejected, Vectors


@dataclass(slots=True)
class Intake:
    """Edits to apply, the new vectors by view, and what goes to the quarantine."""

    edits: list[Edit] = field(default_factory=list)
    vectors: dict[bytes, Vectors] = field(default_factory=dict)
    rejected: list[Rejected] = field(default_factory=list)


Missing = Callable[[Sequence[Edit]], Mapping[bytes, str]]


def take_in(
    edits: Sequence[Edit],
    rejected: Sequence[Rejected],
    missing_views: Missing,
    encoder: Encoder,
    batch: int,
    attempts: Attempts,
) -> Intake:
    """Encode what the store misses. One bad text, or a record that was deadly twice, stops no other."""
    made = Intake(rejected=list(rejected))
    good = []
    for edit in edits:
        if attempts.is_deadly(edit.position):
            made.rejected.append(_refused(edit, "crashed", "the process died twice over this record"))
        else:
            good.append(edit)
    groups = [[edit] for edit in good] if attempts.careful else [good]
    for group in groups:
        _encode(made, group, missing_views, encoder, batch, attempts)
    return made


def _encode(
    made: Intake,
    edits: list[Edit],
    missing_views: Missing,
    encoder: Encoder,
    batch: int,
    attempts: Attempts,
) -> None:
    """Until nothing is missing: after a refused text, another spelling of its key may follow in the batch."""
    while True:
        views = {name: text for name, text in missing_views(edits).items() if name not in made.vectors}
        if not views:
            break
        with attempts.trying([edit.position for edit in edits]):
            encoded = encode_views(views, encoder, batch)
        made.vectors |= encoded.vectors
        failed = encoded.failed
        for edit in edits:
            reason = failed.get(_view_of(edit))
            if reason is not None:
                made.rejected.append(_refused(edit, "encoder_failed", reason))
        edits = [edit for edit in edits if _view_of(edit) not in failed]
    made.edits += edits


def _view_of(edit: Edit) -> bytes:
    if edit.op is not Op.ASSERT or edit.key is None:
        return b""
    return view_hash(view_text(edit, edit.key))


def _refused(edit: Edit, code: str, message: str) -> Rejected:
    if edit.raw is None:
        raise ValueError("an edit without its raw record cannot be quarantined")
    return Rejected(edit.raw, code, message)
