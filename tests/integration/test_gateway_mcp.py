"""MCP by the SDK's own client, over streamable HTTP and over stdio."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx
import httpx2
import pytest
from anyio import open_process
from daemon_house import House, fact, question, run_lte
from gateway_process import GatewayProcess, Tokens
from mcp import Client, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamable_http_client

from daemon.rpc.token_file import SECTION

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.timeout(1200)]
# Loaded here: anyio loads it with the first use, deep in a stack in which CPython 3.11 cannot compile it.
assert open_process
TOOLS = {"ask", "find_facts", "history", "why_not", "publish_fact"}
Connect = Callable[[str], AbstractAsyncContextManager[Client]]
Session = Callable[[Client], Awaitable[None]]


@pytest.fixture(params=["http", "stdio"])
def connect(
    request: pytest.FixtureRequest,
    guarded_house: House,
    guarded_gateway: GatewayProcess,
    tokens: Tokens,
    tmp_path: Path,
) -> Connect:
    """A client that has the token of a principal, or none."""

    def over_http(name: str) -> AbstractAsyncContextManager[Client]:
        headers = tokens.headers(name) if name else {}
        return _http(f"{guarded_gateway.url}/mcp", headers)

    def over_stdio(name: str) -> AbstractAsyncContextManager[Client]:
        environment = {"PYTHONPATH": os.environ.get("PYTHONPATH", "")}
        command = ["-m", "daemon", "mcp", "--socket", guarded_house.stack.addresses.socket]
        if name:
            file = tmp_path / "token"
            file.write_text(tokens.by_name[name], "ascii")
            command += ["--token-file", str(file)]
        server = StdioServerParameters(command=sys.executable, args=command, cwd=tmp_path, env=environment)
        return Client(stdio_client(server))

    return over_http if request.param == "http" else over_stdio


@asynccontextmanager
async def _http(url: str, headers: dict[str, str]) -> AsyncIterator[Client]:
    async with (
        httpx2.AsyncClient(headers=headers, timeout=60) as http_client,
        Client(streamable_http_client(url, http_client=http_client)) as client,
    ):
        yield client


def run(connected: AbstractAsyncContextManager[Client], session: Session) -> None:
    async def main() -> None:
        async with connected as client:
            await session(client)

    asyncio.run(main())


async def call(client: Client, tool: str, **arguments: Any) -> Any:
    result = await client.call_tool(tool, arguments)
    text = "".join(getattr(part, "text", "") for part in result.content)
    assert not result.is_error, text
    return result.structured_content


async def refusal(client: Client, tool: str, **arguments: Any) -> str:
    result = await client.call_tool(tool, arguments)
    assert result.is_error
    return "".join(getattr(part, "text", "") for part in result.content)


def test_the_tools_are_listed_with_what_they_take(connect: Connect) -> None:
    async def session(client: Client) -> None:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        assert set(tools) == TOOLS
        assert client.server_info is not None
        assert client.server_info.version == version("lte-daemon")
        assert all(tool.description for tool in tools.values())
        writes = {name for name, tool in tools.items() if not tool.annotations.read_only_hint}
        assert writes == {"publish_fact"}
        assert tools["ask"].input_schema["required"] == ["question"]

    run(connect(""), session)


def test_a_fact_is_published_asked_for_and_explained(connect: Connect, request: Any) -> None:
    subject = f"Sable {request.node.callspec.id}"

    async def session(client: Client) -> None:
        fields = {"subject": subject, "relation": "owner", "namespace": "team-a"}
        await call(client, "publish_fact", target="Ann", **fields)
        published = await call(client, "publish_fact", target="Bea", **fields)
        answer = await call(
            client,
            "ask",
            question=question(subject),
            namespace="team-a",
            at_least=published["positions"],
        )
        assert (answer["text"], answer["scope"]) == ("Bea", "edited")
        assert [citation["target"] for citation in answer["citations"]] == ["Bea"]
        history = (await call(client, "history", **fields))["edits"]
        assert [edit["target"] for edit in history] == ["Bea", "Ann"]
        why = await call(client, "why_not", edit_id=history[1]["id"])
        assert why["winner_id"] == history[0]["id"]
        listed = await call(client, "find_facts", subject=subject, namespace="team-a")
        assert len(listed["edits"]) == 2
        near = await call(client, "find_facts", about=question(subject), namespace="team-a")
        assert near["candidates"][0]["key"]["subject"] == subject.casefold()

    run(connect("publisher"), session)


def test_rights_are_those_of_the_token(connect: Connect) -> None:
    fields = {**fact("Ivo", "Rolf"), "namespace": "team-a"}

    async def without(client: Client) -> None:
        assert (await call(client, "ask", question="What is the capital of Kenya?"))["text"]
        assert "needs the token" in await refusal(client, "publish_fact", **fields)

    async def asker(client: Client) -> None:
        assert "publisher" in await refusal(client, "publish_fact", **fields)
        assert "team-b" in await refusal(client, "ask", question="Who?", namespace="team-b")

    async def expired(client: Client) -> None:
        assert "expired" in await refusal(client, "ask", question="Who?")

    run(connect(""), without)
    run(connect("asker"), asker)
    run(connect("expired"), expired)


def test_a_wrong_call_is_told(connect: Connect) -> None:
    async def session(client: Client) -> None:
        assert "not both" in await refusal(client, "find_facts")
        assert "ISO 8601" in await refusal(client, "ask", question="Who?", as_of="May")
        assert "question" in await refusal(client, "ask")
        assert await refusal(client, "why_not", edit_id="none-such")

    run(connect(""), session)


@pytest.mark.parametrize("content", [None, "", SECTION])
def test_a_token_file_that_holds_no_token_is_told(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "token"
    if content is not None:
        file.write_text(content, "ascii")
    done = run_lte("mcp", "--socket", str(tmp_path / "lte.sock"), "--token-file", str(file))
    assert (done.code, done.err.startswith("error: "), str(file) in done.err) == (2, True, True)


def test_there_is_no_stream_to_hold_open(guarded_gateway: GatewayProcess) -> None:
    reply = httpx.get(f"{guarded_gateway.url}/mcp", headers={"Accept": "text/event-stream"}, timeout=30)
    assert reply.status_code == 405
