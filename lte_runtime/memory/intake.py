"""From decoded edits to what the store takes: new vectors, and the edits whose text cannot be encoded."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from lte_runtime.memory.views import encode_views
from lte_runtime.store.key_update import view_hash, view_text
from lte_runtime.types import Edit, Encoder, Op, Rejected, Vectors


@dataclass(slots=True)
class Intake:
    """Edits to apply, the new vectors by view, and what goes to the quarantine."""

    edits: list[Edit] = field(default_factory=list)
    vectors: dict[bytes, Vectors] = field(default_factory=dict)
    rejected: list[Rejected] = field(default_factory=list)


Missing = Callable[[Sequence[Edit]], Mapping[bytes, str]]


def encode_edits(
    edits: Sequence[Edit],
    rejected: Sequence[Rejected],
    views: Mapping[bytes, str],
    missing_views: Missing,
    encoder: Encoder,
) -> Intake:
    """Encode `views`, which the store misses for these edits; one bad text stops no other."""
    intake = Intake(edits=list(edits), rejected=list(rejected))
    while views:
        encoded = encode_views(views, encoder)
        intake.vectors |= encoded.vectors
        if not encoded.failed:
            break
        _reject_unencodable(intake, encoded.failed)
        # After a refused text, another spelling of its key may follow in the batch.
        views = {
            name: text for name, text in missing_views(intake.edits).items() if name not in intake.vectors
        }
    return intake


def _reject_unencodable(intake: Intake, failed: Mapping[bytes, str]) -> None:
    encodable = []
    for edit in intake.edits:
        reason = failed.get(_view_hash_of(edit))
        if reason is None:
            encodable.append(edit)
        else:
            intake.rejected.append(_rejection(edit, "encoder_failed", reason))
    intake.edits = encodable


def _view_hash_of(edit: Edit) -> bytes:
    if edit.op is not Op.ASSERT or edit.key is None:
        return b""
    return view_hash(view_text(edit, edit.key))


def _rejection(edit: Edit, code: str, message: str) -> Rejected:
    if edit.raw is None:
        raise ValueError("an edit without its raw record cannot be quarantined")
    return Rejected(edit.raw, code, message)
