"""A topic of one partition that only counts: it gives events their offsets and times."""

from __future__ import annotations

from lte_runtime.facts.events import EventLimits, decode, to_json
from lte_runtime.types import Batch, Edit, Position, RawRecord, Rejected, TopicPartition

NOW = 1_800_000_000_000


class Log:
    """Makes records, edits and batches."""

    def __init__(self) -> None:
        self.next = 0

    def record(
        self,
        value: bytes | None,
        *,
        key: bytes | None = None,
        headers: tuple[tuple[str, bytes], ...] = (),
        timestamp_ms: int | None = None,
        topic_id: str = "T",
        partition: int = 0,
        offset: int | None = None,
    ) -> RawRecord:
        offset = self.next if offset is None else offset
        self.next = max(self.next, offset + 1)
        when = NOW - 1_000_000 + offset if timestamp_ms is None else timestamp_ms
        return RawRecord("lte.edits", Position(topic_id, partition, offset), key, value, headers, when)

    def edit(self, *, at: int | None = None, offset: int | None = None, **event: object) -> Edit:
        return decode(self.record(to_json(event), timestamp_ms=at, offset=offset), EventLimits(), now_ms=NOW)

    @staticmethod
    def body(target: str) -> bytes:
        """The bytes of such an assertion without an id."""
        return to_json({"subject": "Acme", "relation": "boss", "target": target})

    def fact(self, target: str, *, at: int | None = None, offset: int | None = None, **event: object) -> Edit:
        """An assertion about the boss of Acme, unless `event` says otherwise."""
        parts = {"subject": "Acme", "relation": "boss", "target": target, **event}
        return self.edit(at=at, offset=offset, **parts)

    def retract(self, *, at: int | None = None, **event: object) -> Edit:
        """A retraction of the boss of Acme; with `id` alone, of that edit."""
        parts = event if set(event) == {"id"} else {"subject": "Acme", "relation": "boss", **event}
        return self.edit(at=at, op="retract", **parts)

    def batch(self, *edits: Edit, rejected: tuple[Rejected, ...] = ()) -> Batch:
        return Batch(edits, rejected, {TopicPartition("T", 0): self.next})
