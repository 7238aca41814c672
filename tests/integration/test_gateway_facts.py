"""REST for facts through a real gateway, daemon and broker."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from daemon_house import House, fact, question, targets, until
from gateway_process import GatewayProcess, Tokens

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.timeout(1200)]


@pytest.fixture
def client(guarded_gateway: GatewayProcess, tokens: Tokens) -> Iterator[httpx.Client]:
    headers = tokens.headers("operator")
    with httpx.Client(base_url=guarded_gateway.url, timeout=60, headers=headers) as opened:
        yield opened


def publish(house: House, client: httpx.Client, *facts: Any) -> list[Any]:
    """Published, and seen by questions."""
    reply = client.post("/v1/facts/batch", json={"facts": list(facts)})
    assert reply.status_code == 201, reply.text
    positions: list[Any] = reply.json()["positions"]
    house.client.retrieve("anything", at_least=positions)
    return positions


def test_a_fact_is_published_found_and_retracted(guarded_house: House, client: httpx.Client) -> None:
    house = guarded_house
    publish(house, client, fact("Fenwick", "Ann", id="f-1"), fact("Fenwick", "Bea", id="f/2", revision=2))
    assert client.get("/v1/facts/f-1").json()["state"] == "superseded"
    assert client.get("/v1/facts/f/2").json()["state"] == "current"
    why = client.get("/v1/why-not", params={"edit_id": "f-1"}).json()
    assert why["winner_id"] == "f/2"
    history = client.get("/v1/history", params={"subject": "Fenwick", "relation": "owner"}).json()
    assert [edit["id"] for edit in history["edits"]] == ["f/2", "f-1"]
    reply = client.post("/v1/facts/retract", json={"subject": "Fenwick", "relation": "owner"})
    assert reply.status_code == 201
    assert targets(house.ask(question("Fenwick"), reply.json()["positions"])) == ["Ann"]
    reply = client.post("/v1/facts/retract", json={"edit_id": "f-1"})
    assert targets(house.ask(question("Fenwick"), reply.json()["positions"])) == []


def test_facts_are_listed_in_pages(guarded_house: House, client: httpx.Client) -> None:
    publish(guarded_house, client, *(fact(f"Page {n}", "Rolf", namespace="pages") for n in range(5)))
    names, page_token = [], ""
    while True:
        page = {"namespace": "pages", "page_size": 2, "page_token": page_token}
        reply = client.get("/v1/facts", params=page).json()
        names += [edit["subject"] for edit in reply["edits"]]
        page_token = reply["next_page_token"]
        if not page_token:
            break
    assert sorted(names) == [f"Page {n}" for n in range(5)]


def test_a_number_as_target_is_the_text_that_was_sent(client: httpx.Client) -> None:
    body = '{"id": "price-1", "subject": "Bolt", "relation": "price", "target": 1.10}'
    client.post("/v1/facts", content=body, headers={"Content-Type": "application/json"})
    until(lambda: client.get("/v1/facts/price-1").status_code == 200, "the fact to be applied")
    assert client.get("/v1/facts/price-1").json()["target"] == "1.10"


def test_a_dry_run_publishes_nothing(guarded_house: House, client: httpx.Client) -> None:
    publish(guarded_house, client, fact("Dunlin", "Ann"))
    trial = {"fact": fact("Dunlin", "Bea", revision=9), "max_probes": 2}
    reply = client.post("/v1/facts/dry-run", json=trial).json()
    assert reply["applied"]
    assert reply["probes"][0]["before"] == "Ann"
    assert reply["probes"][0]["after"] == "Bea"
    assert guarded_house.ask(question("Dunlin"))["text"] == "Ann"


@pytest.mark.parametrize(
    ("path", "body", "expected"),
    [
        ("/v1/facts", '{"subject": "a", "relation": "b"}', "missing_target"),
        ("/v1/facts", '{"subject": "a", "subject": "b"}', "duplicate_key"),
        ("/v1/facts", "[1]", "wrong_type"),
        ("/v1/facts", '{"a": ' * 60 + "1" + "}" * 60, "too_deep"),
        ("/v1/facts", "nonsense", "not_json"),
        ("/v1/facts/batch", '{"facts": []}', "invalid_request"),
        ("/v1/facts/retract", '{"subjet": "a"}', "invalid_request"),
        ("/v1/facts/retract", "{}", "missing_key"),
        ("/v1/facts/dry-run", '{"fact": {}, "max_probes": 33}', "invalid_request"),
    ],
)
def test_a_wrong_body_is_refused_by_name(client: httpx.Client, path: str, body: str, expected: str) -> None:
    reply = client.post(path, content=body, headers={"Content-Type": "application/json"})
    assert (reply.status_code, reply.json()["error"]["code"]) == (400, expected)


def test_what_does_not_exist_is_a_404(client: httpx.Client) -> None:
    for path in ("/v1/facts/none-such", "/v1/why-not?edit_id=none-such", "/v1/none-such"):
        assert client.get(path).status_code == 404
    assert "/docs" in client.get("/v1/none-such").json()["error"]["message"]
    assert client.get("/v1/facts?page_size=1001").json()["error"]["param"] == "page_size"
    assert client.put("/v1/facts", json={}).status_code == 405
