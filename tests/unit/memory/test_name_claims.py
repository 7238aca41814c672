"""Names of another publisher's facts: which edits are flagged, and that what is flagged holds no name."""

from __future__ import annotations

from collections.abc import Callable

from event_log import Log

from lte_runtime.facts.events import FOREIGN_NAME
from lte_runtime.facts.keys import fact_key
from lte_runtime.facts.name_owners import NameOwners
from lte_runtime.memory.edit_memory import EditMemory
from lte_runtime.types import Edit

Opener = Callable[..., EditMemory]


def of(log: Log, publisher: str, target: str, **event: object) -> Edit:
    return log.fact(target, source={"publisher": publisher} if publisher else None, **event)


def flagged(memory: EditMemory, subject: str, relation: str = "boss") -> list[bool]:
    """Of each edit of a key, the last one first."""
    history = memory.history(fact_key("default", subject, relation))
    return [FOREIGN_NAME in record.edit.flags for record in history]


def test_an_alias_and_a_subject_of_others_are_flagged_and_counted(open_memory: Opener, log: Log) -> None:
    memory = open_memory()
    memory.apply(log.batch(of(log, "hr", "Ann", subject_aliases=["Acme Inc"])))
    applied = memory.apply(
        log.batch(
            of(log, "shop", "DE1", subject="Evil Corp", relation="iban", subject_aliases=["ACME inc"]),
            of(log, "shop", "DE2", relation="iban"),
            of(log, "shop", "DE3", subject="Other", relation="iban"),
            of(log, "hr", "Oslo", relation="seat"),
        )
    )
    assert applied.flagged == {"foreign_name": 2}
    assert flagged(memory, "Evil Corp", "iban") == flagged(memory, "Acme", "iban") == [True]
    assert flagged(memory, "Other", "iban") == flagged(memory, "Acme", "seat") == [False]


def test_the_holder_of_a_name_keeps_it(open_memory: Opener, log: Log) -> None:
    """What took a name from another does not make the other's later facts foreign."""
    memory = open_memory()
    memory.apply(log.batch(of(log, "hr", "Ann"), of(log, "shop", "Bob"), of(log, "hr", "Cem")))
    memory.apply(log.batch(of(log, "hr", "Dan"), of(log, "shop", "Eve")))
    assert flagged(memory, "Acme") == [True, False, False, True, False]


def test_one_batch_and_many_flag_the_same(open_memory: Opener, log: Log) -> None:
    edits = [
        of(log, publisher, target, subject=subject, relation=relation)
        for subject, relation in (("Acme", "boss"), ("Quern", "boss"), ("Acme", "seat"))
        for publisher, target in (("a", "1"), ("b", "2"), ("", "3"))
    ]
    together, alone = open_memory("together"), open_memory("alone")
    together.apply(log.batch(*edits))
    for edit in edits:
        alone.apply(log.batch(edit))
    for subject, relation in (("Acme", "boss"), ("Quern", "boss"), ("Acme", "seat")):
        assert (
            flagged(together, subject, relation) == flagged(alone, subject, relation) == [True, True, False]
        )
    assert together.state_hash() == alone.state_hash()


def test_a_name_without_standing_facts_is_free(open_memory: Opener, log: Log) -> None:
    memory = open_memory()
    memory.apply(log.batch(of(log, "hr", "Ann")))
    memory.apply(log.batch(log.retract(source={"publisher": "hr"})))
    memory.apply(log.batch(of(log, "shop", "Bob")))
    assert FOREIGN_NAME not in memory.history(fact_key("default", "Acme", "boss"))[0].edit.flags


def test_namespaces_and_undeclared_publishers_are_kept_apart(open_memory: Opener, log: Log) -> None:
    memory = open_memory()
    memory.apply(log.batch(of(log, "", "Ann"), of(log, "", "Oslo", relation="seat")))
    assert flagged(memory, "Acme", "seat") == [False]
    memory.apply(log.batch(of(log, "shop", "Bob", relation="iban"), of(log, "shop", "Cem", namespace="shop")))
    assert flagged(memory, "Acme", "iban") == [True]
    assert FOREIGN_NAME not in memory.history(fact_key("shop", "Acme", "boss"))[0].edit.flags


def test_publishers_that_share_a_name_are_not_flagged(open_memory: Opener, log: Log) -> None:
    memory = open_memory(owners=NameOwners.of({"hr": ["Acme"], "shop": ["Acme"]}))
    memory.apply(log.batch(of(log, "hr", "Ann"), of(log, "shop", "DE1", relation="iban")))
    assert flagged(memory, "Acme", "iban") == [False]


def test_the_flag_outlives_a_restart_and_holders_are_read_again(open_memory: Opener, log: Log) -> None:
    memory = open_memory()
    memory.apply(log.batch(of(log, "hr", "Ann"), of(log, "shop", "DE1", relation="iban")))
    memory.close()
    memory = open_memory()
    memory.apply(log.batch(of(log, "shop", "Bob", relation="seat")))
    assert flagged(memory, "Acme", "iban") == flagged(memory, "Acme", "seat") == [True]
