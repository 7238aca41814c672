"""The one door to the edit memory: SQLite is the truth, the indexes are its projection.

One thread applies (a lock makes sure of it); any number of threads ask. Order of every change: SQLite
commit, index, watermark.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from random import Random

from lte_runtime import disk
from lte_runtime.errors import Refused
from lte_runtime.facts.events import NAME_FLAGS
from lte_runtime.facts.policy import WhyNot
from lte_runtime.locks import DirectoryLock
from lte_runtime.memory import retrieve, upkeep
from lte_runtime.memory.attempts import Attempts
from lte_runtime.memory.batch_encoder import BatchEncoder
from lte_runtime.memory.erase import erase_key, finish_erasure
from lte_runtime.memory.name_claims import MOST_FACTS, MOST_KEYS, NameClaims
from lte_runtime.memory.projection import Projection, reached
from lte_runtime.memory.restore import fill, open_store, restore, save
from lte_runtime.names.normalise import key_form
from lte_runtime.store import inspect, quarantine, reader, rekey, sampling, truncation
from lte_runtime.store.adapter_history import AdapterLedger
from lte_runtime.store.batch_writer import KeyChange
from lte_runtime.store.db import Connection, faults, open_reader, read_transaction, transaction
from lte_runtime.store.former import former_values
from lte_runtime.store.origins import restore_positions
from lte_runtime.store.records import (
    Applied,
    EditMemorySettings,
    EditPage,
    EditRecord,
    EraseReceipt,
    MemoryStatus,
    QuarantineRow,
    SnapshotInfo,
    Truncated,
    VerifyReport,
)
from lte_runtime.store.writer import Store
from lte_runtime.types import (
    Batch,
    Candidates,
    Encoder,
    Fact,
    FactKey,
    Former,
    RawRecord,
    TopicPartition,
    Vectors,
)

__all__ = ["EditMemory", "EditMemorySettings", "wall_ms"]

STORE_FILE = "edits.db"
SNAPSHOTS = "snapshots"


def _flagged(batch: Batch) -> dict[str, int]:
    counts = Counter(flag for edit in batch.edits for flag in edit.flags)
    return {flag: counts[flag] for flag in NAME_FLAGS if counts[flag]}


def wall_ms() -> int:
    """Milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


class EditMemory:
    """Raises `Refused` (directory in use, newer schema), `Damaged`, `Retry` (disk full) or `Fatal`."""

    def __init__(
        self,
        directory: Path,
        encoder: Encoder,
        settings: EditMemorySettings,
        now: Callable[[], int],
        lock: DirectoryLock,
        store: Store,
        projection: Projection,
        snapshot_info: SnapshotInfo | None,
    ) -> None:
        self.directory, self.encoder, self.settings, self.now = directory, encoder, settings, now
        self._lock, self._store, self._projection = lock, store, projection
        self._batch_encoder = BatchEncoder(store, encoder)
        self._snapshot = snapshot_info
        self.attempts = Attempts(directory)
        """For whoever feeds `apply`: what was in work when the process died."""
        self._writing = threading.RLock()
        self._snapshotting = threading.Lock()
        self._local = threading.local()
        self._readers: list[Connection] = []
        self.adapters = AdapterLedger(store.connection, self._writing, now)
        """Which adapter serves, and what adapters were trained on."""
        self._closed = False
        self._duplicates = self._conflicts = 0
        with faults():
            self._quarantine_bytes = quarantine.totals(store.connection)[1]

    @classmethod
    def open(
        cls,
        directory: Path,
        encoder: Encoder,
        settings: EditMemorySettings | None = None,
        *,
        now: Callable[[], int] = wall_ms,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> EditMemory:
        """Take the directory, check the store, bring the indexes up to it. `on_progress(done, total)` is
        called while views are encoded again for another encoder."""
        settings = settings or EditMemorySettings()
        lock = DirectoryLock(directory)
        try:
            store = open_store(directory / STORE_FILE, encoder, settings, on_progress)
            with faults():
                finish_erasure(store, directory / SNAPSHOTS)
                projection = Projection(
                    encoder.dimension, settings, reader.offsets(store.connection, store.topics)
                )
                snapshot_info = restore(projection, store, directory / SNAPSHOTS)
        except BaseException:
            lock.release()
            raise
        return cls(directory, encoder, settings, now, lock, store, projection, snapshot_info)

    def close(self) -> None:
        """Close every connection and give the directory free; harmless a second time."""
        with self._writing:
            if self._closed:
                return
            self._closed = True
            for reader in self._readers:
                reader.close()
            self._batch_encoder.close()
            self._store.close()
            self._lock.release()

    # -- events in ---------------------------------------------------------------------------------

    def next_offsets(self) -> Mapping[TopicPartition, int]:
        """Where to read on: the durable next offset of each partition."""
        return dict(self._projection.watermarks)

    def apply(self, batch: Batch, confirm: Callable[[], None] = lambda: None) -> Applied:
        """Make a batch durable, then visible. After an exception nothing of it is either.

        `confirm` is called once all is ready for the commit; what it raises undoes the batch.
        """
        with self._writing:
            with faults():
                batch, unproven = restore_positions(batch, self._store.connection)
                batch = replace(batch, edits=self._name_claims().flagged(batch.edits))
            committed = self._batch_encoder.encode_and_write(batch, self.now(), confirm)
            result, stored = committed.result, time.perf_counter()
            new = self._new_vectors(result.changes, committed.vectors)
            self._projection.update(result.changes, new, batch.next_offsets)
            self._duplicates += result.duplicates
            self._conflicts += result.conflicts
            self._quarantine_bytes += result.quarantine_bytes
            return Applied(
                applied=tuple(result.applied),
                duplicates=result.duplicates,
                rejected=result.rejected,
                conflicts=result.conflicts,
                unproven=unproven,
                encoded=len(committed.vectors),
                encode_ms=committed.encode_ms,
                store_ms=committed.store_ms,
                index_ms=(time.perf_counter() - stored) * 1000,
                long_texts=committed.long_texts,
                flagged=_flagged(batch),
            )

    def _name_claims(self) -> NameClaims:
        names, connection = self._projection.names, self._store.connection
        return NameClaims(
            keys_of=lambda name, namespace: names.ids_of(name, namespace, MOST_KEYS),
            # Cached for the batch: a subject and its aliases mostly lead to the same keys.
            holders_of=cache(lambda key_ids: reader.holders_of(connection, key_ids, MOST_FACTS)),
            owners=self.settings.owners,
        )

    def leader_epochs(self) -> Mapping[TopicPartition, int]:
        """The leader epoch of the last record before each durable offset, where it is known."""
        with self._writing, faults():
            return reader.leader_epochs(self._store.connection, self._store.topics)

    def placed(self, records: Sequence[RawRecord]) -> tuple[RawRecord, ...]:
        """Records as they were just read, each with the log that its offset belongs to now."""
        return self._store.truncations.placed(records)

    def lost_by(self, resume_at: Mapping[TopicPartition, int], limit: int = 1000) -> Truncated:
        """What would be lost if logs end at these offsets: edits that stand nowhere else."""
        with faults():
            edits, count = truncation.lost_edits(self._reader(), self._store.topics, resume_at, limit)
        return Truncated(tuple(edits), count)

    def accept_truncation(self, resume_at: Mapping[TopicPartition, int], *, withdraw: bool) -> Truncated:
        """Go on at these offsets, where logs were cut; `withdraw` takes out what only the cut part held."""
        with self._writing:
            lost = self.lost_by(resume_at)
            with faults():
                changes = self._store.accept_truncation(resume_at, self.now(), withdraw=withdraw)
            self._projection.update(changes, self._new_vectors(changes, {}), {})
            self._projection.rewind(resume_at)
            return replace(lost, withdrawn=withdraw)

    def _new_vectors(
        self, changes: Sequence[KeyChange], encoded: Mapping[bytes, Vectors]
    ) -> dict[int, Vectors]:
        """Vectors [windows, dimension] of the keys that have a fact now: just made, or stored earlier."""
        appeared = [change for change in changes if change.present and not change.was_present]
        vectors = {
            change.key_id: encoded[change.view_hash]
            for change in appeared
            if change.view_hash and change.view_hash in encoded
        }
        stored_ids = [change.key_id for change in appeared if change.key_id not in vectors]
        with faults():
            rows = reader.views_of(self._store.connection, stored_ids, self.encoder.dimension)
        return vectors | dict(zip(stored_ids, rows, strict=True))

    # -- questions ---------------------------------------------------------------------------------

    def candidates(
        self,
        question: str,
        vector: Vectors | None,
        *,
        namespace: str,
        k: int = 8,
        at_ms: int | None = None,
    ) -> Candidates:
        """Facts near a question, by vector and by name, best first, as they hold at `at_ms` (None: now)."""
        if vector is None:
            vector = self.encoder.encode([question], query=True)
        at = self._at(at_ms)
        with faults():
            return retrieve.candidates(self._projection, self._reader(), at, question, vector, namespace, k)

    def facts_of_subject(
        self,
        name: str,
        *,
        namespace: str,
        at_ms: int | None = None,
        limit: int | None = None,
        vector: Vectors | None = None,
    ) -> tuple[Fact, ...]:
        """Facts of the keys whose subject or alias is exactly this name, once normalised.

        At most `limit` keys are read: those nearest to `vector` [dimension], else the first ones.
        """
        at = self._at(at_ms)
        with faults():
            return retrieve.facts_of_subject(
                self._projection, self._reader(), at, name, namespace, limit, vector
            )

    def facts_beside(self, fact: Fact, at_ms: int | None = None) -> tuple[Fact, ...]:
        """All facts of the same key at that time, newest first: one, or the members of a set."""
        with faults():
            return self._at(at_ms).facts(self._reader(), [fact.key_id])[fact.key_id]

    def members_beside(
        self, fact: Fact, limit: int, at_ms: int | None = None
    ) -> tuple[tuple[Fact, ...], int]:
        """The newest facts of the same key at that time, at most `limit`, and how many there are."""
        with faults():
            return retrieve.members_beside(self._reader(), self._at(at_ms), fact.key_id, limit)

    def former_values(self, fact: Fact, limit: int, at_ms: int | None = None) -> tuple[Former, ...]:
        """Earlier values of the fact's key, newest first, nothing that was retracted; see `former`."""
        at, current = self._at(at_ms), self.facts_beside(fact, at_ms)
        with faults():
            return former_values(self._reader(), at.topics, current, at.ms, limit, as_of=at.as_of)

    def vectors_of(self, key_ids: Sequence[int]) -> Vectors:
        """Stored primary views [len(key_ids), dimension]."""
        with faults():
            return reader.vectors_of(self._reader(), key_ids, self.encoder.dimension)

    def watermarks(self) -> Mapping[TopicPartition, int]:
        """The next offset of each partition that is not yet visible to questions."""
        return self._projection.watermarks

    def wait_for(
        self,
        at_least: Mapping[TopicPartition, int],
        timeout_s: float,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> bool:
        """Block until these next offsets are visible; False when the time is up. Raises `Cancelled`."""
        if reached(self.watermarks(), at_least):
            return True
        return self._projection.wait_for(at_least, timeout_s, cancelled)

    def _at(self, at_ms: int | None) -> retrieve.At:
        return retrieve.At(self.now() if at_ms is None else at_ms, at_ms is not None, self._store.topics)

    def _reader(self) -> Connection:
        connection = getattr(self._local, "connection", None)
        if connection is None:
            connection = open_reader(self.directory / STORE_FILE, self.settings.busy_timeout_ms)
            self._local.connection = connection
            self._readers.append(connection)
        return connection

    # -- small durable values ----------------------------------------------------------------------

    def state_hash(self) -> str:
        """Hash of all standing facts: the same for the same events, whatever clock and order."""
        with faults():
            return reader.state_hash(self._reader())

    def state_at(self) -> tuple[str, Mapping[TopicPartition, int]]:
        """`state_hash` and the next offsets that it belongs to; events go on meanwhile."""
        with read_transaction(self._reader()) as connection:
            return reader.state_hash(connection), reader.offsets(connection, self._store.topics)

    def meta_get(self, name: str) -> str | None:
        """A small durable value, or None."""
        with self._writing, faults():
            return self._store.meta_get(name)

    def meta_set(self, name: str, value: str) -> None:
        """Keep a small value durably."""
        with self._writing, transaction(self._store.connection):
            self._store.meta_set(name, value)

    def meta_names(self, prefix: str) -> list[str]:
        """Names of the kept values that begin with a prefix, in order."""
        with faults():
            return sampling.meta_names(self._reader(), prefix)

    # -- for those who watch -----------------------------------------------------------------------

    def sample_facts(self, limit: int, rng: Random) -> tuple[Fact, ...]:
        """The current facts of at most `limit` keys, drawn from all namespaces; the same for the same
        store and generator."""
        at = self._at(None)
        with faults():
            keys = sampling.sample_keys(self._reader(), limit, rng)
            facts_by_key = at.facts(self._reader(), keys)
        return tuple(fact for facts in facts_by_key.values() for fact in facts)

    def facts_of_keys(self, key_ids: Sequence[int]) -> tuple[Fact, ...]:
        """The current facts of these keys; a key without one adds nothing."""
        with faults():
            facts_by_key = self._at(None).facts(self._reader(), key_ids)
        return tuple(fact for facts in facts_by_key.values() for fact in facts)

    def arrivals(self, after: int, limit: int) -> list[sampling.Arrival]:
        """Edits behind the store's row `after`, in the order in which they were applied."""
        with faults():
            return sampling.arrivals(self._reader(), after, limit)

    def last_row(self) -> int:
        """The store's row of the edit that was applied last; 0 before the first."""
        with faults():
            return sampling.last_row(self._reader())

    # -- edits, one by one -------------------------------------------------------------------------

    def get_edit(
        self, edit_id: str, *, in_namespace: Callable[[str], bool] = inspect.everywhere
    ) -> EditRecord:
        """An edit with its state and positions; raises `NotFound`, also for one in another namespace than
        those that `in_namespace` takes.

        Folds the history of its key where it was withdrawn or collapsed into another, as `why_not` does.
        """
        with self._inspecting() as inspector:
            return inspector.record(edit_id, in_namespace)

    def list_edits(
        self,
        *,
        namespace: str | None = None,
        subject: str | None = None,
        limit: int = 100,
        after: str | None = None,
    ) -> list[EditRecord]:
        """At most `limit` edits, the last applied first, from behind the one that `after` names."""
        records: list[EditRecord] = []
        token = after
        while len(records) < limit:
            size = limit - len(records)
            page = self.edits_page(namespace=namespace, subject=subject, limit=size, after=token)
            records += page.records
            token = page.next_token
            if token is None:
                break
        return records

    def edits_page(
        self,
        *,
        namespace: str | None = None,
        subject: str | None = None,
        limit: int = 100,
        after: str | None = None,
    ) -> EditPage:
        """Edits, the last applied first, from behind the one that the token `after` names (or, up to the next
        version, the edit of that id). A page may be short, even empty, and yet name a next one."""
        filters = inspect.Filters(
            key_form(namespace) if namespace else None, key_form(subject) if subject else None
        )
        with self._inspecting() as inspector:
            return inspector.listed(filters, limit, after)

    def history(self, key: FactKey) -> list[EditRecord]:
        """All edits of a key, the highest order first; raises `NotFound`. Folds all of them."""
        with self._inspecting() as inspector:
            return inspector.history(key)

    def history_page(self, key: FactKey, limit: int = 100, after: str | None = None) -> EditPage:
        """The part of `history` behind the record that the token `after` names; raises `NotFound`, and
        `BadRequest` for a token that is not of this history.

        Reads no more than the page where all edits of the key stand, else it folds them all.
        """
        with self._inspecting() as inspector:
            return inspector.history_page(key, limit, after)

    def why_not(
        self,
        edit_id: str,
        at_ms: int | None = None,
        *,
        in_namespace: Callable[[str], bool] = inspect.everywhere,
    ) -> WhyNot:
        """Why questions do not see an edit, and which one they do; raises `NotFound`, as `get_edit`."""
        with self._inspecting(at_ms) as inspector:
            return inspector.reason(edit_id, in_namespace)

    @contextmanager
    def _inspecting(self, at_ms: int | None = None) -> Iterator[inspect.Inspector]:
        with read_transaction(self._reader()) as connection:
            yield inspect.Inspector(connection, self._store.topics, self.now() if at_ms is None else at_ms)

    # -- records that are no edits -----------------------------------------------------------------

    def quarantined(self, limit: int = 100, after: int = 0) -> list[QuarantineRow]:
        """Quarantined records in order of arrival, from behind the row `after` on."""
        return self._quarantine_rows("id>? ORDER BY id LIMIT ?", (after, limit))

    def quarantine_page(self, limit: int = 100, after: int = 0) -> list[QuarantineRow]:
        """As `quarantined`, but the records come without headers, key and value."""
        with faults():
            return quarantine.page(self._reader(), self._store.topics, limit, after)

    def quarantine_get(self, row_id: int) -> QuarantineRow:
        """One quarantined record; raises `NotFound`."""
        with faults():
            return quarantine.row_by_id(self._reader(), self._store.topics, row_id)

    def quarantine_pending_dlq(self, limit: int = 100) -> list[QuarantineRow]:
        """Records that the dead-letter topic does not have yet, oldest first."""
        return self._quarantine_rows("state=? ORDER BY id LIMIT ?", (quarantine.PENDING, limit))

    def mark_dead_lettered(self, ids: Sequence[int]) -> None:
        """Note that the dead-letter topic has acknowledged these rows."""
        with self._writing, transaction(self._store.connection):
            quarantine.set_state(self._store.connection, ids, quarantine.PENDING, quarantine.DEAD_LETTERED)

    def requeue(self, ids: Sequence[int]) -> list[RawRecord]:
        """The records of these rows as they came, at their places, for a replay. `apply` marks a row as
        replayed in the transaction that makes an edit of it."""
        rows = [self.quarantine_get(row_id) for row_id in ids]
        erased = [row.id for row in rows if row.state == quarantine.ERASED]
        if erased:
            raise Refused(f"the text of quarantined record {erased[0]} was erased")
        return [row.record for row in rows]

    def quarantine_bytes(self) -> int:
        """Bytes that the quarantine keeps, for its quota."""
        return self._quarantine_bytes

    def _quarantine_rows(self, where: str, values: Sequence[object]) -> list[QuarantineRow]:
        with faults():
            return quarantine.rows(self._reader(), self._store.topics, where, values)

    # -- upkeep ------------------------------------------------------------------------------------

    def verify(self) -> VerifyReport:
        """Fold everything again and compare store, vectors and index; events wait meanwhile."""
        with self._writing, faults():
            return upkeep.verify(self._store, self._projection)

    def rebuild(self) -> None:
        """Make the indexes anew from the stored vectors and exchange them; questions go on meanwhile."""
        with self._writing, faults():
            fresh = self._projection.empty_copy()
            fill(fresh, self._store)
            self._projection.take_over(fresh)

    def snapshot(self) -> SnapshotInfo:
        """Write the indexes beside the store, for a quick start. One at a time; events wait for the copy."""
        with self._snapshotting:
            snapshots = self.directory / SNAPSHOTS
            self._snapshot = save(self._projection, self._store, snapshots, self.now(), self._writing)
            return self._snapshot

    def maintain(self) -> int:
        """Rebuild indexes with too many dead entries, beside the running ones; returns how many. Call it from
        its own thread."""
        due = [index for index in list(self._projection.indexes.values()) if index.needs_rebuild()]
        for index in due:
            index.rebuild()
        return len(due)

    def recall_self_check(self, sample: int = 64, k: int = 3) -> float:
        """Recall@k of the index against a scan, the worst namespace, on stored vectors."""
        with faults():
            return upkeep.recall(self._reader(), self._projection, sample, k)

    def erase(self, key: FactKey) -> EraseReceipt:
        """Take a fact's text and vectors out of every file of the directory; see the receipt. No job of a
        re-alignment may run meanwhile: it could write its training rows again."""
        with self._writing:
            receipt, key_id = erase_key(self._store, key, self.directory, self.now())
            if key_id is not None:
                self._projection.forget(key_id, key.namespace)
            with faults():
                self._quarantine_bytes = quarantine.totals(self._store.connection)[1]
        with self._snapshotting, self._writing, faults(), disk.faults("erased snapshots cannot be removed"):
            removed_snapshots = finish_erasure(self._store, self.directory / SNAPSHOTS)
            self._snapshot = None
        if removed_snapshots:
            self.snapshot()
        return receipt

    def status(self) -> MemoryStatus:
        """Counters and sizes of the moment."""
        indexes = dict(self._projection.indexes)
        with faults():
            db = self._reader()
            edits, keys, facts = reader.counts(db)
            joined_keys = rekey.count_across(db)
            rows, size, pending = quarantine.totals(db)
        return MemoryStatus(
            edits=edits,
            keys=keys,
            joined_keys=joined_keys,
            current_facts=facts,
            vectors_live=sum(index.live for index in indexes.values()),
            vectors_dead=sum(index.dead for index in indexes.values()),
            index_path={namespace: index.path for namespace, index in indexes.items()},
            quarantine_rows=rows,
            quarantine_bytes=size,
            quarantine_pending=pending,
            state_bytes=upkeep.size_of(self.directory),
            duplicates=self._duplicates,
            conflicts=self._conflicts,
            watermarks=self.watermarks(),
            encoder=self.encoder.fingerprint,
            snapshot=self._snapshot,
        )
