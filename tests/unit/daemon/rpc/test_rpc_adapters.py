"""Adapters over the wire: add, list, activate, roll back, verify; and what is tainted."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from stub_adapters import save_adapter

from daemon.adapters.manager import AdapterManager
from daemon.adapters.swap import Configured, Swapper
from daemon.client import Client
from lte_runtime.align.registry import Registry
from lte_runtime.answer.encoder import StubEncoder
from lte_runtime.answer.engine.stub import STUB_ADAPTER, StubEngine
from lte_runtime.errors import BadRequest, Damaged, NotFound, Refused
from lte_runtime.memory.edit_memory import EditMemory
from lte_runtime.store.db import MIGRATIONS
from tests.unit.daemon.rpc.conftest import Build, Rig

FACT = {"id": "e1", "subject": "Port Arlen", "relation": "harbour master", "target": "Ines Calder"}


def with_desk(rig: Rig, root: Path, keep: int = 5) -> AdapterManager:
    """The adapter manager of a rig's own memory and engine, given to its servicers."""
    registry = Registry(root, rig.engine.check_adapter, reserved={STUB_ADAPTER.id})
    configured = Configured(STUB_ADAPTER)
    swapper = Swapper(rig.engine, registry, rig.memory.adapters, configured)
    swapper.start()

    def state_of(edit_id: str) -> str:
        try:
            return rig.memory.get_edit(edit_id).state
        except NotFound:
            return ""

    manager = AdapterManager(
        rig.engine, registry, rig.memory.adapters, swapper, configured, state_of=state_of, keep=keep
    )
    object.__setattr__(rig.services, "adapters", manager)
    return manager


@pytest.fixture
def manager(rig: Rig, tmp_path: Path) -> AdapterManager:
    return with_desk(rig, tmp_path / "registry", keep=2)


@pytest.fixture
def client(rig: Rig, manager: AdapterManager) -> Iterator[Client]:
    assert manager
    with rig.client() as made:
        yield made


def serving(client: Client) -> Any:
    return client.adapters()["serving"]["id"]


def by_id(client: Client) -> dict[str, dict[str, Any]]:
    return {each["id"]: each for each in client.adapters()["adapters"]}


def test_add_activate_and_roll_back(client: Client, rig: Rig, tmp_path: Path) -> None:
    rig.tell(FACT)
    added = client.add_adapter(save_adapter(tmp_path / "made", 2), "from the cluster")
    assert added["id"] == "align-000002"
    assert serving(client) == STUB_ADAPTER.id
    move = client.activate_adapter("align-000002", "trial")
    assert (move["adapter"], move["reason"], move["number"]) == ("align-000002", "trial", 1)
    answer = client.answer("Who is the harbour master of Port Arlen?", scope="edited")
    assert answer["adapter"] == added
    listed = by_id(client)["align-000002"]
    assert (listed["active"], listed["serving"], listed["problem"]) == (True, True, "")
    assert json.loads(listed["verdict"]) == {"by": "operator", "note": "from the cluster"}
    assert "edit_ids" not in json.loads(listed["manifest"])
    back = client.rollback_adapter("worse")
    assert (back["adapter"], back["number"]) == ("configured", 2)
    assert serving(client) == STUB_ADAPTER.id
    assert [each["reason"] for each in client.adapters()["history"]] == ["worse", "trial"]
    with pytest.raises(Refused, match="go back"):
        client.rollback_adapter()


def test_refusals_have_their_codes(client: Client, manager: AdapterManager, tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        client.activate_adapter("align-000009")
    with pytest.raises(BadRequest):
        client.activate_adapter("")
    with pytest.raises(Refused, match="is not a directory"):
        client.add_adapter(tmp_path / "nothing")
    ref = client.add_adapter(save_adapter(tmp_path / "made", 2))
    assert client.verify_adapter() == {"ok": True, "problems": {"align-000002": ""}}
    (tmp_path / "registry" / ref["sha256"] / "adapter_model.safetensors").write_bytes(b"torn")
    with pytest.raises(Damaged, match="hash"):
        client.activate_adapter("align-000002")
    report = client.verify_adapter("align-000002")
    assert not report["ok"]
    assert "hash" in report["problems"]["align-000002"]
    assert serving(client) == STUB_ADAPTER.id
    assert manager.counts().adapters == 1


def test_the_oldest_go_and_nothing_needed_does(client: Client, tmp_path: Path) -> None:
    for number in (2, 3):
        client.add_adapter(save_adapter(tmp_path / f"made-{number}", number))
    client.activate_adapter("align-000002")
    client.activate_adapter("align-000003")
    for number in (4, 5, 6, 7):
        client.add_adapter(save_adapter(tmp_path / f"made-{number}", number))
    assert sorted(by_id(client)) == [
        STUB_ADAPTER.id, "align-000002", "align-000003", "align-000006", "align-000007"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("event", "why"),
    [
        ({"op": "retract", "subject": "Port Arlen", "relation": "harbour master"}, "retracted"),
        ({"op": "retract", "id": "r1", "retracts": "e1"}, "retracted"),
        ({**FACT, "id": "e9", "target": "Olav Brandt"}, "superseded"),
    ],
)
def test_an_adapter_that_learned_what_no_longer_stands_is_tainted(
    client: Client, manager: AdapterManager, rig: Rig, tmp_path: Path, event: dict[str, Any], why: str
) -> None:
    other = {"id": "e2", "subject": "Mount Sedge", "relation": "height", "target": "1290 m"}
    rig.tell(FACT, other)
    client.add_adapter(save_adapter(tmp_path / "made", 2, edit_ids=("e1", "e2", "unknown")))
    client.activate_adapter("align-000002")
    manager.look_for_taint()
    assert manager.tainted() == ()
    rig.tell({**other, "id": "e3", "subject": "Mount Other"}, event)
    manager.look_for_taint()
    assert [(each.edit_id, each.why) for each in manager.tainted()] == [("e1", why)]
    (shown,) = by_id(client)["align-000002"]["tainted"]
    assert (shown["edit_id"], shown["why"]) == ("e1", why)
    assert by_id(client)["align-000002"]["trained_edits"] == 3
    rig.tell({**FACT, "id": "e4", "revision": 9})
    manager.look_for_taint()
    assert len(manager.tainted()) == 1
    client.rollback_adapter()
    assert manager.tainted() == ()


def test_an_erasure_taints_at_once(client: Client, manager: AdapterManager, rig: Rig, tmp_path: Path) -> None:
    rig.tell(FACT)
    client.add_adapter(save_adapter(tmp_path / "made", 2, edit_ids=("e1",)))
    client.activate_adapter("align-000002")
    client.erase("Port Arlen", "harbour master")
    assert [(each.edit_id, each.why) for each in manager.tainted()] == [("e1", "erased")]


def test_a_daemon_without_a_desk_refuses(build: Build) -> None:
    with build().client() as client, pytest.raises(Refused, match="does not manage adapters"):
        client.adapters()


def test_a_store_of_the_version_before_is_lifted(tmp_path: Path) -> None:
    """P18: the tables about adapters come into a store that had none."""
    import apsw

    db = apsw.Connection(str(tmp_path / "edits.db"))
    db.execute(f"{MIGRATIONS[0]}; INSERT INTO meta VALUES('kept', 'yes'); PRAGMA user_version=1")
    db.close()
    memory = EditMemory.open(tmp_path, StubEncoder())
    engine = StubEngine()
    memory.adapters.point("none", "", "trial", 3)
    assert (memory.meta_get("kept"), memory.adapters.epoch()) == ("yes", 3)
    engine.close()
    memory.close()
