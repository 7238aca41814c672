from __future__ import annotations

import json

import pytest

from daemon.ingest.publisher_guard import OTHER, GuardSettings, PublisherGuard, publisher_of
from lte_runtime.types import Position, RawRecord

SETTINGS = GuardSettings(window_s=10.0, min_bad=4, share=0.5, max_publishers=3)


@pytest.mark.parametrize(
    ("good", "bad", "suspect"), [(0, 3, False), (0, 4, True), (4, 4, True), (5, 4, False), (100, 10, False)]
)
def test_a_suspect_has_enough_bad_records_and_a_large_share(good: int, bad: int, suspect: bool) -> None:
    guard = PublisherGuard(SETTINGS)
    guard.note("acme", 0.0, good=good)
    guard.note("acme", 1.0, bad=bad)
    assert guard.suspects(1.0) == (("acme",) if suspect else ())


def test_what_lies_before_the_window_is_forgotten() -> None:
    guard = PublisherGuard(SETTINGS)
    for second in range(4):
        guard.note("acme", float(second), bad=1)
    assert guard.suspects(9.0) == ("acme",)
    assert guard.suspects(12.0) == ()
    assert guard.bad_counts() == {"acme": 2}
    assert guard.suspects(100.0) == ()
    assert guard.bad_counts() == {}


def test_one_publishers_fault_is_not_anothers() -> None:
    guard = PublisherGuard(SETTINGS)
    guard.note("acme", 0.0, bad=9)
    guard.note("other inc", 0.0, good=9)
    assert guard.suspects(0.0) == ("acme",)


def test_many_invented_names_share_one_window() -> None:
    guard = PublisherGuard(SETTINGS)
    for number in range(50):
        guard.note(f"name {number}", 0.0, bad=1)
    assert guard.suspects(0.0) == (OTHER,)
    assert len(guard.bad_counts()) == SETTINGS.max_publishers + 1


def record(value: bytes | None, *headers: tuple[str, bytes]) -> RawRecord:
    return RawRecord("t", Position("id", 0, 0), None, value, headers)


@pytest.mark.parametrize(
    ("bad", "publisher"),
    [
        (record(b"\xff", ("publisher", b"acme")), "acme"),
        (record(b"\xff", ("ce_source", b"//acme/crm")), "//acme/crm"),
        (record(json.dumps({"source": {"publisher": "acme"}}).encode()), "acme"),
        (record(b'{"source": "text"}'), "unknown"),
        (record(b'{"source": {"publisher": 7}}'), "unknown"),
        (record(b"[1, 2]"), "unknown"),
        (record(b"{"), "unknown"),
        (record(None), "unknown"),
        (record(b"[" * 10_000), "unknown"),
        (record(b'{"source": {"publisher": "' + b"a" * 70_000 + b'"}}'), "unknown"),
        (record(b"x", ("publisher", b"\xff" * 500)), "\ufffd" * 200),
    ],
)
def test_the_publisher_of_a_bad_record_is_guessed_and_never_fails(bad: RawRecord, publisher: str) -> None:
    assert publisher_of(bad) == publisher
