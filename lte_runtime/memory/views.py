"""Views to vectors: in batches, and text by text where a batch fails, so that one bad text stops no other.

A view that is longer than the encoder reads gets a vector for each window of it, the first one first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from lte_runtime.facts.events import LONG_KEY, LONG_STATEMENT
from lte_runtime.index.view_index import MOST_WINDOWS
from lte_runtime.store.key_update import view_text
from lte_runtime.types import Edit, Encoder, Op, Vectors

# Texts that the encoder takes at once, a full batch of ingest. It sorts them by length, so that short ones
# are not padded to long ones; more would only take memory.
ENCODE_BATCH = 512


@dataclass(frozen=True, slots=True)
class EncodedViews:
    """Vectors [windows, dimension] and failures by the hash of the view."""

    vectors: Mapping[bytes, Vectors]
    failed: Mapping[bytes, str]


def windows_of(view: str, encoder: Encoder) -> Sequence[str]:
    """The parts of a view that get a vector each."""
    return encoder.windows(view)[:MOST_WINDOWS]


def flag_long_texts(edit: Edit, encoder: Encoder) -> Edit:
    """The edit, flagged where the encoder does not read its texts at once."""
    if edit.op is not Op.ASSERT or edit.key is None:
        return edit
    texts = {LONG_KEY: view_text(edit, edit.key), LONG_STATEMENT: edit.statement}
    flags = [flag for flag, text in texts.items() if len(encoder.windows(text)) > 1]
    return replace(edit, flags=(*edit.flags, *flags)) if flags else edit


def encode_views(views: Mapping[bytes, str], encoder: Encoder) -> EncodedViews:
    """Encode every view once; `failed` tells which the encoder refuses."""
    windows = [(name, text) for name, view in views.items() for text in windows_of(view, encoder)]
    rows: dict[bytes, list[Vectors]] = {name: [] for name in views}
    failed: dict[bytes, str] = {}
    for start in range(0, len(windows), ENCODE_BATCH):
        part = windows[start : start + ENCODE_BATCH]
        for (name, _), row in zip(part, _encode([text for _, text in part], encoder), strict=True):
            if isinstance(row, str):
                failed[name] = row
            else:
                rows[name].append(row)
    return EncodedViews({name: np.stack(rows[name]) for name in views if name not in failed}, failed)


def _encode(texts: Sequence[str], encoder: Encoder) -> list[Vectors | str]:
    try:
        rows = encoder.encode(texts)
    except ValueError as error:
        if len(texts) == 1:
            return [f"the encoder refuses the text: {str(error)[:200]}"]
        return [row for text in texts for row in _encode([text], encoder)]
    return [row if _usable(row) else "the encoder made no unit vector" for row in rows]


def _usable(row: Vectors) -> bool:
    return bool(np.isfinite(row).all() and abs(float(row @ row) - 1.0) < 1e-2)
