"""A process that ingests into the real edit memory until it is killed; prints its progress as lines."""

from __future__ import annotations

import sys
from pathlib import Path

from daemon.ingest.ingest import BatchReport, Ingest, IngestSettings
from daemon.kafka.source import KafkaSource, KafkaSourceSettings
from daemon.lifecycle import Lifecycle
from lte_runtime.answer.encoder.stub import StubEncoder
from lte_runtime.memory.edit_memory import EditMemory


def main(bootstrap: str, topic: str, directory: str) -> None:
    memory = EditMemory.open(Path(directory), StubEncoder())

    def tell(_: BatchReport) -> None:
        print(sum(memory.next_offsets().values()), flush=True)

    print(sum(memory.next_offsets().values()), flush=True)
    source = KafkaSource(KafkaSourceSettings(bootstrap, topic, refresh_s=0.5))
    settings = IngestSettings(max_records=40)  # small batches: more moments to be killed at
    Ingest(memory, source, Lifecycle(), settings, on_batch=tell).run()


if __name__ == "__main__":
    main(*sys.argv[1:])
