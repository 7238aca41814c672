"""One key while a batch is applied: its row, and whether an edit may simply go on top."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from lte_runtime.facts.keys import view_of
from lte_runtime.facts.policy import Order, at_time, moment_of, order_of, time_of, usable_ms
from lte_runtime.facts.subject_names import subject_names
from lte_runtime.names.normalise import key_form
from lte_runtime.store.db import Connection
from lte_runtime.store.rows import row_crc
from lte_runtime.types import Edit, FactKey, Op, Position


@dataclass(slots=True)
class KeyHighWater:
    """The highest order, revision and retraction seen in a key: enough to see that an edit is the newest.

    `partitions` by "topic id/partition": log and offset of the last record there, and the largest timestamp.
    """

    order: Sequence[Any] = ()
    revision: int = -1
    retract_revision: int = -1
    retract_moment: Sequence[Any] = ()
    moment: Sequence[Any] = ()
    partitions: dict[str, tuple[int, int, int]] = field(default_factory=dict)

    def timed(self, edit: Edit) -> Edit | None:
        """The edit with its effective time; None when a later record of its partition was seen before it."""
        position = edit.position
        log, offset, latest = self.partitions.get(_partition(position), (0, -1, 0))
        if (position.log, position.offset) <= (log, offset):
            return None
        return at_time(edit, max(latest, usable_ms(edit.timestamp_ms)))

    def observe(self, edit: Edit) -> None:
        """Account for an edit with its effective time."""
        revision = -1 if edit.revision is None else edit.revision
        self.observe_delivery(edit)
        self.moment = max(tuple(self.moment), moment_of(edit))
        if edit.op is Op.ASSERT:
            self.order = max(tuple(self.order), order_of(edit))
            self.revision = max(self.revision, revision)
        else:
            self.retract_revision = max(self.retract_revision, revision)
            self.retract_moment = max(tuple(self.retract_moment), moment_of(edit))

    def observe_delivery(self, edit: Edit) -> None:
        """Account for one more delivery of an edit, with its effective time."""
        position, partition = edit.position, _partition(edit.position)
        log, offset, latest = self.partitions.get(partition, (0, -1, 0))
        log, offset = max((log, offset), (position.log, position.offset))
        self.partitions[partition] = (log, offset, max(latest, time_of(edit)))

    def is_newest(self, edit: Edit) -> bool:
        """Whether an assertion stands above all others, joins none and is reached by no retraction."""
        order: Order = order_of(edit)
        if order <= tuple(self.order) or moment_of(edit) <= tuple(self.retract_moment):
            return False
        return edit.revision is None or edit.revision > max(self.revision, self.retract_revision)

    def is_latest_retraction(self, retraction: Edit) -> bool:
        """Whether a retraction was published after everything else and repeats none."""
        if moment_of(retraction) <= tuple(self.moment):
            return False
        return retraction.revision is None or retraction.revision > self.retract_revision

    def dump(self) -> str:
        return json.dumps(
            [
                self.order,
                self.revision,
                self.retract_revision,
                self.retract_moment,
                self.moment,
                self.partitions,
            ]
        )

    @classmethod
    def load(cls, text: str) -> KeyHighWater:
        return cls(*json.loads(text)) if text != "{}" else cls()


def _partition(position: Position) -> str:
    return f"{position.topic_id}/{position.partition}"


@dataclass(slots=True)
class KeyUpdate:
    """A key's row, as read at the batch's first touch and written back at its end."""

    id: int
    key: FactKey
    view: str | None = None
    view_hash: bytes | None = None
    names: dict[str, str] = field(default_factory=dict)
    facts: int = 0
    chain: bytes = b""
    heads: KeyHighWater = field(default_factory=KeyHighWater)
    refold: bool = False
    untouched: bool = False
    """Made in this batch, and no edit of it written yet."""
    was_present: bool = False
    old_names: tuple[str, ...] = ()

    def put_on_top(self, edit: Edit) -> None:
        """Account for an assertion that goes above all others."""
        self.facts += 1
        self.chain = chained(self.chain, edit)
        self.names.update(names_of(edit))

    def set_standing(self, standing: Sequence[Edit]) -> None:
        """Account for all facts that stand, lowest first."""
        self.facts = len(standing)
        self.chain, self.names = b"", {}
        for edit in standing:
            self.chain = chained(self.chain, edit)
            self.names.update(names_of(edit))

    @property
    def name_list(self) -> tuple[str, ...]:
        return tuple(self.names.values())


def names_of(edit: Edit) -> dict[str, str]:
    """Normalised name to name, for the look-up of subjects."""
    return {key_form(name): name for name in subject_names(edit)}


def chained(chain: bytes, edit: Edit) -> bytes:
    """The hash over a key's standing facts, lowest first: no clock, no position."""
    return hashlib.blake2b(chain + edit.content_hash.encode(), digest_size=16).digest()


def view_text(edit: Edit, key: FactKey) -> str:
    """What is encoded for a key: from the first assertion's own spelling."""
    if key.relation:
        return view_of(edit.subject, edit.relation)
    return view_of(prompt=edit.prompt)


def view_hash(text: str) -> bytes:
    """16 bytes that name a view's vector."""
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def blank_key(connection: Connection, key: FactKey, key_id: int) -> None:
    """Leave a key without its text; its retractions go on to belong to it, `revive` finds it by a hash."""
    values = (key_id, erased_name(key), "[]", 0, b"")
    connection.execute(
        "UPDATE keys SET key=?, subject='', relation='', view=NULL, view_hash=NULL, names=?, facts=?, "
        "chain=?, crc=? WHERE id=?",
        (*values[1:], row_crc(*values), key_id),
    )


def revive(connection: Connection, key: FactKey) -> bool:
    """Give a key that was erased its text again, because an event names it; False when none was."""
    row = connection.execute("SELECT id FROM keys WHERE key=?", (erased_name(key),)).fetchone()
    if row is None:
        return False
    connection.execute(
        "UPDATE keys SET key=?, subject=?, relation=?, crc=? WHERE id=?",
        (key.text, key.subject, key.relation, row_crc(row[0], key.text, "[]", 0, b""), row[0]),
    )
    return True


def erased_name(key: FactKey) -> str:
    """The name of a key that was erased: no key's text begins like it."""
    return f"\x1ferased:{hashlib.sha256(key.text.encode()).hexdigest()}"
