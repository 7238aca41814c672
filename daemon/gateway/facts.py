"""REST for facts: publish, retract, look up, and try without publishing.

Facts are events of `docs/events.md`, and their bytes are read as those of the topic are: a number as a target
is the text that was sent, and a name that stands twice is an error.
"""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from daemon.gateway.context import GatewayContext, RequestCaller, while_connected
from daemon.gateway.errors import of_faults
from daemon.messages import Json, as_json, event_fields, key_fields, timestamp
from lte_runtime.facts.schema import Event
from lte_runtime.facts.wire import MAX_DEPTH, parse_object

router = APIRouter(prefix="/v1", tags=["Facts"])
MOST_EVENTS = 1000
MOST_PROBES = 32
LARGEST_PAGE = 1000
# A list of facts, around their own depth.
_BODY_DEPTH = MAX_DEPTH + 2

Namespace = Annotated[str | None, Query(description="Default: all that the caller may read.")]
PageSize = Annotated[int, Query(ge=0, le=LARGEST_PAGE, description="0 means 100.")]
PageToken = Annotated[str, Query(description="next_page_token of the page before.")]
AsOf = Annotated[str | None, Query(description="ISO 8601; default: now.")]
Model = TypeVar("Model", bound=BaseModel)


class Batch(BaseModel):
    model_config = ConfigDict(extra="forbid")
    facts: list[dict[str, Any]] = Field(min_length=1, max_length=MOST_EVENTS)


class Retraction(BaseModel):
    """Names one edit by its id, or the current fact of a key; `target` names one member of a set."""

    model_config = ConfigDict(extra="forbid")
    edit_id: str | None = None
    namespace: str = "default"
    subject: str | None = None
    relation: str | None = None
    prompt: str | None = None
    target: str | None = None
    revision: int | None = None

    @property
    def event(self) -> Json:
        parts = self.model_dump(exclude_none=True, exclude={"edit_id"})
        return {"op": "retract", "retracts": self.edit_id, **parts}


class Trial(BaseModel):
    model_config = ConfigDict(extra="forbid")
    fact: dict[str, Any]
    max_probes: int = Field(
        default=0, ge=0, le=MOST_PROBES, description="0 means 16; a probe costs two answers."
    )


async def _body(request: Request) -> Json:
    """Raises `BadRecord`."""
    return dict(parse_object(await request.body(), _BODY_DEPTH))


Body = Annotated[Json, Depends(_body)]


def _read(model: type[Model], body: Json) -> Model:
    try:
        return model.model_validate(body)
    except ValidationError as error:
        raise of_faults(error.errors(include_url=False)) from None


def _takes(schema: Json) -> Json:
    """The body of a route, for the page of the API."""
    content = {"application/json": {"schema": schema}}
    return {"requestBody": {"required": True, "content": content}}


def _fact_schema() -> Json:
    """The schema of an event, without references: in the page of the API they would point elsewhere."""
    schema = Event.model_json_schema()
    schema["properties"]["source"] = schema.pop("$defs")["Source"]
    return schema


def _holding(model: type[BaseModel], field: str, fact_schema: Json) -> Json:
    """The schema of a model with one field that holds facts."""
    schema = model.model_json_schema()
    schema["properties"][field] |= fact_schema
    return schema


FACT = _fact_schema()


@router.post("/facts", status_code=201, openapi_extra=_takes(FACT))
async def publish(fact: Body, context: GatewayContext, caller: RequestCaller) -> Json:
    """Publishes a fact to Kafka; needs a publisher's token. `positions` are for `at_least` of a question."""
    return await _publish([fact], context, caller)


@router.post("/facts/batch", status_code=201, openapi_extra=_takes(_holding(Batch, "facts", {"items": FACT})))
async def publish_batch(body: Body, context: GatewayContext, caller: RequestCaller) -> Json:
    """Publishes several facts; `positions` are in their order."""
    return await _publish(_read(Batch, body).facts, context, caller)


@router.post("/facts/retract", status_code=201, openapi_extra=_takes(Retraction.model_json_schema()))
async def retract(body: Body, context: GatewayContext, caller: RequestCaller) -> Json:
    """Withdraws a fact: the one before comes back, or the base model's answer. Needs a publisher's token."""
    return await _publish([_read(Retraction, body).event], context, caller)


@router.post("/facts/dry-run", openapi_extra=_takes(_holding(Trial, "fact", FACT)))
async def dry_run(body: Body, request: Request, context: GatewayContext, caller: RequestCaller) -> Json:
    """Which answers the fact would change; nothing is published."""
    trial = _read(Trial, body)
    fields = {"event": event_fields(trial.fact), "max_probes": trial.max_probes}
    work = context.daemon.call(caller, "edit", "DryRun", **fields)
    return as_json(await while_connected(request, work))


@router.get("/facts")
async def list_facts(
    context: GatewayContext,
    caller: RequestCaller,
    namespace: Namespace = None,
    subject: str | None = None,
    page_size: PageSize = 0,
    page_token: PageToken = "",
) -> Json:
    """Edits, the last applied first. Read on until `next_page_token` is empty."""
    page = {"page_size": page_size, "page_token": page_token}
    reply = await context.daemon.call(
        caller, "edit", "ListEdits", namespace=namespace, subject=subject, **page
    )
    return as_json(reply)


@router.get("/facts/{edit_id:path}")
async def get_fact(edit_id: str, context: GatewayContext, caller: RequestCaller) -> Json:
    """One edit with its state."""
    return as_json((await context.daemon.call(caller, "edit", "GetEdit", edit_id=edit_id)).edit)


@router.get("/history")
async def history(
    context: GatewayContext,
    caller: RequestCaller,
    subject: str,
    relation: str = "",
    namespace: str = "default",
    page_size: PageSize = 0,
    page_token: PageToken = "",
) -> Json:
    """All edits of a key, the one that ranks highest first. Without a relation the subject is a prompt."""
    key = key_fields(subject, relation, namespace)
    page = {"page_size": page_size, "page_token": page_token}
    return as_json(await context.daemon.call(caller, "edit", "GetHistory", key=key, **page))


@router.get("/why-not")
async def why_not(context: GatewayContext, caller: RequestCaller, edit_id: str, as_of: AsOf = None) -> Json:
    """Why an edit is not what questions see, and which one is."""
    reply = await context.daemon.call(caller, "edit", "WhyNot", edit_id=edit_id, as_of=timestamp(as_of))
    return as_json(reply)


async def _publish(facts: list[Json], context: GatewayContext, caller: RequestCaller) -> Json:
    events = list(map(event_fields, facts))
    return as_json(await context.daemon.call(caller, "edit", "Publish", events=events))
