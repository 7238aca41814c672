"""The control topic, folded: the last claim owns, a command is taken once and by the right one."""

from __future__ import annotations

import json

import pytest

from daemon.control import Command, Control, claim, commanding, folded, taking

GROUP = "g"
COMMAND = Command("c1", "why", expires_ms=1000)


def log(*values: bytes | None) -> Control:
    state = Control()
    for offset, value in enumerate(values):
        state = folded(state, offset, value, GROUP)
    return state


def test_the_last_claim_owns_and_its_offset_is_the_epoch() -> None:
    state = log(claim("a", GROUP, 0), claim("b", GROUP, 1))
    assert (state.owner, state.epoch, state.next) == ("b", 1, 2)


def test_claims_of_another_deployment_do_not_count() -> None:
    assert log(claim("a", GROUP, 0), claim("x", "other", 1)).owner == "a"


def test_a_command_waits_until_it_is_taken_or_expires() -> None:
    state = log(claim("a", GROUP, 0), commanding(COMMAND, GROUP))
    assert state.due(999) == [COMMAND]
    assert state.due(1000) == []
    state = log(claim("a", GROUP, 0), commanding(COMMAND, GROUP), taking(COMMAND, 0, GROUP, 2))
    assert state.due(0) == []
    assert state.taken == {"c1": 0}


def test_who_was_fenced_takes_nothing() -> None:
    """The zombie's record stands first, but behind the claim that fenced it."""
    state = log(
        claim("zombie", GROUP, 0),
        commanding(COMMAND, GROUP),
        claim("owner", GROUP, 2),
        taking(COMMAND, 0, GROUP, 3),
        taking(COMMAND, 2, GROUP, 4),
    )
    assert state.taken == {"c1": 2}


def test_an_id_is_run_once_however_often_it_is_said() -> None:
    again = commanding(Command("c1", "again", 10**9), GROUP)
    state = log(
        claim("a", GROUP, 0),
        commanding(COMMAND, GROUP),
        again,
        taking(COMMAND, 0, GROUP, 3),
        again,
        taking(COMMAND, 0, GROUP, 5),
    )
    assert (state.due(0), state.taken) == ([], {"c1": 0})
    state = log(claim("a", GROUP, 0), taking(COMMAND, 0, GROUP, 1), commanding(COMMAND, GROUP))
    assert state.due(0) == [], "taken before it was read"


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"",
        b"\xff",
        b"[]",
        b"[" * 100_000,
        b'{"kind": "realign"}',
        json.dumps({"kind": "realign", "id": 1, "expires_ms": 5}).encode(),
        json.dumps({"kind": "realign", "id": "x", "expires_ms": "soon"}).encode(),
        json.dumps({"kind": "realign", "id": "x", "expires_ms": True}).encode(),
        json.dumps({"kind": "realign", "id": "x" * 300, "expires_ms": 5}).encode(),
        json.dumps({"kind": "taken", "id": ["x"], "epoch": 0}).encode(),
        json.dumps({"kind": "later", "id": "x"}).encode(),
    ],
)
def test_what_is_no_record_changes_nothing(value: bytes | None) -> None:
    first = log(claim("a", GROUP, 0))
    assert folded(first, 1, value, GROUP) == Control(2, 0, "a")
