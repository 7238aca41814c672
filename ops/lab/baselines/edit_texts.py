"""Edits that stay text, found by the vectors of their statements: the memory of ICE and SERAC."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lte_runtime.types import Encoder, Vectors
from ops.lab.baselines.protocol import EditRequest


class EditTexts:
    """In order of arrival; a later edit of the same prompt replaces the earlier one."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._edits: dict[str, EditRequest] = {}
        self._vectors: dict[str, Vectors] = {}

    def add(self, requests: Sequence[EditRequest]) -> None:
        if not requests:
            return
        vectors = self._encoder.encode([request.statement for request in requests])
        for request, vector in zip(requests, vectors, strict=True):
            self._edits[request.prompt] = request
            self._vectors[request.prompt] = vector

    def clear(self) -> None:
        self._edits.clear()
        self._vectors.clear()

    @property
    def edits(self) -> list[EditRequest]:
        return list(self._edits.values())

    @property
    def vectors(self) -> Vectors:
        """[edits, dimension], in the order of `edits`; there must be one."""
        return np.stack(list(self._vectors.values()))
