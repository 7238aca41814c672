"""The half of every public benchmark that is set aside for judging: decided by a hash of the subject."""

from __future__ import annotations

import hashlib
import unicodedata


def held_out(subject: str) -> bool:
    """Whether records about `subject` are for evaluation only (about half of all subjects).

    The subject is NFC-normalised, case-folded and stripped of surplus white space before hashing.
    """
    text = " ".join(unicodedata.normalize("NFC", subject).casefold().split())
    return hashlib.sha256(text.encode()).digest()[-1] % 2 == 0
