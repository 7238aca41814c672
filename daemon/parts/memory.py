"""The edit memory and its ingest, as the settings want them."""

from __future__ import annotations

from daemon.ingest.ingest import IngestSettings
from daemon.ingest.publisher_guard import GuardSettings
from daemon.settings import Settings
from lte_runtime.facts.events import EventLimits
from lte_runtime.store.records import EditMemorySettings


def memory_settings(settings: Settings) -> EditMemorySettings:
    chosen = settings.memory
    return EditMemorySettings(
        index_mode=chosen.index_mode,
        hnsw_from=chosen.hnsw_from,
        rebuild_dead_share=chosen.rebuild_dead_share,
        quarantine_max_bytes=chosen.quarantine_max_bytes,
        snapshot_keep=chosen.snapshot_keep,
        encode_batch=chosen.encode_batch,
    )


def ingest_settings(settings: Settings) -> IngestSettings:
    """Caps of a batch, pauses, limits of an event, the publisher guard."""
    kafka, memory = settings.kafka, settings.memory
    writers = {name: frozenset(spaces) for name, spaces in kafka.publishers.items()}
    return IngestSettings(
        max_records=kafka.poll_max_records,
        max_bytes=kafka.poll_max_bytes,
        max_gather_s=kafka.poll_max_ms / 1000,
        refresh_s=kafka.refresh_s,
        reconnect_s=kafka.reconnect_s,
        reconnect_max_s=kafka.reconnect_max_s,
        serve_stale_after_s=kafka.stale_after_s,
        quarantine_max_bytes=memory.quarantine_max_bytes,
        limits=EventLimits(memory.event_max_bytes, memory.event_max_depth, writers),
        guard=GuardSettings(
            kafka.bad_window_s, kafka.bad_min, kafka.bad_share, max_publishers=kafka.bad_publishers_max
        ),
    )
