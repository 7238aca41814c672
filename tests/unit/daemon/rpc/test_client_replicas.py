"""A client of several daemons: what counts as several, who is asked, and what is tried again."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable

import pytest

from daemon import client as client_module
from daemon.client import Client, channel_options, target
from daemon.gateway.daemon_calls import NOBODY, DaemonCalls
from lte_runtime.errors import BadRequest, Retry
from tests.unit.daemon.rpc.conftest import Build, Rig

QUESTIONS = 40


@pytest.fixture
def pair(build: Build) -> tuple[Rig, Rig]:
    """Two rigs on TCP that serve and know the same fact."""
    rigs = build(name="1", listen="127.0.0.1:0"), build(name="2", listen="127.0.0.1:0")
    for rig in rigs:
        rig.tell({"subject": "Quay 4", "relation": "owner", "target": "Ines Calder"})
        rig.lifecycle.set_caught_up()
    return rigs


def fleet(rigs: tuple[Rig, ...]) -> Client:
    return Client(",".join(str(rig.server.tcp_address) for rig in rigs), timeout_s=30.0)


def answered(rig: Rig) -> int:
    return Counter(call.code for call in rig.calls if call.method.endswith("/Answer"))["OK"]


def ask(client: Client, times: int) -> set[str]:
    return {str(client.answer("What is the owner of Quay 4?")["text"]) for _ in range(times)}


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("10.0.0.1:8463,10.0.0.2:8463", "ipv4:10.0.0.1:8463,10.0.0.2:8463"),
        ("10.0.0.1:8463, 10.0.0.2:8463", "ipv4:10.0.0.1:8463,10.0.0.2:8463"),
        ("[::1]:1,[::2]:2", "ipv6:[::1]:1,[::2]:2"),
        ("dns:///lte-replicas:8463", "dns:///lte-replicas:8463"),
        ("ipv4:127.0.0.1:1,127.0.0.1:2", "ipv4:127.0.0.1:1,127.0.0.1:2"),
        ("lte-daemon:8463", "lte-daemon:8463"),
        ("/run/a,b/lte.sock", "unix:/run/a,b/lte.sock"),
    ],
)
def test_addresses_as_targets(address: str, expected: str) -> None:
    assert target(address) == expected


@pytest.mark.parametrize("address", ["10.0.0.1:1,host:2", "10.0.0.1:1,[::1]:2", "10.0.0.1,10.0.0.2", "a:1,"])
def test_a_list_that_gRPC_cannot_take_is_refused(address: str) -> None:
    with pytest.raises(BadRequest, match="dns:///HOST:PORT"):
        target(address)


def test_tls_needs_a_name() -> None:
    with pytest.raises(BadRequest, match="checked against one name"):
        channel_options("ipv4:10.0.0.1:1,10.0.0.2:1", tls=True)
    assert channel_options("dns:///lte:1", tls=True)


def test_calls_go_round(pair: tuple[Rig, Rig]) -> None:
    with fleet(pair) as client:
        until_both_answer(client, pair)
        before = [answered(rig) for rig in pair]
        assert ask(client, QUESTIONS) == {"Ines Calder"}
        assert [answered(rig) - count for rig, count in zip(pair, before, strict=True)] == [20, 20]


def test_a_daemon_that_does_not_serve_is_left_out(pair: tuple[Rig, Rig]) -> None:
    pair[1].lifecycle.set_stopping()
    with fleet(pair) as client:
        assert ask(client, QUESTIONS) == {"Ines Calder"}
    assert answered(pair[0]) == QUESTIONS
    assert pair[1].calls == [], "its health is watched: no call is wasted on it"


def test_more_clients_than_can_watch_health_ask_all_the_same(
    pair: tuple[Rig, Rig], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Clients of one process would share a connection, and so a watch.
    apart = (*client_module.CHANNEL_OPTIONS, ("grpc.use_local_subchannel_pool", 1))
    monkeypatch.setattr(client_module, "CHANNEL_OPTIONS", apart)
    for rig in pair:
        for threads in rig.server._threads:
            monkeypatch.setattr(threads.watches, "_most", 1)
    with fleet(pair) as first, fleet(pair) as second:
        for client in (first, second):
            until_both_answer(client, pair)
            assert ask(client, QUESTIONS) == {"Ines Calder"}
        pair[1].lifecycle.set_stopping()
        assert ask(second, QUESTIONS) == {"Ines Calder"}, "what is refused is asked again"


def test_reads_go_on_at_the_other_when_one_has_gone(pair: tuple[Rig, Rig]) -> None:
    with fleet(pair) as client:
        until_both_answer(client, pair)
        pair[1].server.stop(grace=0)
        assert ask(client, QUESTIONS) == {"Ines Calder"}


def test_the_gateway_goes_round_too(pair: tuple[Rig, Rig]) -> None:
    async def ask_all(address: str) -> None:
        calls = DaemonCalls(
            address, tls_ca=None, token_needed=False, timeout_s=30.0, max_message_bytes=1 << 20
        )
        for _ in range(QUESTIONS):
            await calls.call(NOBODY, "answer", "Answer", question="What is the owner of Quay 4?")
        pair[1].server.stop(grace=0)
        for _ in range(QUESTIONS):
            await calls.call(NOBODY, "answer", "Answer", question="What is the owner of Quay 4?")
        await calls.close()

    address = target(",".join(str(rig.server.tcp_address) for rig in pair))
    assert address
    asyncio.run(ask_all(address))
    assert all(answered(rig) for rig in pair)
    assert sum(answered(rig) for rig in pair) == 2 * QUESTIONS


def test_nothing_answers_when_all_have_gone(pair: tuple[Rig, Rig]) -> None:
    with fleet(pair) as client:
        for rig in pair:
            rig.server.stop(grace=0)
        with pytest.raises(Retry):
            client.answer("What is the owner of Quay 4?")


def test_a_publication_is_sent_once(pair: tuple[Rig, Rig], monkeypatch: pytest.MonkeyPatch) -> None:
    """It may have arrived although nobody said so."""
    for rig in pair:
        monkeypatch.setattr(rig.publisher, "publish", refuse(rig))
    with fleet(pair) as client:
        ask(client, 1)
        with pytest.raises(Retry, match="no acknowledgement"):
            client.publish([{"subject": "Quay 4", "relation": "owner", "target": "Rolf"}])
    assert sum(len(rig.publisher.events) for rig in pair) == 1


def refuse(rig: Rig) -> Callable[..., None]:
    def publish(events: list[dict[str, str]], _headers: object) -> None:
        rig.publisher.events += events
        raise Retry("no acknowledgement")

    return publish


def until_both_answer(client: Client, rigs: tuple[Rig, Rig]) -> None:
    """The connections are made one after the other."""
    before = [answered(rig) for rig in rigs]
    for _ in range(500):
        ask(client, 1)
        if all(answered(rig) > count for rig, count in zip(rigs, before, strict=True)):
            return
    raise AssertionError("not both daemons were asked")
