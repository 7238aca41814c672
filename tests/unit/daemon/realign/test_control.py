"""The control topic, folded: the last claim owns, a command is taken once and by the right one."""

from __future__ import annotations

import json

import pytest

from daemon.realign.control import Command, Control, claim, commanding, folded, parsed, taking
from lte_runtime.errors import BadRecord

GROUP = "g"
COMMAND = Command("c1", "why", expires_ms=1000)


def log(*values: bytes | None) -> Control:
    state = Control()
    for offset, value in enumerate(values):
        state = folded(state, offset, parsed(value), GROUP)
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
    assert state.takers == {"c1": 0}


def test_who_was_fenced_takes_nothing() -> None:
    """The zombie's record stands first, but behind the claim that fenced it."""
    state = log(
        claim("zombie", GROUP, 0),
        commanding(COMMAND, GROUP),
        claim("owner", GROUP, 2),
        taking(COMMAND, 0, GROUP, 3),
        taking(COMMAND, 2, GROUP, 4),
    )
    assert state.takers == {"c1": 2}


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
    assert (state.due(0), state.takers) == ([], {"c1": 0})
    state = log(claim("a", GROUP, 0), taking(COMMAND, 0, GROUP, 1), commanding(COMMAND, GROUP))
    assert state.due(0) == [], "taken before it was read"


COMMANDED = {"kind": "realign", "id": "x", "reason": "why", "expires_ms": 5}
TAKEN = {"kind": "taken", "id": "x", "epoch": 0}


@pytest.mark.parametrize(
    "value",
    [
        b"\xff",
        b"[]",
        b"[" * 100_000,
        b'{"kind": "claim", "instance": "b", "instance": "a"}',
        b'{"kind": "realign"}',
        json.dumps({**COMMANDED, "id": 1}).encode(),
        json.dumps({**COMMANDED, "id": ""}).encode(),
        json.dumps({**COMMANDED, "id": "x" * 201}).encode(),
        json.dumps({**COMMANDED, "reason": ["why"]}).encode(),
        json.dumps({**COMMANDED, "reason": "x" * 8193}).encode(),
        json.dumps({**COMMANDED, "expires_ms": "soon"}).encode(),
        json.dumps({**COMMANDED, "expires_ms": True}).encode(),
        json.dumps({**COMMANDED, "expires_ms": 2**70}).encode(),
        json.dumps({**COMMANDED, "expires_ms": -1}).encode(),
        json.dumps({**COMMANDED, "group": 7}).encode(),
        json.dumps({**COMMANDED, "more": "x" * (64 << 10)}).encode(),
        json.dumps({**TAKEN, "id": ["x"]}).encode(),
        json.dumps({**TAKEN, "epoch": False}).encode(),
        json.dumps({**TAKEN, "epoch": 0.0}).encode(),
        json.dumps({**TAKEN, "epoch": 2**70}).encode(),
        json.dumps({"kind": "claim"}).encode(),
        json.dumps({"kind": "claim", "instance": None}).encode(),
        json.dumps({"kind": "claim", "instance": "x" * 201}).encode(),
        json.dumps({"kind": "later", "id": "x"}).encode(),
        json.dumps({"kind": ["claim"], "instance": "x"}).encode(),
    ],
)
def test_what_is_no_record_is_refused(value: bytes) -> None:
    with pytest.raises(BadRecord):
        parsed(value)


@pytest.mark.parametrize("value", [None, b"", claim("x", "other", 1), commanding(COMMAND, "other")])
def test_a_tombstone_or_a_record_of_another_group_changes_nothing(value: bytes | None) -> None:
    first = log(claim("a", GROUP, 0))
    assert folded(first, 1, parsed(value), GROUP) == Control(2, 0, "a")


def test_a_long_reason_is_cut() -> None:
    state = log(commanding(Command("c1", "x" * 20_000, 5), GROUP))
    assert len(state.waiting["c1"].reason) == 1000
