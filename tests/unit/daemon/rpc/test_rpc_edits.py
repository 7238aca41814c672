"""EditService and AdminService over the wire, on a real edit memory."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from daemon.cli.app import app
from daemon.client import Client
from daemon.ingest.values import AcceptedGap, IngestStatus, PartitionStatus, ReplayReport
from daemon.kafka.history import Gap, GapKind
from daemon.rpc.edit_servicer import check
from lte_runtime.errors import BadRequest, NotFound, Refused
from lte_runtime.store.records import Truncated
from tests.unit.daemon.rpc.conftest import NOW_MS, TOPIC_ID, TP, Build, Rig

PRICE = {"subject": "Brisk kettle", "relation": "price"}
OLD = {**PRICE, "id": "p1", "target": "39 euros", "subject_aliases": ["BK-7"], "revision": 1}
NEW = {**PRICE, "id": "p2", "target": "49 euros", "revision": 2, "confidence": 0.5}


def test_get_edit(rig: Rig) -> None:
    rig.tell({**OLD, "valid_from": "2024-01-02T03:04:05Z", "source": {"publisher": "shop"}})
    with rig.client() as client:
        edit = client.get_edit("p1")
        with pytest.raises(NotFound):
            client.get_edit("p9")
        with pytest.raises(BadRequest):
            client.get_edit("")
    assert (edit["id"], edit["op"], edit["target"], edit["state"]) == ("p1", "assert", "39 euros", "current")
    assert edit["key"] == {"namespace": "default", "subject": "brisk kettle", "relation": "price"}
    assert (edit["revision"], edit["confidence"], edit["retracts"]) == (1, None, None)
    assert (edit["valid_from"], edit["valid_until"]) == ("2024-01-02T03:04:05.000Z", None)
    assert edit["subject_aliases"] == ["BK-7"]
    assert edit["source"] == {"uri": "", "publisher": "shop"}
    assert edit["positions"] == [{"topic_id": TOPIC_ID, "partition": 0, "offset": 0}]
    assert edit["timestamp"] == "2025-06-15T15:06:40.000Z"
    assert edit["cardinality"] == "one"


def test_history_and_why_not(rig: Rig) -> None:
    rig.tell(OLD, NEW)
    with rig.client() as client:
        history = client.history("BRISK kettle", "price")
        why = client.why_not("p1")
        with pytest.raises(NotFound):
            client.history("Brisk kettle", "weight")
        for empty in ("", " ", "\u200b"):
            with pytest.raises(BadRequest):
                client.history(empty, "price")
    assert [(edit["id"], edit["state"]) for edit in history] == [("p2", "current"), ("p1", "superseded")]
    assert why == {"winner_id": "p2", "reason": "superseded"}


def test_a_history_comes_in_pages(rig: Rig) -> None:
    rig.tell(*[{**PRICE, "id": f"p{n}", "target": f"{n} euros"} for n in range(120)])
    newest_first = [f"p{n}" for n in reversed(range(120))]
    with rig.client() as client:
        first = client.history_page("Brisk kettle", "price")
        second = client.history_page("Brisk kettle", "price", page_token=first["next_page_token"])
        small = client.history_page("Brisk kettle", "price", page_size=2)
        assert [edit["id"] for edit in client.history("Brisk kettle", "price")] == newest_first
        for page_size, page_token in ((-1, ""), (1001, ""), (0, "p7")):
            with pytest.raises(BadRequest, match="page_"):
                client.history_page("Brisk kettle", "price", page_size=page_size, page_token=page_token)
    assert [edit["id"] for edit in first["edits"] + second["edits"]] == newest_first
    assert (len(first["edits"]), second["next_page_token"], len(small["edits"])) == (100, "", 2)


def test_a_prompt_is_a_key_too(rig: Rig) -> None:
    rig.tell({"id": "q1", "prompt": "Who runs the mill?", "target": "Edda Rook"})
    with rig.client() as client:
        assert client.history("who runs the MILL?")[0]["id"] == "q1"


def test_every_call_takes_every_spelling_of_a_name(rig: Rig) -> None:
    fee = {"namespace": "Lloyd’s", "subject": "O’Hanlon Creamery", "relation": "delivery fee"}
    rig.tell({**fee, "id": "o1", "target": "€4.90"})
    rig.tell({**fee, "id": "o2", "subject": "O'HANLON CREAMERY", "namespace": "lloyd's", "target": "€3.50"})
    spelling = {"subject": "Oʼhanlon\u00a0Creamery", "relation": "DELIVERY FEE", "namespace": "Lloyd‘s"}
    with rig.client() as client:
        assert [edit["id"] for edit in client.history(**spelling)] == ["o2", "o1"]
        assert client.why_not("o1") == {"winner_id": "o2", "reason": "superseded"}
        edits = client.list_edits(subject=spelling["subject"], namespace=spelling["namespace"])["edits"]
        assert [edit["id"] for edit in edits] == ["o2", "o1"]
        question = f"What is the delivery fee of {spelling['subject']}?"
        answer = client.answer(question, namespace=spelling["namespace"])
        assert [citation["edit_id"] for citation in answer["citations"]] == ["o2"]
        rig.tell({**spelling, "op": "retract"})
        assert client.get_edit("o2")["state"] == "retracted"
        assert client.erase(**spelling)["edits"] == 2


def test_edits_are_listed_page_by_page(rig: Rig) -> None:
    rig.tell(*[{**PRICE, "id": f"p{n}", "subject": f"Kettle {n}", "target": "1 euro"} for n in range(5)])
    rig.tell({**OLD, "id": "other", "namespace": "other"})
    with rig.client() as client:
        seen, token = [], ""
        while True:
            page = client.list_edits(namespace="default", page_size=2, page_token=token)
            seen += [edit["id"] for edit in page["edits"]]
            token = page["next_page_token"]
            if not token:
                break
        assert seen == ["p4", "p3", "p2", "p1", "p0"]
        assert [edit["id"] for edit in client.list_edits(subject="kettle 3")["edits"]] == ["p3"]
        assert len(client.list_edits()["edits"]) == 6
        with pytest.raises(BadRequest, match="page_size"):
            client.list_edits(page_size=5000)


def test_publish_hands_the_topics_json_over(rig: Rig) -> None:
    event: dict[str, Any] = {
        **NEW,
        "valid_from": "2025-01-01",
        "cardinality": "many",
        "target_aliases": ["EUR 49"],
        "source": {"uri": "https://shop.example/7"},
    }
    with rig.client() as client:
        positions = client.publish([event, {"op": "retract", "retracts": "p1", **PRICE}])
        with pytest.raises(BadRequest):
            client.publish([{"subject": "Brisk kettle", "relation": "price"}])
        with pytest.raises(BadRequest):
            client.publish([])
    assert [position["offset"] for position in positions] == [0, 1]
    first, second = rig.publisher.events
    assert first == {**event, "op": "assert", "valid_from": "2025-01-01T00:00:00.000Z"}
    assert second == {"op": "retract", "retracts": "p1", **PRICE}


def test_numbers_as_targets_are_text_on_this_way_too(rig: Rig) -> None:
    with rig.client() as client:
        client.publish([{**PRICE, "target": 49, "target_aliases": [1.5, True, "x"]}])
    (event,) = rig.publisher.events
    assert (event["target"], event["target_aliases"]) == ("49", ["1.5", "true", "x"])


def test_publish_without_a_publisher_is_refused(build: Build) -> None:
    rig = build(services={"publisher": None})
    with rig.client() as client, pytest.raises(Refused):
        client.publish([NEW])


GAP = Gap(GapKind.BEYOND_END, {TP: 9}, {TP: 5}, "offsets 5 to 8 are gone")
LOST = check(
    {"op": "assert", "id": "gone", "subject": "Brisk kettle", "relation": "price", "target": "9 EUR"}
)


class FakeIngest:
    """Answers like an ingest; the real one is run with the broker."""

    def __init__(self) -> None:
        self.asked: list[Any] = []

    def status(self) -> IngestStatus:
        return IngestStatus({TP: PartitionStatus(3, 5, 2)}, NOW_MS, 5, 1, 0, {"shop": 1}, None)

    def skip(self, partition: int, offset: int, resume_at: int | None, timeout_s: float) -> int:  # noqa: ARG002
        return offset + 1 if resume_at is None else resume_at

    def accept_gap(self, timeout_s: float, *, withdraw_lost: bool) -> AcceptedGap:
        assert 0 < timeout_s <= 60
        return AcceptedGap(GAP, Truncated((LOST,), 3, withdraw_lost))

    def lost_in_gap(self, timeout_s: float) -> AcceptedGap:
        assert 0 < timeout_s <= 60
        return AcceptedGap(GAP, Truncated((LOST,), 3))

    def resume(self, timeout_s: float) -> None:
        self.asked.append(timeout_s)

    def replay(self, ids: list[int], timeout_s: float) -> ReplayReport:
        del timeout_s
        self.asked += ids
        return ReplayReport(len(ids), ("p1",), len(ids) - 1)


def test_operators_calls_reach_the_ingest(build: Build) -> None:
    ingest = FakeIngest()
    rig = build(services={"ingest": ingest})
    with rig.client() as client:
        expected = client.accept_gap(dry_run=True)
        gap = client.accept_gap(withdraw_lost=True)
        assert client.resume_ingest() == {}
        assert client.skip_record(2, 7) == {"resumed_at": 8}
        assert client.skip_record(2, 7, resume_at=0) == {"resumed_at": 0}
        replayed = client.replay_dead_letters([3, 4])
        with pytest.raises(BadRequest):
            client.replay_dead_letters([])
    assert gap["message"] == "offsets 5 to 8 are gone"
    assert (gap["lost_count"], gap["lost_withdrawn"], expected["lost_withdrawn"]) == (3, True, False)
    assert [(edit["id"], edit["key"]["subject"], edit["target"]) for edit in gap["lost"]] == [
        ("gone", "brisk kettle", "9 EUR")
    ]
    assert expected["lost"] == gap["lost"]
    assert gap["resumed_at"] == [{"topic_id": TOPIC_ID, "partition": 0, "next_offset": 5}]
    assert replayed == {"records": 2, "applied_edit_ids": ["p1"], "rejected": 1}
    assert ingest.asked[1:] == [3, 4]


def test_without_an_ingest_they_are_refused(rig: Rig) -> None:
    with rig.client() as client:
        calls = (
            client.accept_gap,
            client.resume_ingest,
            lambda: client.skip_record(0, 0),
            lambda: client.replay_dead_letters([1]),
        )
        for call in calls:
            with pytest.raises(Refused, match="does not read the edits topic"):
                call()


def test_status(build: Build) -> None:
    rig = build(services={"ingest": FakeIngest()})
    rig.tell(OLD, b"no json")
    rig.lifecycle.set_caught_up()
    rig.lifecycle.set_degraded("shop", "one bad record in two")
    with rig.client() as client:
        status = client.status()
    assert (status["state"], status["stale"], status["version"]) == ("DEGRADED", True, "0.1.0")
    assert status["reasons"] == ["one bad record in two"]
    memory, ingest, engine = status["memory"], status["ingest"], status["engine"]
    assert (memory["edits"], memory["current_facts"], memory["quarantine_rows"]) == (1, 1, 1)
    assert memory["index_path"] == {"default": "exact"}
    assert memory["watermarks"][0]["next_offset"] == 2
    assert ingest["partitions"][0]["lag"] == 2
    assert (ingest["bad_publishers"], ingest["gap"]) == ({"shop": 1}, None)
    assert (engine["model"], engine["adapter"]["id"]) == ("stub", "align-000000")
    assert status["gate"]["threshold"] == 0.5


def test_a_list_of_dead_letters_does_not_read_their_bytes(rig: Rig) -> None:
    rig.tell(b"no json " * 1000, b"\xff")
    with rig.client() as client:
        assert [row["size_bytes"] for row in client.dead_letters()["dead_letters"]] == [8000, 1]
        assert client.dead_letter(1)["size_bytes"] == 8000
    rows = rig.memory.quarantine_page()
    assert [(row.record.key, row.record.value, row.record.headers) for row in rows] == [(None, None, ())] * 2


def test_dead_letters(rig: Rig) -> None:
    rig.tell(b"no json", b"\xff\xfe", OLD, b"[]")
    with rig.client() as client:
        first = client.dead_letters(page_size=2)
        rest = client.dead_letters(page_size=2, page_token=first["next_page_token"])
        rows = first["dead_letters"] + rest["dead_letters"]
        assert [row["position"]["offset"] for row in rows] == [0, 1, 3]
        assert all(row["code"] and row["sha256"] and row["record_value"] is None for row in rows)
        assert client.dead_letter(rows[0]["id"])["record_value"] == "no json"
        raw = client.dead_letter(rows[1]["id"])["record_value"]
        assert base64.b64decode(raw["base64"]) == b"\xff\xfe"
        with pytest.raises(NotFound):
            client.dead_letter(99)
        with pytest.raises(BadRequest, match="page_token"):
            client.dead_letters(page_token="x")


def test_index_and_snapshot(rig: Rig) -> None:
    rig.tell(OLD, NEW)
    with rig.client() as client:
        verified = client.verify_index()
        rebuilt = client.rebuild_index()
        snapshot = client.take_snapshot()
        assert client.status()["memory"]["snapshot"]["name"] == snapshot["name"]
    assert (verified["ok"], verified["keys"], verified["recall"]) == (True, 1, 1.0)
    assert rebuilt == {"vectors": 1}
    assert snapshot["size_bytes"] > 0


def test_erase(rig: Rig) -> None:
    rig.tell(OLD, NEW)
    with rig.client() as client:
        receipt = client.erase("brisk KETTLE", "price")
        assert client.answer("What is the price of the Brisk kettle?")["scope"] == "base"
        with pytest.raises(NotFound):
            client.history("Brisk kettle", "price")
    assert receipt["edits"] == 2
    assert receipt["vectors"] == 1
    assert receipt["not_covered"]
    assert "kettle" not in str(receipt)


def test_the_command_prints_a_long_history_page_by_page(
    rig: Rig, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LTE_TRIALS", raising=False)  # the command takes LTE_ names for settings
    sizes: list[int] = []
    history_page = Client.history_page

    def counted(self: Client, *args: Any, page_size: int, **fields: Any) -> dict[str, Any]:
        sizes.append(page_size)
        return history_page(self, *args, page_size=page_size, **fields)

    monkeypatch.setattr(Client, "history_page", counted)
    rig.tell(*[{**PRICE, "id": f"p{n}", "target": f"{n} euros"} for n in range(1100)])
    command = ["edits", "history", "default/brisk kettle/price", "--socket", str(rig.settings.socket)]

    def lines_of(*options: str) -> list[str]:
        with pytest.raises(SystemExit) as end:
            app(args=[*command, *options], prog_name="lte")
        assert not end.value.code
        return capsys.readouterr().out.splitlines()

    assert [line.split("\t")[0] for line in lines_of()] == ["edit", *(f"p{n}" for n in range(1099, -1, -1))]
    (document,) = lines_of("--json", "--limit", "3")
    assert [edit["id"] for edit in json.loads(document)] == ["p1099", "p1098", "p1097"]
    assert sizes == [1000, 1000, 3]
