"""What the edit memory hands out besides facts: frozen values, plain counters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from lte_runtime.facts.name_owners import NameOwners
from lte_runtime.types import Edit, Position, RawRecord, TopicPartition


@dataclass(frozen=True, slots=True)
class EditMemorySettings:
    """How the memory keeps and indexes. Sizes in bytes; `hnsw_from` None leaves it to the index. `owners`
    says which publishers share a name."""

    index_mode: str = "auto"  # auto, exact, hnsw
    hnsw_from: int | None = None
    quarantine_max_bytes: int = 1 << 30
    busy_timeout_ms: int = 5000
    owners: NameOwners = field(default_factory=lambda: NameOwners.of({}))


@dataclass(frozen=True, slots=True)
class Applied:
    """What one batch did. `rejected` counts all new quarantine rows, `conflicts` those for a used id,
    `unproven` the records whose claim to an earlier position could not be checked and was ignored,
    `long_texts` the edits with texts longer than the encoder reads, `flagged` those with doubtful names, both
    by flag."""

    applied: tuple[str, ...]
    duplicates: int
    rejected: int
    conflicts: int
    unproven: int = 0
    encoded: int = 0
    encode_ms: float = 0.0
    store_ms: float = 0.0
    index_ms: float = 0.0
    long_texts: Mapping[str, int] = field(default_factory=dict)
    flagged: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class EditRecord:
    """An edit with what became of it: current, superseded, conflict_lost, retracted, expired, scheduled, and
    retraction for an edit that withdraws. `positions` are the first 100 deliveries of it, `collapsed` the
    other ids that said the same at the same revision."""

    edit: Edit
    state: str
    positions: tuple[Position, ...]
    winner_id: str | None = None
    collapsed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class EditPage:
    """A part of a list of edits. `next_token` names the next part; None at the end."""

    records: tuple[EditRecord, ...]
    next_token: str | None


@dataclass(frozen=True, slots=True)
class Truncated:
    """What a truncation concerns: the first of the edits that only the lost part held, how many there are,
    and whether they were taken out."""

    lost: tuple[Edit, ...]
    lost_count: int
    withdrawn: bool = False


@dataclass(frozen=True, slots=True)
class QuarantineRow:
    """A record that is no edit, with its reason. `state`: pending, dead_lettered or replayed.
    `value_bytes` is the size of its value, also where the record comes without its bytes."""

    id: int
    record: RawRecord
    code: str
    message: str
    sha256: str
    received_ms: int
    state: str
    value_bytes: int = 0


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What `verify` looked at and found; no problem means that store and index agree."""

    keys: int
    facts: int
    vectors: int
    problems: tuple[str, ...]

    @property
    def ok(self) -> bool:
        return not self.problems


@dataclass(frozen=True, slots=True)
class SnapshotInfo:
    """A finished snapshot: its name, the sequence of the store that it reflects, its size and time."""

    name: str
    sequence: int
    size_bytes: int
    created_ms: int


@dataclass(frozen=True, slots=True)
class EraseReceipt:
    """Proof of an erasure. Holds no text of the fact: `key_sha256` is the hash of the key's text."""

    id: str
    key_sha256: str
    edits: int
    positions: int
    quarantined: int
    vectors: int
    erased_ms: int
    not_covered: tuple[str, ...]
    files: tuple[str, ...] = ()
    """Files of the state directory that held its text and are gone, by their path below it."""


@dataclass(frozen=True, slots=True)
class MemoryStatus:
    """Counters and sizes of the moment. `joined_keys`: see `rekey.count_across`."""

    edits: int
    keys: int
    joined_keys: int
    current_facts: int
    vectors_live: int
    vectors_dead: int
    index_path: Mapping[str, str]
    quarantine_rows: int
    quarantine_bytes: int
    quarantine_pending: int
    state_bytes: int
    duplicates: int
    conflicts: int
    watermarks: Mapping[TopicPartition, int]
    encoder: str
    snapshot: SnapshotInfo | None
