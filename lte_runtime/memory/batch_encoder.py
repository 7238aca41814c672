"""From a decoded batch to a committed one: what the store misses is encoded, and all is written.

Encoding keeps its engine's threads busy and Python idle, writing the other way round. So a batch with many
new views is written while they are encoded: its transaction waits for the vectors before it commits.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

from lte_runtime.facts.events import LONG_KEY, LONG_STATEMENT
from lte_runtime.memory.intake import encode_edits
from lte_runtime.memory.views import encode_views, flag_long_texts
from lte_runtime.store.batch_writer import StoreResult
from lte_runtime.store.writer import Store
from lte_runtime.types import Batch, Encoder, Vectors

# New views from which on the thread is worth its hand-over; a few are encoded before it would have begun.
BESIDE_FROM = 64


class Unencodable(ValueError):
    """The encoder refuses a text, so that the edits that are written are not the right ones."""


@dataclass(frozen=True, slots=True)
class CommittedBatch:
    """A committed batch: what the store did, the new vectors by view, and the time it took.

    `encode_ms` is what was waited for the encoder, `store_ms` all the rest. `long_texts` counts edits by
    flag.
    """

    result: StoreResult
    vectors: Mapping[bytes, Vectors]
    encode_ms: float
    store_ms: float
    long_texts: Mapping[str, int] = field(default_factory=dict)


class BatchEncoder:
    """Used by the one writer. `close` ends its thread."""

    def __init__(self, store: Store, encoder: Encoder) -> None:
        self._store, self._encoder = store, encoder
        self._thread = ThreadPoolExecutor(1, "encode")

    def close(self) -> None:
        self._thread.shutdown()

    def encode_and_write(
        self, batch: Batch, now_ms: int, confirm: Callable[[], None] = lambda: None
    ) -> CommittedBatch:
        """Encode, `confirm` and commit; after an exception nothing of the batch is in the store."""
        batch = replace(batch, edits=tuple(flag_long_texts(edit, self._encoder) for edit in batch.edits))
        return replace(self._committed(batch, now_ms, confirm), long_texts=_long_texts(batch))

    def _committed(self, batch: Batch, now_ms: int, confirm: Callable[[], None]) -> CommittedBatch:
        views = self._store.missing_views(batch.edits)
        if len(views) >= BESIDE_FROM:
            try:
                return self._encode_while_writing(batch, views, now_ms, confirm)
            except Unencodable:
                pass  # one by one, so that the bad text alone goes to the quarantine
        return self._encode_then_write(batch, views, now_ms, confirm)

    def _encode_then_write(
        self, batch: Batch, views: Mapping[bytes, str], now_ms: int, confirm: Callable[[], None]
    ) -> CommittedBatch:
        begun = time.perf_counter()
        missing_views = self._store.missing_views
        intake = encode_edits(batch.edits, batch.rejected, views, missing_views, self._encoder)
        encoded = time.perf_counter()

        def vectors() -> Mapping[bytes, Vectors]:
            confirm()
            return intake.vectors

        result = self._store.write_batch(
            intake.edits, intake.rejected, vectors, batch.next_offsets, now_ms, batch.leader_epochs
        )
        return CommittedBatch(
            result, intake.vectors, (encoded - begun) * 1e3, (time.perf_counter() - encoded) * 1e3
        )

    def _encode_while_writing(
        self, batch: Batch, views: Mapping[bytes, str], now_ms: int, confirm: Callable[[], None]
    ) -> CommittedBatch:
        begun = time.perf_counter()
        encoding = self._thread.submit(encode_views, views, self._encoder)
        waited_ms = 0.0

        def vectors() -> Mapping[bytes, Vectors]:
            nonlocal waited_ms
            wait_began = time.perf_counter()
            encoded = encoding.result()
            waited_ms = (time.perf_counter() - wait_began) * 1e3
            if encoded.failed:
                raise Unencodable
            confirm()
            return encoded.vectors

        result = self._store.write_batch(
            batch.edits, batch.rejected, vectors, batch.next_offsets, now_ms, batch.leader_epochs
        )
        total_ms = (time.perf_counter() - begun) * 1e3
        return CommittedBatch(result, encoding.result().vectors, waited_ms, total_ms - waited_ms)


def _long_texts(batch: Batch) -> dict[str, int]:
    flags = Counter(flag for edit in batch.edits for flag in edit.flags)
    return {flag: flags[flag] for flag in (LONG_KEY, LONG_STATEMENT) if flags[flag]}
