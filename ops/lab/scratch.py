"""A temporary edit memory filled with given events: what calibration and evaluations ask questions of."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lte_runtime.facts.events import EventLimits, decode, to_json
from lte_runtime.facts.policy import EARLIEST_MS
from lte_runtime.memory.edit_memory import EditMemory, EditMemorySettings
from lte_runtime.types import Batch, Edit, Encoder, Position, RawRecord, TopicPartition

TOPIC = TopicPartition("scratch", 0)
START_MS = EARLIEST_MS
"""When the first event was published; each is a millisecond later than the one before."""


@contextmanager
def memory_of(events: Sequence[Mapping[str, Any]], encoder: Encoder) -> Iterator[EditMemory]:
    """A memory with `events` applied in order, gone afterwards. Raises `BadRecord` for what is no event."""
    with tempfile.TemporaryDirectory(prefix="lte-scratch-") as directory:
        memory = EditMemory.open(Path(directory), encoder, EditMemorySettings())
        try:
            apply_events(memory, events)
            yield memory
        finally:
            memory.close()


def apply_events(memory: EditMemory, events: Sequence[Mapping[str, Any]], *, batch: int = 512) -> None:
    """Append `events` behind what the memory has of the scratch topic."""
    start = memory.next_offsets().get(TOPIC, 0)
    edits = [_edit(event, start + i) for i, event in enumerate(events)]
    for i in range(0, len(edits), batch):
        part = tuple(edits[i : i + batch])
        memory.apply(Batch(part, (), {TOPIC: part[-1].position.offset + 1}))


def _edit(event: Mapping[str, Any], offset: int) -> Edit:
    position = Position(TOPIC.topic_id, TOPIC.partition, offset)
    record = RawRecord("scratch", position, None, to_json(event), timestamp_ms=START_MS + offset)
    return decode(record, EventLimits())
