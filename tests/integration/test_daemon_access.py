"""Callers of the whole daemon: a token file that changes, names in records, secrets that nothing writes."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from certificates import authority
from daemon_house import House, Ran, fact, question, until
from gateway_process import started
from kafka import KafkaConsumer
from kafka_topic import KafkaTopic
from mcp import Client as McpClient
from mcp import StdioServerParameters
from mcp.client.stdio import stdio_client

from daemon.client import Client
from lte_runtime.errors import Refused
from ops.kafka.broker import Broker

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.timeout(1200)]
PASSWORD = "canary-of-kafka-9c1e5b"
HUB_TOKEN = "hf_canary-of-the-hub-7f20d4"
UNKNOWN = "canary-of-a-token-that-nobody-knows"
MISPLACED = "canary-of-a-token-in-the-wrong-place"


@dataclass
class Secrets:
    """What a deployment keeps secret, in a directory of its own."""

    directory: Path
    tokens: dict[str, str] = field(default_factory=dict)

    @property
    def file(self) -> Path:
        return self.directory / "tokens.toml"

    def path(self, name: str) -> Path:
        return self.directory / f"{name}.token"

    def add(self, house: House, name: str, *options: str) -> None:
        places = ("--out", str(self.path(name)), "--add-to", str(self.file))
        made = house.lte("token", "new", "--name", name, *options, *places)
        assert made.code == 0, made.err
        self.tokens[name] = self.path(name).read_text().strip()


@dataclass
class Guarded:
    """A daemon with TLS and tokens, and all that its commands have said."""

    house: House
    secrets: Secrets
    roots: Path
    audit: KafkaTopic
    said: list[Ran] = field(default_factory=list)

    @property
    def address(self) -> str:
        return f"localhost:{self.house.stack.addresses.grpc.rpartition(':')[2]}"

    def client(self, name: str) -> Client:
        return Client(
            self.address,
            admin_address=self.address,
            tls_ca=self.roots,
            token_file=self.secrets.path(name),
            timeout_s=60,
        )

    def lte(self, *arguments: str, **environment: str) -> Ran:
        done = self.house.lte(*arguments, **{**self.house.settings, **environment})
        self.said.append(done)
        return done


@pytest.fixture(scope="module")
def guarded(
    broker: Broker,
    make_module_house: Callable[..., House],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Guarded]:
    secrets, audit = Secrets(tmp_path_factory.mktemp("secrets")), KafkaTopic(broker.bootstrap, 1)
    roots = authority(secrets.directory)
    cert, key = roots.signed("server", "/CN=localhost")
    house = make_module_house(
        LTE_LOG__LEVEL="debug",
        LTE_KAFKA__AUDIT_TOPIC=audit.topic,
        # No listener of this broker asks for it; it is configured all the same.
        LTE_KAFKA__SECURITY__SECURITY_PROTOCOL="PLAINTEXT",
        LTE_KAFKA__SECURITY__SASL_PLAIN_PASSWORD=PASSWORD,
        HF_TOKEN=HUB_TOKEN,
        LTE_RPC__TLS_CERT=str(cert),
        LTE_RPC__TLS_KEY=str(key),
        LTE_RPC__TOKEN_FILE=str(secrets.file),
        LTE_REALIGN__MIN_FACT_AGE_S="0",
    )
    secrets.add(house, "asker", "--role", "asker", "--read", "default")
    secrets.add(house, "etl", "--role", "publisher", "--write", "default", "--read", "default")
    secrets.add(house, "ops", "--role", "operator", "--read", "*", "--write", "*")
    house.start()
    yield Guarded(house, secrets, roots.root, audit)
    audit.close()


def test_what_a_publisher_writes_bears_its_name(guarded: Guarded) -> None:
    with guarded.client("etl") as etl, guarded.client("asker") as asker:
        positions = etl.publish([fact("Buoy One", "Ida", id="buoy-1")])
        answer = asker.answer(question("Buoy One"), at_least=positions)
        assert answer["citations"][0]["source"]["publisher"] == "etl"
        with pytest.raises(Refused, match=r"etl \(publisher\) may write 'default'"):
            etl.publish([fact("Buoy One", "Ole", namespace="other")])
    headers = [dict(record.headers) for record in records(guarded.house, guarded.house.topic.topic)]
    assert {"lte-principal": b"etl"} in headers


def records(house: House, topic: str) -> list[Any]:
    """All records of a topic."""
    consumer = KafkaConsumer(
        topic, bootstrap_servers=house.topic.bootstrap, auto_offset_reset="earliest", consumer_timeout_ms=3000
    )
    read = list(consumer)
    consumer.close()
    return read


def test_what_an_operator_does_bears_its_name(guarded: Guarded) -> None:
    house = guarded.house
    with guarded.client("ops") as ops, guarded.client("asker") as asker:
        ops.take_snapshot()
        with pytest.raises(Refused, match="needs the role operator"):
            asker.take_snapshot()
    house.client.take_snapshot()
    method = "/lte.v1.AdminService/TakeSnapshot"

    def acts() -> list[Any]:
        found = [json.loads(record.value) for record in records(house, guarded.audit.topic)]
        return [row for row in found if row["kind"] == "operator" and row["method"] == method]

    until(lambda: len(acts()) >= 2, "two records on the audit topic")
    assert [(row["principal"], row["code"]) for row in acts()] == [("ops", "OK"), ("admin.sock", "OK")]
    logged = [line for line in house.log.splitlines() if '"operator_act"' in line]
    assert [json.loads(line)["principal"] for line in logged if method in line] == ["ops", "admin.sock"]


def test_a_wrong_token_file_shows_and_the_tokens_of_before_hold(guarded: Guarded) -> None:
    house, file = guarded.house, guarded.secrets.file
    good = file.read_text()
    file.write_text(f'{good}bad = {{ role = "asker", read = ["*"], sha256 = "{MISPLACED}" }}\n')
    ok = ("lte_token_file_ok", ())
    until(lambda: house.metrics()[ok] == 0.0, "the fault in the metrics")
    status = house.status()
    assert status["state"] == "DEGRADED"
    assert "bad: sha256" in status["reasons"][0]
    guarded.lte("status")
    with guarded.client("asker") as asker:
        assert asker.retrieve("Who?")["stale"] is False
    guarded.secrets.tokens["misplaced"] = MISPLACED
    file.write_text(good)
    until(lambda: house.status()["state"] == "READY", "READY again")
    assert house.metrics()[ok] == 1.0
    guarded.secrets.add(house, "late", "--role", "asker", "--read", "*")

    def is_known() -> bool:
        with guarded.client("late") as late:
            try:
                return bool(late.retrieve("Who?"))
            except Refused:
                return False

    until(is_known, "a new token in force")


def test_no_secret_is_written_anywhere(guarded: Guarded, tmp_path: Path) -> None:
    """Runs last: it reads all that the daemon and the command line have written until then."""
    house, secrets = guarded.house, guarded.secrets
    unknown = tmp_path / "unknown.token"
    unknown.write_text(UNKNOWN)
    over_tcp = {
        "LTE_CLIENT__ADDRESS": guarded.address,
        "LTE_CLIENT__TLS_CA": str(guarded.roots),
        "LTE_CLIENT__TOKEN_FILE": str(secrets.path("asker")),
    }
    backup = house.stack.directory / "copy.db"
    for arguments in (
        ("status",), ("status", "--json"), ("config", "show"), ("config", "show", "--json"),
        ("config", "check"), ("token", "list"), ("token", "list", "--json"), ("edits", "list", "--json"),
        ("dlq", "list"), ("adapters", "list", "--json"), ("drift", "--json"), ("topics", "create"),
        ("publish", "-s", "Buoy Two", "-r", "owner", "-t", "Ebba", "--wait"),
        ("backup", str(backup), "--state-dir", str(house.state_dir)), ("index", "verify"),
    ):  # fmt: skip
        assert guarded.lte(*arguments).code == 0, guarded.said[-1]
    for arguments in (("doctor",), ("doctor", "--json"), ("nonsense",), ("serve",)):
        guarded.lte(*arguments)
    assert guarded.lte("ask", question("Buoy One"), "--explain", **over_tcp).code == 0
    assert guarded.lte("publish", "-s", "A", "-r", "b", "-t", "c", **over_tcp).code == 0
    refused = guarded.lte("ask", "Who?", **{**over_tcp, "LTE_CLIENT__TOKEN_FILE": str(unknown)})
    assert (refused.code, "not known" in refused.err) == (5, True)
    through_the_gateway(guarded, unknown)
    run = house.client.trigger_realignment("for its files")
    until(lambda: house.client.realignment(run["id"])["ended"], "the end of the re-alignment")
    with urllib.request.urlopen(f"http://{house.stack.addresses.metrics}/metrics", timeout=10) as page:
        metrics = page.read()
    # The trace of a crash is a diagnosis too; the next start reads it.
    os.kill(house.stack.daemon_pid, signal.SIGABRT)
    until(lambda: house.stack.daemon_exit() is not None, "the end of the daemon")
    house.stack.start_daemon()
    written = {str(path): path.read_bytes() for path in house.stack.directory.rglob("*") if path.is_file()}
    written["metrics"] = metrics
    written["commands"] = "\n".join(ran.out + ran.err for ran in guarded.said).encode()
    for topic in (house.topic.topic, guarded.audit.topic):
        rows = records(house, topic)
        written[topic] = b"\n".join(repr((row.key, row.value, row.headers)).encode() for row in rows)
    assert b"last_run_died" in written[str(house.stack.daemon_log)]
    assert len(written) > 10
    canaries = canaries_of(secrets)
    for place, content in written.items():
        leaked = [name for name, canary in canaries.items() if canary in content]
        assert leaked == [], place
    # The search finds what is there.
    assert canaries["asker"] in secrets.path("asker").read_bytes()


def through_the_gateway(guarded: Guarded, unknown: Path) -> None:
    """Secrets by HTTP, on the page and by MCP; logs and replies lie beside those of the daemon."""
    house, tokens = guarded.house, guarded.secrets.tokens
    directory = house.stack.directory
    gateway = started(house, directory, LTE_LOG__LEVEL="debug")
    replies = []
    chat = {"model": "lte", "messages": [{"role": "user", "content": question("Buoy One")}]}
    with httpx.Client(base_url=gateway.url, timeout=60) as client:
        for token in (tokens["ops"], tokens["asker"], tokens["etl"], UNKNOWN):
            headers = {"Authorization": f"Bearer {token}"}
            replies += [
                client.post("/v1/chat/completions", json=chat, headers=headers),
                client.post("/v1/chat/completions", json={**chat, "stream": True}, headers=headers),
                client.post("/v1/facts", json=fact("Buoy Three", "Ulf"), headers=headers),
                client.post("/v1/facts", json={"nonsense": 1}, headers=headers),
                client.post(
                    "/mcp", json={"jsonrpc": "2.0", "id": 1, "method": "tools/list"}, headers=headers
                ),
                client.get(f"/nowhere/{token}", headers=headers),
                client.post("/page/sign-in", json={"token": token}),
                client.get("/"),
                client.post("/page/sign-out", json={}),
            ]
    gateway.close()
    statuses = [reply.status_code for reply in replies]
    assert {200, 201, 401, 403, 404} <= set(statuses), statuses
    (directory / "replies").write_text("".join(f"{reply.headers}\n{reply.text}\n" for reply in replies))
    for file in (guarded.secrets.path("etl"), unknown):
        asyncio.run(publish_by_mcp(house, file, directory / f"mcp-{file.stem}"))


async def publish_by_mcp(house: House, token_file: Path, written: Path) -> None:
    """`lte mcp` with a token; its errors and its reply go to `written`."""
    command = [
        "-m",
        "daemon",
        "mcp",
        "--socket",
        house.stack.addresses.socket,
        "--token-file",
        str(token_file),
    ]
    environment = {"PYTHONPATH": os.environ.get("PYTHONPATH", "")}
    server = StdioServerParameters(command=sys.executable, args=command, cwd=written.parent, env=environment)
    with written.open("w") as output:
        async with McpClient(stdio_client(server, errlog=output)) as client:
            output.write(repr(await client.call_tool("publish_fact", fact("Buoy Four", "Ada"))))


def canaries_of(secrets: Secrets) -> dict[str, bytes]:
    """Parts of secrets, each long enough to be found by chance nowhere."""
    key = (secrets.directory / "server.key").read_text().splitlines()[1]
    named = {
        "password": PASSWORD, "hub": HUB_TOKEN, "unknown": UNKNOWN, "TLS key": key[:40], **secrets.tokens
    }  # fmt: skip
    return {name: secret.encode() for name, secret in named.items()}
