"""Decoding: every hostile class has the outcome that is promised, and nothing else is ever raised."""

from __future__ import annotations

import base64
import gzip
import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lte_runtime.errors import BadRecord
from lte_runtime.facts.events import (
    WITHDRAW_ALL,
    EventLimits,
    decode,
    fact_key,
    json_schema,
    notice,
    original_position_header,
    record_key,
    to_json,
    view_of,
)
from lte_runtime.facts.table_changes import WITHDRAWN
from lte_runtime.names.normalise import FOLD_VERSION, key_form
from lte_runtime.types import Cardinality, Edit, FactKey, Op, Position, RawRecord

NOW = 1_800_000_000_000
FACT: dict[str, Any] = {"id": "e1", "subject": "Acme", "relation": "boss", "target": "Ann"}
Headers = tuple[tuple[str, bytes], ...]


def raw(value: bytes | None, headers: Headers = (), key: bytes | None = None, at: int = NOW) -> RawRecord:
    return RawRecord("lte.edits", Position("T", 1, 7), key, value, headers, at)


def read(event: object, headers: Headers = (), **limits: Any) -> Edit:
    value = event if isinstance(event, bytes) else json.dumps(event).encode()
    return decode(raw(value, headers), EventLimits(**limits), now_ms=NOW)


def code_of(value: bytes | None, headers: Headers = (), **limits: Any) -> str:
    with pytest.raises(BadRecord) as caught:
        decode(raw(value, headers), EventLimits(**limits), now_ms=NOW)
    return caught.value.code


def with_fields(**fields: object) -> bytes:
    return json.dumps({**FACT, **fields}).encode()


def without(*names: str) -> bytes:
    return json.dumps({name: value for name, value in FACT.items() if name not in names}).encode()


HOSTILE: list[tuple[str, bytes, Headers, str]] = [
    ("empty", b"", (), "empty"),
    ("latin-1", '{"subject": "Zürich"}'.encode("latin-1"), (), "not_utf8"),
    ("encoded surrogate", b'{"subject": "\xed\xa0\x80"}', (), "not_utf8"),
    ("no JSON", b"hello", (), "not_json"),
    ("truncated", with_fields()[:-5], (), "not_json"),
    ("NaN", b'{"confidence": NaN}', (), "not_json"),
    ("5,000 digits", b'{"revision": ' + b"9" * 5000 + b"}", (), "not_json"),
    ("JSON list", b"[1]", (), "wrong_type"),
    ("nested lists", b"[" * 10_000 + b"]" * 10_000, (), "too_deep"),
    ("nested objects", b'{"a":' * 10_000 + b"1" + b"}" * 10_000, (), "too_deep"),
    ("nested, never closed", b'{"a":' * 10_000, (), "too_deep"),
    ("duplicate name", b'{"id": "a", "id": "b"}', (), "duplicate_key"),
    ("duplicate name below", b'{"source": {"uri": "a", "uri": "b"}}', (), "duplicate_key"),
    ("256 KiB and 1", with_fields(note="x")[:-2] + b"x" * 262_144 + b'"}', (), "too_large"),
    ("unknown op", with_fields(op="upsert"), (), "unknown_op"),
    ("no relation", without("relation"), (), "missing_key"),
    ("no key part", without("subject", "relation"), (), "missing_key"),
    ("subject of zero-width blanks", with_fields(subject="\u200b\u200d"), (), "missing_key"),
    ("no target", without("target"), (), "missing_target"),
    ("blank target", with_fields(target=" \u200b "), (), "missing_target"),
    ("number for text", with_fields(subject=7), (), "wrong_type"),
    ("text for a list", with_fields(subject_aliases="x"), (), "wrong_type"),
    ("confidence 2", with_fields(confidence=2), (), "wrong_type"),
    ("revision -1", with_fields(revision=-1), (), "bad_revision"),
    ("revision 2^63", with_fields(revision=2**63), (), "bad_revision"),
    ("revision text", with_fields(revision="7"), (), "bad_revision"),
    ("revision true", with_fields(revision=True), (), "bad_revision"),
    ("no time", with_fields(valid_from="yesterday"), (), "bad_time"),
    ("no such day", with_fields(valid_from="2025-02-30"), (), "bad_time"),
    ("interval", with_fields(valid_from="2025-01-02", valid_until="2025-01-01"), (), "bad_interval"),
    ("lone surrogate", b'{"subject": "a\\ud800", "relation": "b", "target": "c"}', (), "lone_surrogate"),
    ("NUL", with_fields(target="a\0b"), (), "nul_character"),
    ("NUL in an alias", with_fields(subject_aliases=["a\0"]), (), "nul_character"),
    ("tag characters", with_fields(target="Ann\U000e0041"), (), "tag_character"),
    ("tag in a statement", with_fields(statement="\U000e0020"), (), "tag_character"),
    ("9,000 letters", with_fields(subject="x" * 9000), (), "too_long"),
    (
        "gzip announced",
        gzip.compress(with_fields()),
        (("content-encoding", b"gzip"),),
        "unsupported_encoding",
    ),
    ("gzip bomb", gzip.compress(b"0" * 10_000_000), (), "not_utf8"),
    ("XML", with_fields(), (("content-type", b"application/xml"),), "unsupported_content_type"),
    ("batch", b"[]", (("content-type", b"application/cloudevents-batch+json"),), "unsupported_content_type"),
    (
        "Latin-1 JSON",
        b"{}",
        (("content-type", b"application/json; charset=latin1"),),
        "unsupported_content_type",
    ),
    ("specversion 2", with_fields(), (("ce_specversion", b"2.0"), ("ce_id", b"x")), "unknown_version"),
    ("type v2", with_fields(), (("ce_specversion", b"1.0"), ("ce_type", b"lte.edit.v2")), "unknown_version"),
    ("schema_version 2", with_fields(schema_version=2), (), "unknown_version"),
    ("header not UTF-8", with_fields(), (("ce_id", b"\xff"),), "not_utf8"),
]


@pytest.mark.parametrize(
    ("value", "headers", "code"), [row[1:] for row in HOSTILE], ids=[r[0] for r in HOSTILE]
)
def test_hostile_records_are_refused_by_class(value: bytes, headers: Headers, code: str) -> None:
    assert code_of(value, headers) == code


def test_a_value_at_the_cap_passes() -> None:
    value = with_fields(note="")
    assert decode(raw(value[:-2] + b"x" * (262_144 - len(value)) + b'"}'), EventLimits(), NOW).target == "Ann"


def test_brackets_inside_strings_are_no_depth() -> None:
    assert read({**FACT, "statement": '[{"' * 500}).statement == '[{"' * 500


@pytest.mark.parametrize(
    ("twin", "flag"),
    [
        ("Cafe\u0301", None),
        ("CAFÉ", None),
        ("  café ", None),
        ("ca\u200bfé", "hidden_characters"),
        ("\u202ecafé\u202c", "hidden_characters"),
        ("ca\u00adfé", "hidden_characters"),
    ],
)
def test_twins_of_a_key_are_one_key(twin: str, flag: str | None) -> None:
    edit = read({**FACT, "subject": twin})
    assert edit.key == fact_key("default", "Café", "boss")
    assert edit.flags == ((flag,) if flag else ())
    assert not set(edit.subject) & set("\u200b\u202e\u202c\u00ad")


def test_bidi_controls_leave_the_text() -> None:
    edit = read({**FACT, "target": "A\u202enn\u202c"})
    assert (edit.target, edit.statement) == ("Ann", "The boss of Acme is Ann.")


def test_mixed_script_and_future_time_are_flagged_and_applied() -> None:
    assert read({**FACT, "subject": "Pаypal"}).flags == ("mixed_script",)  # with a Cyrillic a
    assert read({**FACT, "subject": "Москва Moscow"}).flags == ()
    record = raw(with_fields(), at=NOW + 3_600_000)
    assert decode(record, EventLimits(), now_ms=NOW).flags == ("future_timestamp",)


def test_fields_arrive() -> None:
    edit = read(
        {
            **FACT,
            "namespace": " Shop ",
            "subject_aliases": ["ACME Corp", "acme corp", ""],
            "target_aliases": ["Annie"],
            "revision": 2**63 - 1,
            "valid_from": "2025-01-01",
            "valid_until": "2025-01-01T02:00:00+01:00",
            "cardinality": "many",
            "confidence": 1,
            "source": {"uri": "https://example.org/a", "publisher": "hr", "more": 1},
            "unknown": {"x": []},
            "prompt": None,
        }
    )
    assert edit.key == FactKey("shop", "acme", "boss")
    assert (edit.subject_aliases, edit.target_aliases) == (("ACME Corp",), ("Annie",))
    assert (edit.revision, edit.cardinality, edit.confidence) == (2**63 - 1, Cardinality.MANY, 1)
    assert (edit.valid_from, edit.valid_until) == (1_735_689_600_000, 1_735_693_200_000)
    assert (edit.source_uri, edit.publisher) == ("https://example.org/a", "hr")
    assert edit.raw is not None


@pytest.mark.parametrize(
    ("prompt", "statement"),
    [("Who runs Acme?", "Who runs Acme? Ann."), ("The boss of Acme is", "The boss of Acme is Ann.")],
)
def test_a_prompt_is_a_key(prompt: str, statement: str) -> None:
    edit = read({"prompt": prompt, "target": "Ann"})
    assert edit.key == FactKey("default", prompt.lower())
    assert edit.statement == statement
    assert view_of(prompt=prompt) == prompt


def test_a_missing_id_is_derived_from_the_position() -> None:
    value = without("id")
    first, again = (decode(raw(value), EventLimits(), NOW) for _ in range(2))
    assert first.id == again.id == "T:1:7"


def test_a_header_alone_changes_no_position() -> None:
    header = original_position_header(Position("Old/topic", 0, 3), 123)
    assert read(FACT, (header,)).position == read(FACT).position


def test_cloudevents_binary_mode() -> None:
    headers = (
        ("ce_specversion", b"1.0"),
        ("ce_id", b"ce-1"),
        ("ce_source", "https://exämple.org".encode()),
        ("ce_type", b"com.example.fact.v7"),
        ("content-type", b"application/json; charset=UTF-8"),
        ("other", b"\xff\xfe"),
    )
    edit = decode(raw(without("id"), headers), EventLimits(), NOW)
    assert (edit.id, edit.source_uri) == ("ce-1", "https://exämple.org")


@pytest.mark.parametrize("headers", [(("content-type", b"application/cloudevents+json"),), ()])
def test_cloudevents_structured_mode(headers: Headers) -> None:
    event = {"specversion": "1.0", "id": "ce-2", "source": "s", "type": "lte.edit.v1"}
    data = {name: value for name, value in FACT.items() if name != "id"}
    assert read({**event, "data": data}, headers).id == "ce-2"
    packed = {**event, "data_base64": "eyJzdWJqZWN0IjoiQSIsInJlbGF0aW9uIjoiYiIsInRhcmdldCI6ImMifQ=="}
    assert read(packed, (("content-type", b"application/cloudevents+json"),)).target == "c"


@pytest.mark.parametrize("data", [None, 7, "x", []])
def test_a_structured_event_needs_data(data: object) -> None:
    body = json.dumps({"specversion": "1.0", "data": data}).encode()
    assert code_of(body, (("content-type", b"application/cloudevents+json"),)) == "wrong_type"


def test_retractions() -> None:
    by_id = read({"op": "retract", "id": "e1"})
    assert (by_id.op, by_id.key, by_id.retracts) == (Op.RETRACT, None, "e1")
    by_key = read({"op": "retract", "subject": "Acme", "relation": "boss"})
    assert (by_key.key, by_key.retracts, by_key.target) == (FactKey("default", "acme", "boss"), None, None)
    member = read({"op": "retract", "subject": "Acme", "relation": "boss", "target": "Ann"})
    assert member.target == "Ann"
    named = read({"op": "retract", "id": "r1", "retracts": "e1"})
    assert (named.id, named.retracts) == ("r1", "e1")
    assert code_of(b'{"op": "retract"}') == "missing_key"
    assert code_of(b'{"op": "retract", "subject": "Acme"}') == "missing_key"


@pytest.mark.parametrize(
    "key",
    [
        "default\x1fACME\x1fboss",
        "default/Acme/boss",
        '{"subject": "Acme", "relation": "Boss"}',
        '{"namespace": "default", "subject": "Acme", "relation": "boss"}',
    ],
)
def test_a_null_value_withdraws_all_of_the_key(key: str) -> None:
    edit = decode(raw(None, key=key.encode()), EventLimits(), NOW)
    assert (edit.op, edit.key, edit.flags) == (
        Op.RETRACT,
        fact_key("default", "acme", "boss"),
        (WITHDRAW_ALL,),
    )


@pytest.mark.parametrize("key", ["default\x1fwho runs acme?\x1f", '{"prompt": "Who runs Acme?"}'])
def test_a_null_value_withdraws_a_prompt(key: str) -> None:
    assert decode(raw(None, key=key.encode()), EventLimits(), NOW).key == FactKey("default", "who runs acme?")


@pytest.mark.parametrize(
    ("key", "code"),
    [
        (None, "missing_key"),
        (b"", "missing_key"),
        (b"nothing", "missing_key"),
        (b"\xff/a/b", "not_utf8"),
        (b'{"subject": 7}', "wrong_type"),
        (b'{"subject"', "not_json"),
        (b"default/\x00/b", "nul_character"),
        (b"x" * 20_000, "too_large"),
        (b"a\x1fb\x1fc\x1fd", "missing_key"),
    ],
)
def test_a_null_value_with_a_bad_key(key: bytes | None, code: str) -> None:
    with pytest.raises(BadRecord) as caught:
        decode(raw(None, key=key), EventLimits(), NOW)
    assert caught.value.code == code


@pytest.mark.parametrize("key", ["default/TCP/IP gateway/port", "default/a/b/c/d", "default//a/b", "a/b/c/"])
def test_a_null_value_whose_key_reads_in_two_ways_withdraws_nothing(key: str) -> None:
    with pytest.raises(BadRecord, match=r"U\+001F.*JSON") as caught:
        decode(raw(None, key=key.encode()), EventLimits(), NOW)
    assert caught.value.code == "ambiguous_key"


@pytest.mark.parametrize(
    ("key", "parts"),
    [
        ("default/Acme/price", ("default", "Acme", "price", "")),
        ("default/Who runs Acme?", ("default", "", "", "Who runs Acme?")),
        ("default/who runs acme?/", ("default", "", "", "who runs acme?")),
        ("default\x1fTCP/IP gateway\x1fport", ("default", "TCP/IP gateway", "port", "")),
        ("default\x1fWho makes AC/DC\x1f", ("default", "", "", "Who makes AC/DC")),
        ('{"subject": "TCP/IP gateway", "relation": "port"}', ("default", "TCP/IP gateway", "port", "")),
    ],
)
def test_the_slashes_of_a_plain_key_tell_its_parts(key: str, parts: tuple[str, str, str, str]) -> None:
    assert decode(raw(None, key=key.encode()), EventLimits(), NOW).key == fact_key(*parts)


LITERALS = ["2040", "-0", "1e3", "1E+3", "1.50", "0.1", "true", "false", "9" * 400, "9" * 5000]
CLOUD: dict[str, Any] = {"specversion": "1.0", "id": "ce-3", "source": "s", "type": "lte.edit.v1"}
STRUCTURED = (("content-type", b"application/cloudevents+json"),)


@pytest.mark.parametrize("literal", LITERALS)
def test_a_number_or_boolean_as_target_is_the_literal_that_was_sent(literal: str) -> None:
    plain = f'{{"subject": "Pack", "relation": "weight", "target": {literal}}}'
    packed = base64.b64encode(plain.encode()).decode()
    structured = json.dumps(CLOUD)[:-1] + f', "data": {plain}}}'
    edits = [
        read(plain.encode()),
        read(plain.encode(), (("ce_specversion", b"1.0"), ("ce_id", b"x"))),
        read(structured.encode()),
        read({**CLOUD, "data_base64": packed}, STRUCTURED),
    ]
    assert [edit.target for edit in edits] == [literal] * 4
    as_text = read(to_json({"subject": "Pack", "relation": "weight", "target": literal}))
    assert edits[0].content_hash == as_text.content_hash


def test_numbers_and_booleans_are_names_of_the_value_too() -> None:
    edit = read(b'{"prompt": "p", "target": 1.50, "target_aliases": [1.5, true, "x", 10]}')
    assert edit.target_aliases == ("1.5", "true", "x", "10")
    as_text = {"prompt": "p", "target": "1.50", "target_aliases": ["1.5", "true", "x", "10"]}
    assert edit.content_hash == read(as_text).content_hash


@pytest.mark.parametrize(
    ("field", "value", "code"),
    [
        ("target", "{}", "wrong_type"),
        ("target", "[2040]", "wrong_type"),
        ("target", "NaN", "not_json"),
        ("target", "-Infinity", "not_json"),
        ("target", "null", "missing_target"),
        ("target", "9" * 8193, "too_long"),
        ("target_aliases", "7", "wrong_type"),
        ("target_aliases", "[[7]]", "wrong_type"),
        ("target_aliases", "[null]", "wrong_type"),
        ("target_aliases", "[" + "9" * 513 + "]", "too_long"),
        ("subject_aliases", "[7]", "wrong_type"),
        ("relation", "7", "wrong_type"),
        ("statement", "true", "wrong_type"),
        ("revision", "7.0", "bad_revision"),
    ],
)
def test_numbers_are_text_only_there_and_nothing_else_is(field: str, value: str, code: str) -> None:
    event = json.dumps({**FACT, field: "?"}).replace('"?"', value)
    assert code_of(event.encode()) == code


def test_numbers_elsewhere_stay_numbers() -> None:
    edit = read(
        b'{"prompt": "p", "target": "t", "revision": 7, "confidence": 5e-1, "other": {"target": [1]}}'
    )
    assert (edit.revision, edit.confidence) == (7, 0.5)


@pytest.mark.parametrize(
    "marks",
    [{"__deleted": "true"}, {"__deleted": True}, {"__deleted": " TRUE "}, {"__deleted": 1}, {"__op": "d"}],
)
def test_a_table_row_that_was_deleted_withdraws_what_it_says(marks: dict[str, object]) -> None:
    row = {"subject": "Acme", "relation": "boss", "target": "Ann"}
    for event in ({**row, **marks}, {**CLOUD, "data": {**row, **marks}}):
        edit = read(event)
        assert (edit.op, edit.key) == (Op.RETRACT, FactKey("default", "acme", "boss"))
        assert (edit.target, WITHDRAW_ALL in edit.flags) == (None, True)
        assert notice(edit) == ("cdc_deleted", WITHDRAWN)
    member = read({**row, **marks, "cardinality": "many"})
    assert (member.op, member.target, WITHDRAW_ALL in member.flags) == (Op.RETRACT, "Ann", False)
    translated = read({**row, **marks, "op": "retract"})
    assert (translated.target, notice(translated)) == ("Ann", None)


def test_a_mark_of_deletion_that_nobody_understands_is_refused() -> None:
    with pytest.raises(BadRecord, match=r"delete\.tombstone\.handling\.mode=tombstone") as caught:
        read({**FACT, "__deleted": "perhaps"})
    assert caught.value.code == "cdc_deleted"


@pytest.mark.parametrize("mark", ["false", "False", False, None, 0, ""])
def test_a_table_row_that_stands_is_an_event(mark: object) -> None:
    assert read({**FACT, "__deleted": mark, "__op": "u", "__table": "facts"}) == read(FACT)


ENVELOPE: dict[str, Any] = {"before": None, "after": FACT, "source": {"table": "t"}, "op": "u", "ts_ms": 1}


@pytest.mark.parametrize(
    "envelope",
    [
        ENVELOPE,
        {**ENVELOPE, "op": "d", "before": FACT, "after": None},
        {"after": FACT, "op": "r"},
        {"schema": {"type": "struct"}, "payload": ENVELOPE},
        {"schema": {"type": "struct"}, "payload": FACT},
        {**CLOUD, "data": {"before": None, "after": FACT}},
    ],
)
def test_the_envelope_of_a_table_row_names_its_remedy(envelope: dict[str, object]) -> None:
    with pytest.raises(BadRecord, match=r"ExtractNewRecordState.*schemas\.enable=false") as caught:
        read(envelope)
    assert caught.value.code == "cdc_envelope"


def test_fields_named_like_an_envelope_are_ignored_beside_a_fact() -> None:
    assert read({**FACT, "before": 1, "after": 2, "schema": {}, "payload": {}}) == read(FACT)
    assert read({"op": "retract", "id": "e1", "before": 1}).retracts == "e1"
    assert code_of(with_fields(op="u")) == "unknown_op"


def test_publishers_write_only_their_namespaces() -> None:
    writers = {"hr": frozenset({"people"}), "*": frozenset({"default"}), "root": frozenset({"*"})}
    fact = {**FACT, "namespace": "People"}
    assert read({**fact, "source": {"publisher": "hr"}}, writers=writers).namespace == "people"
    assert read({**fact, "source": {"publisher": "root"}}, writers=writers).namespace == "people"
    assert code_of(json.dumps(fact).encode(), writers=writers) == "namespace_forbidden"
    assert code_of(json.dumps({**FACT, "source": {"publisher": "hr"}}).encode(), writers=writers) == (
        "namespace_forbidden"
    )


def test_a_namespace_is_allowed_in_any_spelling() -> None:
    writers = {"hr": frozenset({"Lloyd’s"})}
    event = {**FACT, "namespace": "LLOYD'S", "source": {"publisher": "hr"}}
    assert read(event, writers=writers).namespace == "lloyd's"


def test_what_is_published_is_what_is_read() -> None:
    event = {**FACT, "subject_aliases": ["A"], "source": {"uri": "u"}, "revision": 0, "prompt": None}
    assert read(to_json(event)) == read(event)
    assert record_key(event) == b"default\x1facme\x1fboss"
    assert record_key({"op": "retract", "id": "e1"}) is None


@pytest.mark.parametrize(
    ("parts", "key"),
    [
        (("", "O’Hanlon Creamery", "delivery fee"), "default\x1fo'hanlon creamery\x1fdelivery fee"),
        (("Lloyd’s", "Saint‑Aubin", "Größe"), "lloyd's\x1fsaint-aubin\x1fgrösse"),
        (("", "IŞIKLI MOBİLYA", "head office"), "default\x1fişikli mobilya\x1fhead office"),
        (("", "Anna\u200b\u00a0Berg", "ΛΌΓΟΣ"), "default\x1fanna berg\x1fλόγοσ"),
        (("x", "東京", "人口"), "x\x1f東京\x1f人口"),
    ],
)
def test_a_record_key_stays_what_it_is(parts: tuple[str, str, str], key: str) -> None:
    """It decides the partition: another form of it scatters the events of a fact, and needs a word in the
    changelog, as `FOLD_VERSION` does."""
    assert FOLD_VERSION == 2
    names = ("namespace", "subject", "relation")
    assert record_key(dict(zip(names, parts, strict=True))) == key.encode()
    assert decode(raw(None, key=key.encode()), EventLimits(), NOW).key == FactKey(*key.split("\x1f"))


def test_the_content_hash_knows_no_position_but_every_field() -> None:
    first, moved = read(FACT), decode(raw(with_fields(id="e2"), at=5), EventLimits(), NOW)
    assert first.content_hash == moved.content_hash
    changed = [{"target": "Bo"}, {"revision": 1}, {"subject_aliases": ["A"]}, {"confidence": 0.5}]
    assert len({read({**FACT, **change}).content_hash for change in changed} | {first.content_hash}) == 5


def test_the_committed_schema_is_the_models() -> None:
    root = Path(__file__).parents[3]
    assert (root / "docs/event.schema.json").read_text(encoding="utf-8") == json_schema()
    validator = jsonschema.Draft202012Validator(json.loads(json_schema()))
    validator.validate({**FACT, "valid_from": "2025-01-01", "source": {"uri": "u"}})
    validator.validate({**FACT, "target": 2040, "target_aliases": [True, 1.5, "x"]})
    assert not validator.is_valid({**FACT, "target": [2040]})
    assert not validator.is_valid({**FACT, "relation": 7})
    assert not validator.is_valid({**FACT, "op": "upsert"})
    assert not validator.is_valid({**FACT, "revision": -1})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
FIELDS = st.dictionaries(
    st.sampled_from(
        "id op namespace subject relation target prompt statement revision valid_from valid_until "
        "cardinality source confidence subject_aliases target_aliases retracts specversion data "
        "schema_version __deleted before".split()
    ),
    st.sampled_from(["assert", "retract", "many", "1.0", "2025-01-01", 3]) | JSON,
)
HEADERS = st.lists(
    st.tuples(
        st.sampled_from(
            ["ce_id", "ce_specversion", "content-type", "content-encoding", "lte-original-position"]
        ),
        st.binary(max_size=30)
        | st.sampled_from([b"1.0", b"application/json", b"application/cloudevents+json"]),
    ),
    max_size=3,
).map(tuple)


@settings(deadline=None)
@given(
    value=st.none() | st.binary() | FIELDS.map(lambda body: json.dumps(body).encode()),
    headers=HEADERS,
    key=st.none() | st.binary() | JSON.map(lambda body: json.dumps(body).encode()),
)
def test_decode_raises_nothing_but_bad_record(
    value: bytes | None, headers: Headers, key: bytes | None
) -> None:
    try:
        edit = decode(raw(value, headers, key), EventLimits(), NOW)
    except BadRecord as error:
        refused(error)
    else:
        edit.statement.encode()  # no surrogate came through
        assert edit.key is None or edit.key == fact_key(*_parts(edit.key))


def _parts(key: FactKey) -> tuple[str, str, str, str]:
    if key.relation:
        return key.namespace, key.subject, key.relation, ""
    return key.namespace, "", "", key.subject


def refused(error: BadRecord) -> None:
    assert re.fullmatch("[a-z0-9_]+", error.code)


@settings(deadline=None)
@given(st.text())
def test_normalising_twice_is_normalising_once(text: str) -> None:
    once = key_form(text)
    assert key_form(once) == once
