"""The daemon's tools for the Model Context Protocol: at `/mcp` of the gateway, and on stdio for `lte mcp`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from typing import Annotated, Any

from mcp.server import MCPServer
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.transport_security import TransportSecuritySettings
from mcp.types import ToolAnnotations
from pydantic import Field
from starlette.routing import BaseRoute, Route

from daemon.gateway.daemon_calls import Caller, DaemonCalls
from daemon.gateway.errors import HttpError
from daemon.gateway.options import Position
from daemon.messages import Json, as_json, event_fields, key_fields, question_fields, timestamp
from lte_runtime.errors import LteError

PATH = "/mcp"
INSTRUCTIONS = (
    "Facts that change, and answers from them. `ask` answers a question and cites the facts it rests on; "
    "scope `base` means that no fact was about it and a small language model answered alone. `find_facts` "
    "finds facts by meaning or by subject, `history` and `why_not` explain them, `publish_fact` states one."
)
MOST_FACTS = 100
# What an assistant has no use for, and pays for by the token.
_LEFT_OUT = ("token_ids", "timings_ms", "watermarks", "index_path")
_READS = ToolAnnotations(read_only_hint=True, open_world_hint=False)
_WRITES = ToolAnnotations(
    read_only_hint=False, destructive_hint=False, idempotent_hint=False, open_world_hint=False
)

Namespace = Annotated[str, Field(description="Facts of different namespaces never meet.")]
AsOf = Annotated[str | None, Field(description="ISO 8601: the facts that were valid then. Default: now.")]
Limit = Annotated[int, Field(ge=1, le=MOST_FACTS, description="Most facts returned.")]
PageToken = Annotated[str, Field(description="next_page_token of the page before.")]


def create_server(daemon: DaemonCalls, caller_of: Callable[[Context], Caller]) -> MCPServer:
    """The tools, over calls of the daemon with the rights of `caller_of`, and no others."""
    server = MCPServer(
        "lte-daemon", instructions=INSTRUCTIONS, version=version("lte-daemon"), subscriptions=False
    )

    @server.tool(annotations=_READS)
    async def ask(
        ctx: Context,
        question: str,
        namespace: Namespace = "default",
        as_of: AsOf = None,
        at_least: Annotated[
            list[Position] | None, Field(description="Positions of publish_fact that the answer must know.")
        ] = None,
    ) -> Json:
        """Answers a question from the current facts, with citations."""
        with _tool_errors():
            positions = [position.model_dump() for position in at_least or ()]
            fields = question_fields(question, namespace, positions, as_of, "auto")
            return _brief(await daemon.call(caller_of(ctx), "answer", "Answer", **fields))

    @server.tool(annotations=_READS)
    async def find_facts(
        ctx: Context,
        about: Annotated[str, Field(description="A question or words: facts near to them by meaning.")] = "",
        subject: Annotated[str, Field(description="Instead: all edits of exactly this subject.")] = "",
        namespace: Namespace = "default",
        limit: Limit = 20,
        page_token: PageToken = "",
    ) -> Json:
        """Finds facts by meaning, or lists the edits of one subject."""
        if bool(about) == bool(subject):
            raise ToolError("give about (a question or words) or subject (an exact name), not both")
        with _tool_errors():
            if about:
                fields = question_fields(about, namespace, (), None, "auto")
                reply = await daemon.call(caller_of(ctx), "answer", "Retrieve", **fields)
                return _brief(reply)
            page = {"page_size": limit, "page_token": page_token}
            reply = await daemon.call(
                caller_of(ctx), "edit", "ListEdits", namespace=namespace, subject=subject, **page
            )
            return as_json(reply)

    @server.tool(annotations=_READS)
    async def history(
        ctx: Context,
        subject: str,
        relation: Annotated[str, Field(description="Empty where the fact is keyed by a prompt.")] = "",
        namespace: Namespace = "default",
        limit: Limit = 20,
        page_token: PageToken = "",
    ) -> Json:
        """All values that a fact has had, the one that ranks highest first."""
        with _tool_errors():
            key = key_fields(subject, relation, namespace)
            page = {"page_size": limit, "page_token": page_token}
            return as_json(await daemon.call(caller_of(ctx), "edit", "GetHistory", key=key, **page))

    @server.tool(annotations=_READS)
    async def why_not(ctx: Context, edit_id: str, as_of: AsOf = None) -> Json:
        """Why an edit is not what questions see, and which edit is."""
        with _tool_errors():
            at = timestamp(as_of)
            return as_json(await daemon.call(caller_of(ctx), "edit", "WhyNot", edit_id=edit_id, as_of=at))

    @server.tool(annotations=_WRITES)
    async def publish_fact(
        ctx: Context,
        subject: str,
        relation: str,
        target: Annotated[str, Field(description="The value.")],
        namespace: Namespace = "default",
        statement: Annotated[str | None, Field(description="The fact as a sentence.")] = None,
        valid_from: Annotated[str | None, Field(description="ISO 8601.")] = None,
        valid_until: Annotated[str | None, Field(description="ISO 8601.")] = None,
        source_uri: Annotated[str | None, Field(description="Where it can be read.")] = None,
    ) -> Json:
        """States a new fact, which replaces the current value. Needs the token of a publisher.

        Returns positions: pass them to `ask` as at_least to be sure that the answer knows the fact.
        """
        with _tool_errors():
            caller = caller_of(ctx)
            if not caller.authorization:
                raise ToolError("publish_fact needs the token of a publisher")
            event = {"subject": subject, "relation": relation, "target": target, "namespace": namespace}
            more = {"statement": statement, "valid_from": valid_from, "valid_until": valid_until}
            source = {"source": {"uri": source_uri}} if source_uri else {}
            events = [event_fields(event | more | source)]
            return as_json(await daemon.call(caller, "edit", "Publish", events=events))

    return server


def routes(server: MCPServer, max_body_bytes: int) -> list[BaseRoute]:
    """Streamable HTTP without sessions: a request holds nothing once it is answered.

    The server opens no stream of its own, so GET finds no route. `server.session_manager` must run.
    """
    app = server.streamable_http_app(
        streamable_http_path=PATH,
        stateless_http=True,
        json_response=True,
        max_request_body_size=max_body_bytes,
        # Hosts and origins have been checked when a request comes here.
        transport_security=TransportSecuritySettings(enable_dns_rebinding_protection=False),
    )
    return [Route(PATH, route.endpoint, methods=["POST"]) for route in app.routes if isinstance(route, Route)]


def caller_of_request(ctx: Context) -> Caller:
    """The token of the HTTP request that brought the call."""
    return Caller.of_header((ctx.headers or {}).get("authorization", ""))


@contextmanager
def _tool_errors() -> Iterator[None]:
    """Errors of a call as text that the assistant can act on."""
    try:
        yield
    except (HttpError, LteError) as error:
        raise ToolError(str(error)) from error


def _brief(reply: Any) -> Json:
    """Without what is for machines."""
    return {name: value for name, value in as_json(reply).items() if name not in _LEFT_OUT}
