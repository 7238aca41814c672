"""An acknowledged retraction is never served again, and an erased fact is in no file."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from daemon_house import House, Json, fact, question, targets, until

from lte_runtime.answer.encoder.stub import StubEncoder

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.timeout(1200)]


def passed(answer: Json, position: Json) -> bool:
    """Whether the answer was made at or past a position."""
    marks = {(each["topic_id"], each["partition"]): each["next_offset"] for each in answer["watermarks"]}
    return bool(marks.get((position["topic_id"], position["partition"]), 0) > position["offset"])


class Asker:
    """Asks one question after the other in a thread of its own and keeps the answers."""

    def __init__(self, house: House, subjects: list[str]) -> None:
        self._house, self._subjects = house, subjects
        self.answers: list[tuple[str, Json]] = []
        self.errors: list[BaseException] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        number = 0
        try:
            while not self._stop.wait(0.005):
                subject = self._subjects[number % len(self._subjects)]
                self.answers.append((subject, self._house.ask(question(subject))))
                number += 1
        except BaseException as error:  # noqa: BLE001 - the test looks at it
            self.errors.append(error)

    def __enter__(self) -> Asker:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(60)


def test_no_answer_past_a_retraction_cites_it(house: House) -> None:
    """Questions go on while facts are withdrawn; each answer's own watermark is the judge."""
    subjects = [f"Barge {number}" for number in range(20)]
    house.publish([fact(subject, f"Owner {subject}", id=f"own-{subject}") for subject in subjects])
    last = house.publish([fact("Barge last", "Somebody")])
    house.ask("Ready?", last)
    gone: dict[str, Json] = {}
    with Asker(house, subjects) as asker:
        for subject in subjects[:15]:
            by_id = subjects.index(subject) % 2
            event: Json = {"op": "retract", "subject": subject, "relation": "owner"}
            if by_id:
                event["retracts"] = f"own-{subject}"
            (gone[subject],) = house.client.publish([event])
            answer = house.ask(question(subject), [gone[subject]])
            assert (answer["scope"], targets(answer)) == ("base", [])
        enough = len(asker.answers) + 2 * len(subjects)
        until(lambda: asker.errors or len(asker.answers) > enough, "each subject to be asked again")
    assert not asker.errors
    judged = [(s, a) for s, a in asker.answers if s in gone and passed(a, gone[s])]
    assert judged
    assert all(f"own-{subject}" not in cited(answer) for subject, answer in judged)
    assert {s for s, a in asker.answers if cited(a)} >= set(subjects[15:])


def cited(answer: Json) -> list[str]:
    return [each["edit_id"] for each in answer["citations"]]


def test_retraction_restores_the_previous_fact(house: House) -> None:
    events = [fact("Tug Nine", name, id=f"tug-{name}") for name in ("Ada", "Bea", "Cid")]
    at = house.publish(events)
    assert targets(house.ask(question("Tug Nine"), at)) == ["Cid"]
    for expected in (["Bea"], ["Ada"], []):
        at = house.publish([{"op": "retract", "subject": "Tug Nine", "relation": "owner"}])
        assert targets(house.ask(question("Tug Nine"), at)) == expected


def test_a_retraction_survives_a_kill_at_once(make_house: Callable[..., House]) -> None:
    """Killed right after Kafka's acknowledgement, whether the daemon had applied the retraction or not."""
    house = make_house().start()
    subjects = [f"Ferry {number}" for number in range(6)]
    at = house.publish([fact(subject, f"Line {subject}") for subject in subjects])
    assert targets(house.ask(question("Ferry 0"), at)) == ["Line Ferry 0"]
    events = [{"op": "retract", "subject": subject, "relation": "owner"} for subject in subjects[:4]]
    gone = house.publish(events)
    house.stack.kill_daemon()
    house.start()
    for subject in subjects:
        answer = house.ask(question(subject), gone)
        assert targets(answer) == ([] if subject in subjects[:4] else [f"Line {subject}"])


def holders(directory: Path, needles: dict[str, bytes]) -> dict[str, list[str]]:
    """Which files hold which bytes."""
    files = [path for path in directory.rglob("*") if path.is_file()]
    read = {str(path.relative_to(directory)): path.read_bytes() for path in files}
    return {name: [path for path, data in read.items() if needle in data] for name, needle in needles.items()}


@pytest.fixture
def secret() -> Json:
    return {
        "subject": "Quillharbour Depot",
        "relation": "custodian",
        "target": "Marwenna Tolkvist",
        "statement": "Since spring the Quillharbour depot is kept by M. Tolkvist.",
        "subject_aliases": ["Zephyrvault"],
        "target_aliases": ["Old Tolky"],
        "id": "secret-1",
    }


def test_erased_text_is_in_no_file(make_house: Callable[..., House], secret: Json) -> None:
    """Text, aliases, vector and a quarantined twin leave store, its log, snapshots and quarantine."""
    house = make_house().start()
    earlier = {**secret, "id": "secret-0", "target": "Ulrikke Vondersee", "statement": "Ulrikke Vondersee."}
    house.publish([earlier, secret, {**secret, "target": "Twinhilde Varga"}])
    at = house.publish([fact(f"Depot {n}", f"Holder {n}", "custodian") for n in range(50)])
    asked = question("Quillharbour Depot", "custodian")
    assert targets(house.ask(asked, at)) == ["Marwenna Tolkvist"]
    house.client.take_snapshot()
    needles = needles_of(secret)
    before = holders(house.state_dir, needles)
    assert all(before.values()), before

    receipt = house.lte("erase", "-s", "Quillharbour Depot", "-r", "custodian", "--yes", "--json")
    assert receipt.code == 0, receipt.err
    assert receipt.json["edits"] == 2
    assert receipt.json["quarantined"] == 1
    assert receipt.json["receipt_id"]
    assert nothing_of(holders(house.state_dir, needles))
    assert house.ask(asked)["scope"] == "base"
    assert targets(house.ask(question("Depot 7", "custodian"))) == ["Holder 7"]

    house.stack.kill_daemon()
    house.start()
    assert house.ask(asked)["scope"] == "base"
    assert targets(house.ask(question("Depot 7", "custodian"))) == ["Holder 7"]
    house.stack.stop_daemon()
    assert nothing_of(holders(house.state_dir, needles))


def needles_of(secret: Json) -> dict[str, bytes]:
    texts = ["Quillharbour", "quillharbour", "Tolkvist", "Zephyrvault", "Old Tolky", "Vondersee", "Twinhilde"]
    vector = StubEncoder().encode([f"The {secret['relation']} of {secret['subject']}"])
    found: dict[str, Any] = {text: text.encode() for text in texts}
    return {**found, "vector": vector.tobytes()}


def nothing_of(found: dict[str, list[str]]) -> bool:
    assert not any(found.values()), {name: paths for name, paths in found.items() if paths}
    return True
