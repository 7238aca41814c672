"""The command line against a real broker and a real daemon; encoder and model are the cheap, exact stubs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from doc_blocks import blocks, shell_commands

from lte_runtime.store.db import open_reader
from ops.kafka.broker import Broker
from ops.stack import Stack

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

GUARD_S = 120


class Ran(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class House:
    """A stack, and `lte` run in a directory where `.lte/up.json` names it."""

    def __init__(self, stack: Stack, directory: Path) -> None:
        self.stack = stack
        self.directory = directory
        (directory / ".lte").mkdir()
        stack.addresses.write(directory / ".lte" / "up.json")

    def lte(self, *arguments: str, stdin: str = "") -> Ran:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("LTE_")}
        done = subprocess.run(
            [sys.executable, "-m", "daemon", *arguments],
            cwd=self.directory,
            env=environment,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=GUARD_S,
            check=False,
        )
        return Ran(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="module")
def house(
    broker: Broker,  # noqa: ARG001 - ends the test with the reason where no broker can run
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[House]:
    settings = {"LTE_ENCODER__MODEL": "stub", "LTE_MODEL__PATH": "stub", "LTE_LOG__LEVEL": "info"}
    with _house(tmp_path_factory, settings) as house:
        yield house


@contextmanager
def _house(factory: pytest.TempPathFactory, settings: dict[str, str]) -> Iterator[House]:
    with Stack(factory.mktemp("stack"), settings=settings) as stack:
        stack.start_broker()
        stack.start_daemon()
        yield House(stack, factory.mktemp("work"))


@pytest.mark.model
def test_the_readmes_first_use(
    broker: Broker,  # noqa: ARG001
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """The lines for the second terminal, one after the other, with the encoder and model that ship."""
    block = next(block for block in blocks() if block.page == "README.md" and "source .venv" in block.text)
    _, *commands = shell_commands(block.text)
    with _house(tmp_path_factory, {}) as house:
        results = [house.lte(*words[1:]) for words in commands]
    assert [result.code for result in results] == [0] * len(commands), [result.err for result in results]
    before, _, explained, paraphrased, _, after = (result.out for result in results)
    assert explained.startswith("Mira Okafor\n")
    assert paraphrased.startswith("Mira Okafor\n")
    assert "Mira Okafor" not in before
    assert after == before


def test_publish_ask_retract(house: House) -> None:
    """A fact is answerable when `--wait` returns, cited, explained, and gone after a retraction."""
    question = "Who is the CEO of Velmora Systems?"
    before = house.lte("ask", question, "--json").json
    assert before["scope"] == "base"

    fact = ("-s", "Velmora Systems", "-r", "CEO")
    published = house.lte("publish", *fact, "-t", "Ina Torvald", "--wait", "--json")
    assert published.code == 0, published.err
    assert published.json["published"] == 1
    assert published.json["answerable_ms"] >= 0
    assert published.json["refused"] == []

    answer = house.lte("ask", question, "--json").json
    assert answer["scope"] == "edited"
    assert "Ina Torvald" in answer["text"]
    assert answer["citations"][0]["target"] == "Ina Torvald"
    told = house.lte("ask", question, "--explain")
    assert told.out.startswith("Ina Torvald")
    assert "gate threshold" in told.out

    retracted = house.lte("retract", *fact, "--wait")
    assert retracted.code == 0, retracted.err
    after = house.lte("ask", question, "--json").json
    assert (after["scope"], after["text"]) == ("base", before["text"])


def test_streamed_answer_equals_the_whole_one(house: House) -> None:
    house.lte("publish", "-s", "Corvane", "-r", "capital", "-t", "Sael", "--wait")
    streamed = house.lte("ask", "What is the capital of Corvane?", "--stream")
    whole = house.lte("ask", "What is the capital of Corvane?")
    assert streamed.code == 0
    assert streamed.out.splitlines()[0] == whole.out.splitlines()[0]


def test_a_file_and_stdin_with_a_bad_event_among_good_ones(house: House) -> None:
    events = [{"subject": f"Item {n}", "relation": "price", "target": f"{n} EUR"} for n in range(20)]
    file = house.directory / "facts.jsonl"
    file.write_text("".join(json.dumps(event) + "\n" for event in events), "utf-8")
    assert house.lte("publish", "facts.jsonl", "--wait", "--json").json["published"] == 20

    bad = {"subject": "Item 3", "relation": "price"}
    mixed = house.lte("publish", "-", "--wait", "--json", stdin=json.dumps([events[0], bad]))
    assert mixed.code == 1
    assert mixed.json["refused"] == [bad]

    letters = house.lte("dlq", "list", "--json").json
    assert [letter["code"] for letter in letters] == ["missing_target"]
    shown = house.lte("dlq", "show", str(letters[0]["id"]), "--json").json
    assert json.loads(shown["record_value"]) == bad
    replayed = house.lte("dlq", "replay", "--all", "--json")
    assert replayed.code == 1
    assert replayed.json["rejected"] == 1


def test_edits_tell_history_and_why_not(house: House) -> None:
    key = ("-s", "Ostrava Line", "-r", "operator")
    for target in ("Norail", "Treno"):
        house.lte("publish", *key, "-t", target, "--wait")
    history = house.lte("edits", "history", *key, "--json").json
    by_state = {edit["state"]: edit for edit in history}
    assert by_state["superseded"]["target"] == "Norail"
    assert by_state["current"]["target"] == "Treno"
    why = house.lte("edits", "why-not", by_state["superseded"]["id"], "--json").json
    assert why["winner_id"] == by_state["current"]["id"]
    shown = house.lte("edits", "show", by_state["current"]["id"], "--json").json
    assert shown["subject"] == "Ostrava Line"
    listed = house.lte("edits", "list", "-s", "Ostrava Line")
    assert listed.out.splitlines()[0].split("\t")[:2] == ["edit", "state"]
    assert len(listed.out.splitlines()) == 3
    missing = house.lte("edits", "show", "no-such-edit")
    assert missing.code == 4


def test_as_of_answers_from_what_was_valid_then(house: House) -> None:
    key, since = ("-s", "Port Ellis", "-r", "mayor"), ("--valid-from", "2020-01-01")
    house.lte("publish", *key, "-t", "Ada Kern", *since, "--valid-until", "2025-01-01", "--wait")
    house.lte("publish", *key, "-t", "Bo Lind", "--valid-from", "2025-01-01", "--wait")
    question = "Who is the mayor of Port Ellis?"
    assert "Bo Lind" in house.lte("ask", question).out
    assert "Ada Kern" in house.lte("ask", question, "--as-of", "2024-06-30").out


def test_read_your_writes_by_position(house: House) -> None:
    published = house.lte("publish", "-s", "Kite", "-r", "version", "-t", "4.2", "--json").json
    (position,) = published["positions"]
    asked = house.lte("ask", "What is the version of Kite?", "--at-least", position, "--json")
    assert asked.json["citations"][0]["target"] == "4.2"
    topic_id, partition, offset = position.rsplit("/", 2)
    ahead = f"{topic_id}/{partition}/{int(offset) + 1000}"
    assert house.lte("ask", "Kite?", "--at-least", ahead, "--timeout", "0.5").code == 6


def test_erase_leaves_a_receipt_and_no_text(house: House) -> None:
    key = ("-s", "Quiet Harbour", "-r", "owner")
    house.lte("publish", *key, "-t", "Secretname Gruber", "--wait")
    erased = house.lte("erase", *key, "--yes", "--json")
    assert erased.code == 0, erased.err
    assert erased.json["edits"] == 1
    assert any("Kafka" in line for line in erased.json["not_covered"])
    assert house.lte("ask", "Who is the owner of Quiet Harbour?", "--json").json["scope"] == "base"


def test_status_index_and_refusals(house: House) -> None:
    status = house.lte("status", "--check", "--json")
    assert status.code == 0
    assert status.json["state"] in ("READY", "DEGRADED")
    assert [p["lag"] for p in status.json["ingest"]["partitions"]] == [0] * len(
        status.json["ingest"]["partitions"]
    )
    assert house.lte("index", "verify").code == 0
    assert house.lte("index", "rebuild").code == 0
    assert house.lte("accept-gap", "--yes").code == 5
    assert house.lte("ingest", "resume").code in (0, 5)
    assert house.lte("ingest", "skip", "--partition", "0", "--offset", "0").code == 5


def test_a_running_store_is_copied_with_its_checksums(house: House, tmp_path: Path) -> None:
    house.lte("publish", "-s", "Morvane", "-r", "capital", "-t", "Tolm", "--wait")
    copy = tmp_path / "copy.db"
    told = house.lte("backup", str(copy), "--state-dir", str(house.stack.directory / "state"), "--json")
    assert told.code == 0
    assert told.json["bytes"] == copy.stat().st_size
    with closing(open_reader(copy, 5000)) as store:
        found = store.execute("SELECT target FROM facts WHERE target = 'tolm'").fetchall()
    assert found == [("tolm",)]


def test_a_second_daemon_on_the_same_state_names_the_owner(house: House) -> None:
    state = str(house.stack.directory / "state")
    second = house.lte("serve", "--state-dir", state, "--metrics", "off", "--set", "model.path=stub")
    assert second.code == 5
    assert str(house.stack.daemon_pid) in second.err


def test_logs_hold_no_fact_text(house: House) -> None:
    log = house.stack.daemon_log.read_text("utf-8")
    assert "READY" in log
    for text in ("Velmora", "Ina Torvald", "Secretname"):
        assert text not in log


def test_a_file_as_a_database_writes_it(house: House) -> None:
    """Numbers arrive as they stand in the file; a deleted row takes its fact."""
    rows = [
        '{"subject": "Tarn pack", "relation": "weight", "target": 2040.50, "__deleted": "false"}',
        '{"subject": "Tarn tent", "relation": "stock", "target": 3}',
        '{"subject": "Tarn tent", "relation": "stock", "target": 3, "__deleted": "true"}',
    ]
    published = house.lte("publish", "-", "--wait", "--json", stdin="\n".join(rows))
    assert (published.code, published.json["refused"]) == (0, [])
    assert house.lte("ask", "What is the weight of Tarn pack?").out.startswith("2040.50")
    assert house.lte("ask", "What is the stock of Tarn tent?", "--json").json["scope"] == "base"
    letters = house.lte("dlq", "list", "--json").json
    assert [letter["code"] for letter in letters if letter["code"].startswith("cdc")] == ["cdc_deleted"]


def test_a_statement_that_is_too_long_to_search_is_named(house: House) -> None:
    """By the words alone, or by the daemon's flag after a wait."""
    fact = ("publish", "-s", "Rill lamp", "-r", "manual", "-t", "press twice", "--statement", "press " * 300)
    assert house.lte(*fact, "--json").json["long_texts"] == {"long_statement": 1}
    waited = house.lte(*fact, "--wait")
    assert "1 of them: statement longer than the encoder reads" in waited.err
