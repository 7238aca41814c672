"""The edit memory and its ingest, as the settings want them."""

from __future__ import annotations

from daemon.ingest.ingest import IngestSettings
from daemon.settings import Settings
from lte_runtime.facts.events import EventLimits
from lte_runtime.store.records import EditMemorySettings


def memory_settings(settings: Settings) -> EditMemorySettings:
    chosen = settings.memory
    return EditMemorySettings(index_mode=chosen.index_mode, quarantine_max_bytes=chosen.quarantine_max_bytes)


def ingest_settings(settings: Settings) -> IngestSettings:
    """Caps of a batch, pauses, limits of an event."""
    kafka, memory = settings.kafka, settings.memory
    writers = {name: frozenset(spaces) for name, spaces in kafka.publishers.items()}
    return IngestSettings(
        max_records=kafka.poll_max_records,
        refresh_s=kafka.refresh_s,
        serve_stale_after_s=kafka.stale_after_s,
        quarantine_max_bytes=memory.quarantine_max_bytes,
        limits=EventLimits(memory.event_max_bytes, writers),
    )
