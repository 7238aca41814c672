"""The edit memory and its ingest, as the settings want them."""

from __future__ import annotations

from daemon.ingest.ingest import IngestSettings
from daemon.settings import KafkaSettings, PublisherRights, Settings
from lte_runtime.facts.events import EventLimits
from lte_runtime.facts.name_owners import NameOwners
from lte_runtime.store.records import EditMemorySettings


def memory_settings(settings: Settings) -> EditMemorySettings:
    chosen = settings.memory
    return EditMemorySettings(
        index_mode=chosen.index_mode,
        quarantine_max_bytes=chosen.quarantine_max_bytes,
        owners=name_owners(settings.kafka),
    )


def name_owners(kafka: KafkaSettings) -> NameOwners:
    """The names that `kafka.publishers` reserves."""
    tables = {
        name: rights for name, rights in kafka.publishers.items() if isinstance(rights, PublisherRights)
    }
    return NameOwners.of({publisher: rights.names for publisher, rights in tables.items()})


def writers(kafka: KafkaSettings) -> dict[str, frozenset[str]]:
    """The namespaces of each publisher; empty where `kafka.publishers` limits none."""
    spaces = {
        publisher: rights.namespaces if isinstance(rights, PublisherRights) else rights
        for publisher, rights in kafka.publishers.items()
    }
    if all(namespaces is None for namespaces in spaces.values()):
        return {}
    return {
        publisher: frozenset(["*"] if namespaces is None else namespaces)
        for publisher, namespaces in spaces.items()
    }


def ingest_settings(settings: Settings) -> IngestSettings:
    """Caps of a batch, pauses, limits of an event."""
    kafka, memory = settings.kafka, settings.memory
    return IngestSettings(
        max_records=kafka.poll_max_records,
        refresh_s=kafka.refresh_s,
        serve_stale_after_s=kafka.stale_after_s,
        quarantine_max_bytes=memory.quarantine_max_bytes,
        limits=EventLimits(memory.event_max_bytes, writers(kafka), name_owners(kafka)),
    )
