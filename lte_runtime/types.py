"""Frozen values that travel between the rooms of the runtime. No behaviour beyond small derivations."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from lte_runtime.names.mention import Mention

    Vectors = npt.NDArray[np.float32]
else:  # numpy costs 0.15 s at import, and asking or publishing needs none
    Vectors = Any
"""Shape [n, dimension], rows L2-normalised."""


class Op(StrEnum):
    ASSERT = "assert"
    RETRACT = "retract"


class Cardinality(StrEnum):
    ONE = "one"
    MANY = "many"


class ScopeMode(StrEnum):
    """What the caller asks for: let the gate decide, force the facts, or force the base model."""

    AUTO = "auto"
    EDITED = "edited"
    BASE = "base"


class Scope(StrEnum):
    """What the answer was: made from edits, or the base model's own."""

    EDITED = "edited"
    BASE = "base"


@dataclass(frozen=True, slots=True, order=True)
class TopicPartition:
    """A partition of one incarnation of a topic; a re-created topic has another id."""

    topic_id: str
    partition: int


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """Where a record stands in Kafka.

    `log` counts the accepted truncations of the partition at or below the offset: after one, brokers give the
    offsets above it to other records.
    """

    topic_id: str
    partition: int
    offset: int
    log: int = 0

    @property
    def topic_partition(self) -> TopicPartition:
        return TopicPartition(self.topic_id, self.partition)


@dataclass(frozen=True, slots=True)
class RawRecord:
    """One Kafka record as it came: bytes, headers, position, timestamp in milliseconds since the epoch."""

    topic: str
    position: Position
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()
    timestamp_ms: int = 0


@dataclass(frozen=True, slots=True, order=True)
class FactKey:
    """Names one fact: (namespace, subject, relation) or (namespace, prompt), NFC and case-folded.

    For a prompt key `subject` holds the normalised prompt and `relation` is empty.
    """

    namespace: str
    subject: str
    relation: str = ""

    @property
    def text(self) -> str:
        """Canonical text: what is hashed, and what the Kafka record key looks like."""
        return "\x1f".join((self.namespace, self.subject, self.relation))


@dataclass(frozen=True, slots=True)
class Edit:
    """A decoded event: assert or retract one fact. Times are milliseconds since the epoch, UTC.

    `key` is None only for a retraction that names an edit by `retracts` alone.
    """

    id: str
    op: Op
    namespace: str
    key: FactKey | None
    position: Position
    timestamp_ms: int
    content_hash: str
    subject: str = ""
    relation: str = ""
    prompt: str = ""
    target: str | None = None
    statement: str = ""
    subject_aliases: tuple[str, ...] = ()
    target_aliases: tuple[str, ...] = ()
    revision: int | None = None
    valid_from: int | None = None
    valid_until: int | None = None
    cardinality: Cardinality = Cardinality.ONE
    source_uri: str = ""
    publisher: str = ""
    confidence: float | None = None
    retracts: str | None = None
    flags: tuple[str, ...] = ()
    raw: RawRecord | None = field(default=None, compare=False, repr=False)
    effective_ms: int | None = field(default=None, compare=False)
    """Set where the order within a key sees another time than the record's; see `policy.effective_times`."""


@dataclass(frozen=True, slots=True)
class Rejected:
    """A record that is no edit: what the quarantine keeps."""

    record: RawRecord
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Batch:
    """What one poll brought, decoded, with the next offset of each partition that it moves.

    `leader_epochs`: the leader epoch of the last record before some of these offsets.
    """

    edits: tuple[Edit, ...]
    rejected: tuple[Rejected, ...]
    next_offsets: Mapping[TopicPartition, int]
    leader_epochs: Mapping[TopicPartition, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Fact:
    """One current (or as-of) fact as questions see it."""

    edit_id: str
    key: FactKey
    key_id: int
    subject: str
    relation: str
    prompt: str
    target: str
    statement: str
    subject_aliases: tuple[str, ...]
    target_aliases: tuple[str, ...]
    position: Position
    valid_from: int | None
    valid_until: int | None
    cardinality: Cardinality
    source_uri: str
    publisher: str
    flags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Former:
    """A value that a key had before, with the time in which it held: milliseconds, None where not known."""

    fact: Fact
    held_from: int | None
    held_until: int | None


@dataclass(frozen=True, slots=True)
class Candidate:
    """A fact that retrieval found, before the gate: its cosine in [-1, 1], and where a name of it stands."""

    fact: Fact
    dense: float
    mention: Mention | None = None

    @property
    def lexical(self) -> float:
        """The score of the mention, 0 without one."""
        return self.mention.score if self.mention else 0.0

    @property
    def matched_name(self) -> str:
        """The name in look-up form, empty without a mention."""
        return self.mention.name if self.mention else ""

    @property
    def ambiguous(self) -> bool:
        """Whether other subjects may be meant by the same words."""
        return self.mention is not None and self.mention.ambiguous

    @property
    def named(self) -> Mention | None:
        """Where the question names the fact's subject, None where it does not for sure."""
        return self.mention if self.mention and self.mention.named else None


@dataclass(frozen=True, slots=True)
class Candidates:
    """Candidates best first, the next offsets they reflect (read under the search's lock), and the path."""

    items: tuple[Candidate, ...]
    watermarks: Mapping[TopicPartition, int]
    index_path: str


@dataclass(frozen=True, slots=True)
class GateDecision:
    """Whether a question is about an edit; `score` and `threshold` are probabilities in [0, 1].

    `sure`: so likely that an answer must say what the facts say.
    """

    scope: Scope
    score: float
    threshold: float
    reason: str
    features: Mapping[str, float] = field(default_factory=dict)
    sure: bool = False


@dataclass(frozen=True, slots=True)
class Citation:
    """A fact that an answer used. `hop` counts from 1; facts of one hop that compete share it.

    `members` counts the values of the set that the fact belongs to, 1 where it stands alone: where fewer are
    cited, the list was cut. `superseded` facts are not current; they held from `held_from` until `held_until`
    (milliseconds, None where not known).
    """

    fact: Fact
    score: float
    hop: int
    members: int = 1
    superseded: bool = False
    held_from: int | None = None
    held_until: int | None = None


class TurnRole(StrEnum):
    USER = "user"
    ASSISTANT = "assistant"
    SYSTEM = "system"


@dataclass(frozen=True, slots=True)
class Turn:
    """One message of a conversation; whoever it is said to come from, its text is the caller's."""

    role: TurnRole
    text: str


@dataclass(frozen=True, slots=True)
class Question:
    """A question and how the caller wants it answered. `deadline` is on the monotonic clock, seconds.

    `earlier` are the turns before it, oldest first.
    """

    text: str
    namespace: str = "default"
    max_new_tokens: int = 32
    at_least: Mapping[TopicPartition, int] = field(default_factory=dict)
    as_of: int | None = None
    scope: ScopeMode = ScopeMode.AUTO
    deadline: float | None = None
    earlier: tuple[Turn, ...] = ()


@dataclass(frozen=True, slots=True)
class Retrieval:
    """Facts chosen for a question and the gate's decision, without generation.

    `composed`: the facts tell a thing that the question describes, and it asks for more of that thing.
    `read_as`: a follow-up with what it leaves to the turns before, which is answered in its place; empty
    where the question is answered as it is.
    """

    citations: tuple[Citation, ...]
    gate: GateDecision
    candidates: Candidates
    timings_ms: Mapping[str, float]
    composed: bool = False
    read_as: str = ""


@dataclass(frozen=True, slots=True)
class AdapterRef:
    """Names a loaded adapter: fixed-width id (`align-000001`) and the SHA-256 of its manifest's files."""

    id: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer with its evidence.

    `corrected_from` is the model's own text where it misquoted a cited value or, to a question that surely
    asks for it, left it out; `text` has it as published; empty where the two are the same. `token_ids` are
    always the model's own. `prompt_tokens` is the length of the prompt, cited facts included. `read_as` is
    that of `Retrieval`; `dropped_turns` says how many of the earlier turns had no room in the prompt of the
    base model.
    """

    text: str
    scope: Scope
    citations: tuple[Citation, ...]
    adapter: AdapterRef | None
    watermarks: Mapping[TopicPartition, int]
    gate: GateDecision
    finish: str
    timings_ms: Mapping[str, float]
    index_path: str
    token_ids: tuple[int, ...] = ()
    corrected_from: str = ""
    prompt_tokens: int = 0
    read_as: str = ""
    dropped_turns: int = 0

    @property
    def free_text(self) -> str:
        """What the model said by itself: for whoever judges the model and not the service."""
        return self.corrected_from or self.text


@dataclass(frozen=True, slots=True)
class GenerateRequest:
    """One prompt for the engine. `adapter` False means the base model alone.

    `adapter_id` asks for one of the loaded adapters by its name instead of the current one. `values` are the
    ids of the values that the prompt tells: an answer that has begun as one of them goes on as it does where
    the model finds that likely enough. With `several_lines` the answer of a chat model does not end at a line
    break.
    """

    token_ids: tuple[int, ...]
    adapter: bool
    max_new_tokens: int
    deadline: float | None = None
    cancelled: Callable[[], bool] = lambda: False
    on_text: Callable[[str], None] | None = None
    adapter_id: str | None = None
    values: tuple[tuple[int, ...], ...] = ()
    several_lines: bool = False


@dataclass(frozen=True, slots=True)
class Generation:
    """What the engine made. `finish` is stop, length, deadline or cancelled."""

    text: str
    token_ids: tuple[int, ...]
    adapter: AdapterRef | None
    finish: str
    queue_ms: float
    model_ms: float


class Encoder(Protocol):
    """Sentences to unit vectors; deterministic per fingerprint; safe to call from several threads."""

    @property
    def dimension(self) -> int: ...

    @property
    def fingerprint(self) -> str: ...

    def encode(self, texts: Sequence[str], *, query: bool = False) -> Vectors:
        """Vectors [len(texts), dimension]; raises `ValueError` for a text that it cannot encode."""
        ...

    def windows(self, text: str) -> Sequence[str]:
        """The text in parts, in order, of each of which `encode` reads all that the next one does not hold.

        A text that is read whole is its only part; of a longer one `encode` reads what is in the first.
        """
        ...
