"""The data files say what their READMEs say: they decode, their ids are unique, their references join."""

from __future__ import annotations

import itertools
import json
import unicodedata
from collections import Counter
from pathlib import Path
from typing import Any

import make_gate

from lte_runtime.facts.events import EventLimits, decode
from lte_runtime.names.normalise import key_form
from lte_runtime.scoring import contains
from lte_runtime.types import Position, RawRecord

ROOT = Path(__file__).parents[2]
DATA = ROOT / "tests" / "data"
DEMO = ROOT / "ops" / "demo"
NEAR_KINDS = ("person", "place", "date", "number", "code", "material", "organisation")
STOCK = ROOT / "lte_runtime" / "align" / "stock" / "facts"


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def user_events() -> list[dict[str, Any]]:
    return [row["event"] for row in read(DATA / "user_facts.jsonl")]


def near_events() -> list[dict[str, Any]]:
    return [row["event"] for row in read(DATA / "near_questions.jsonl")]


def gate_events() -> list[dict[str, Any]]:
    return [row["event"] for row in read(DATA / "gate.jsonl") if "event" in row]


def stock() -> dict[tuple[str, str], str]:
    """(relation word, normalised subject) -> target."""
    relations = json.loads((STOCK / "relations.json").read_text(encoding="utf-8"))
    facts: dict[tuple[str, str], str] = {}
    for name, entry in relations.items():
        for line in (STOCK / f"{name}.tsv").read_text(encoding="utf-8").splitlines():
            subject, target = line.split("\t")[:2]
            facts[entry["relation"], key_form(subject)] = target
    return facts


def test_every_event_decodes_and_ids_are_unique() -> None:
    events = read(DEMO / "events.jsonl") + user_events() + near_events() + gate_events()
    for offset, event in enumerate(events):
        value = json.dumps(event, ensure_ascii=False).encode()
        edit = decode(RawRecord("lte.edits", Position("t", 0, offset), None, value), EventLimits())
        assert edit.id == event["id"]
    assert len({event["id"] for event in events}) == len(events)


def test_the_sets_share_no_subject() -> None:
    sets = [
        {key_form(event["subject"]) for event in events if "subject" in event}
        for events in (read(DEMO / "events.jsonl"), user_events(), near_events(), gate_events())
    ]
    known = {subject for _, subject in stock()}
    for first, second in itertools.combinations(sets, 2):
        assert not first & second
    assert not set().union(*sets[1:]) & known


def test_stock_is_large_unique_and_clean() -> None:
    lines = 0
    for path in STOCK.glob("*.tsv"):
        rows = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()]
        lines += len(rows)
        assert all(row[0] and row[1] for row in rows), path
        assert max(Counter(key_form(row[0]) for row in rows).values()) == 1, path
        text = path.read_text(encoding="utf-8")
        assert unicodedata.is_normalized("NFC", text), path
    assert lines >= 2300
    names = set(json.loads((STOCK / "relations.json").read_text(encoding="utf-8")))
    assert names == {path.stem for path in STOCK.glob("*.tsv")}


def test_demo_script_joins_its_events() -> None:
    events = {event["id"]: event for event in read(DEMO / "events.jsonl")}
    script = json.loads((DEMO / "script.json").read_text(encoding="utf-8"))
    chains = [item["event_ids"] for item in [script["two_hop"], *script["questions"]] if "event_ids" in item]
    for chain in chains:
        for first, second in itertools.pairwise(chain):
            assert events[first]["target"] == events[second]["subject"]
    for item in script["questions"]:
        assert events[item["event_id"]]["target"] in item["expected"]
    first, second = (events[name] for name in script["conflict"]["event_ids"])
    assert (first["subject"], first["relation"]) == (second["subject"], second["relation"])
    assert first["revision"] < second["revision"]
    assert script["conflict"]["winner"] == second["id"]
    assert script["retraction"]["publish"]["retracts"] in events


def test_demo_changes_what_was_so_in_2023() -> None:
    events = {event["id"]: event for event in read(DEMO / "events.jsonl")}
    script = json.loads((DEMO / "script.json").read_text(encoding="utf-8"))
    known = stock()
    for item in script["old_then_new"]:
        event = events[item["event_id"]]
        assert known[event["relation"], key_form(event["subject"])] != event["target"]
    assert script["unrelated"]["expected"][0] in known.values()


def test_user_facts_carry_two_hundred_alias_probes() -> None:
    rows = read(DATA / "user_facts.jsonl")
    assert len(rows) == 200
    for row in rows:
        alias, *more = row["event"]["subject_aliases"]
        assert not more
        assert alias in row["alias_question"]
        assert row["event"]["target"] == row["expected"][0]


def test_near_questions_are_many_of_all_kinds_and_languages() -> None:
    rows = read(DATA / "near_questions.jsonl")
    assert Counter(row["language"] for row in rows) == {"en": 79, "de": 12, "fr": 12, "es": 12}
    kinds = Counter(row["kind"] for row in rows)
    assert min(kinds[kind] for kind in NEAR_KINDS) >= 10
    assert set(kinds) == {*NEAR_KINDS, "other"}
    first = rows[:40]
    assert {row["language"] for row in first} == {"en", "de", "fr", "es"}
    assert {row["kind"] for row in first} >= set(NEAR_KINDS)
    for values in (
        [key_form(row["event"]["subject"]) for row in rows],
        [key_form(row["event"]["target"]) for row in rows],
        [key_form(question) for row in rows for question in (row["question"], *row["near"])],
    ):
        assert max(Counter(values).values()) == 1


def test_near_questions_name_the_subject_and_give_no_value_away() -> None:
    for row in read(DATA / "near_questions.jsonl"):
        event, target = row["event"], row["event"]["target"]
        assert len(row["near"]) == 2
        for question in (row["question"], *row["near"]):
            assert question.rstrip().endswith("?")
            assert key_form(event["subject"]) in key_form(question), question
            assert not contains(question, [target]), question
        if "statement" in event:
            assert event["statement"].count(target) == 1
            assert not contains(event["subject"], [target])


def test_gate_file_is_what_its_script_writes() -> None:
    text = (DATA / "gate_pools.txt").read_text(encoding="utf-8")
    assert make_gate.make_rows(text) == read(DATA / "gate.jsonl")


def test_gate_splits_are_disjoint_and_negatives_are_not_stored() -> None:
    rows = read(DATA / "gate.jsonl")
    events = {row["event"]["id"]: row for row in rows if "event" in row}
    of_split = {
        split: {r["event"]["subject"] for r in events.values() if r["split"] == split}
        for split in make_gate.SPLITS
    }
    assert not of_split["calibration"] & of_split["test"]
    asked = [row for row in rows if "question" in row]
    assert max(Counter(row["question"] for row in asked).values()) == 1
    out = [row for row in asked if row["label"] == "out" and row["split"] == "test"]
    assert len(out) >= 500
    stored = {key_form(row["event"]["subject"]) for row in events.values()}
    kinds, _ = make_gate.read_pools((DATA / "gate_pools.txt").read_text(encoding="utf-8"))
    unknown = {key_form(name) for kind in kinds for names in kind.subjects for name in names[1:]}
    assert not stored & unknown
