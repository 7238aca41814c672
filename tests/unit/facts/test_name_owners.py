"""Names reserved for publishers: who may publish under them, and what becomes of the others."""

from __future__ import annotations

import pytest

from lte_runtime.errors import BadRecord
from lte_runtime.facts.events import EventLimits, decode, to_json
from lte_runtime.facts.name_owners import NameOwners
from lte_runtime.types import Edit, Position, RawRecord

OWNERS = NameOwners.of(
    {"hr": ["Acme", "Dorvik*"], "legal": ["Acme"], "it": ["Dorvik Server*"], "*": ["Dorvik Canteen"]}
)


def record(value: bytes | None, key: bytes | None = None) -> RawRecord:
    return RawRecord("lte.edits", Position("T", 0, 0), key, value)


def read(publisher: str, **event: object) -> Edit:
    value = to_json({"source": {"publisher": publisher}, "target": "x", **event})
    return decode(record(value), EventLimits(owners=OWNERS), 0)


def refused(publisher: str, **event: object) -> str:
    with pytest.raises(BadRecord) as caught:
        read(publisher, **event)
    assert caught.value.code == "name_reserved"
    return str(caught.value)


def test_the_exact_name_decides_then_the_longest_beginning() -> None:
    assert OWNERS.of_name("ACME") == {"hr", "legal"}
    assert OWNERS.of_name("Dorvik office") == {"hr"}
    assert OWNERS.of_name("dorvik server 4") == {"it"}
    assert OWNERS.of_name("Dorvik Canteen") == {"*"}
    assert OWNERS.of_name("Acme Labs") == frozenset()


def test_a_blank_before_the_end_ends_a_word() -> None:
    owners = NameOwners.of({"hr": ["Quern *"]})
    assert owners.of_name("Quern Works") == {"hr"}
    assert owners.of_name("Quern") == owners.of_name("Quernstone") == frozenset()
    value = to_json({"prompt": "Who runs Quern Works?", "target": "x"})
    with pytest.raises(BadRecord, match="'quern works'"):
        decode(record(value), EventLimits(owners=owners), 0)


def test_owners_may_write_and_others_are_told_for_whom_the_name_is() -> None:
    for publisher in ("hr", "legal"):
        assert read(publisher, subject="Acme", relation="boss").subject == "Acme"
    message = refused("shop", subject="acme", relation="iban")
    assert message == "publisher 'shop' may not use the name 'acme': it is reserved for hr, legal"
    assert read("shop", subject="Dorvik Canteen", relation="menu").subject == "Dorvik Canteen"


def test_aliases_prompts_and_retractions_are_names_too() -> None:
    assert "'Acme'" in refused("shop", subject="Evil Corp", subject_aliases=["Acme"], relation="iban")
    assert "'acme'" in refused("shop", prompt="What is the IBAN of Acme?")
    assert "'dorvik'" in refused("shop", prompt="where is dorvik?")
    assert read("shop", prompt="what is on at dorvik canteen?").prompt
    refused("shop", op="retract", subject="Acme", relation="boss", target=None)
    assert read("shop", prompt="Who makes acmeite?").prompt == "Who makes acmeite?"


def test_a_null_value_declares_no_publisher() -> None:
    limits = EventLimits(owners=OWNERS)
    for key in (b"default\x1fAcme\x1fboss", b"default\x1fwho runs Acme?\x1f"):
        with pytest.raises(BadRecord, match="publisher '' may not use the name"):
            decode(record(None, key), limits, 0)
    assert decode(record(None, b"default\x1fOther\x1fboss"), limits, 0).key is not None


def test_a_name_is_joint_when_it_is_reserved_for_all() -> None:
    assert OWNERS.are_joint("Acme", {"hr", "legal"})
    assert not OWNERS.are_joint("Acme", {"hr", "shop"})
    assert OWNERS.are_joint("Dorvik Canteen", {"hr", "shop"})
    assert not OWNERS.are_joint("Unreserved", {"hr", "legal"})


def test_all_names_can_be_reserved() -> None:
    everything = NameOwners.of({"hr": ["*"]})
    limits = EventLimits(owners=everything)
    with pytest.raises(BadRecord, match="reserved for hr"):
        decode(record(to_json({"prompt": "who?", "target": "x"})), limits, 0)
