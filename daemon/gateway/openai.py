"""OpenAI's chat completions over the daemon's answers, plain and streamed, and the list of models."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, field
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from daemon.gateway.chat import ChatRequest, ignored_parameters, question_of
from daemon.gateway.context import Context, GatewayContext, RequestCaller, while_connected
from daemon.gateway.errors import NO_MODEL, HttpError
from daemon.messages import Json, as_json

router = APIRouter(prefix="/v1", tags=["OpenAI"])
OWNER = "lte-daemon"
# Parts of an answer that OpenAI's own fields hold.
_OPENAIS = ("text", "finish", "token_ids", "prompt_tokens")


@dataclass(frozen=True, slots=True)
class Completion:
    """What all chunks of one completion share."""

    model: str
    ignored: list[str]
    id: str = field(default_factory=lambda: f"chatcmpl-{uuid.uuid4().hex}")
    created: int = field(default_factory=lambda: int(time.time()))

    def head(self, kind: str) -> Json:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}

    def whole(self, answer: Any) -> Json:
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": answer.text, "refusal": None},
            "logprobs": None,
            "finish_reason": answer.finish,
        }
        return {
            **self.head("chat.completion"),
            "choices": [choice],
            "usage": usage(answer),
            "lte": self.evidence(answer),
        }

    def chunk(self, delta: Mapping[str, Any], finish: str | None = None) -> Json:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return {**self.head("chat.completion.chunk"), "choices": [choice]}

    def evidence(self, answer: Any) -> Json:
        """The field `lte`: the answer's scope, citations, gate, adapter, watermarks and timings."""
        about = {name: value for name, value in as_json(answer).items() if name not in _OPENAIS}
        return {**about, "ignored_parameters": self.ignored}


def usage(answer: Any) -> Json:
    prompt, completion = answer.prompt_tokens, len(answer.token_ids)
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


@router.post("/chat/completions", response_model=None)
async def chat_completions(
    body: ChatRequest, request: Request, context: GatewayContext, caller: RequestCaller
) -> Response:
    """Answers the last user turn. The field `lte` of body and reply holds what OpenAI's form lacks."""
    _check_model(body.model, context)
    completion = Completion(body.model, ignored_parameters(body))
    question = question_of(body.messages, context.settings.max_messages)
    fields = body.lte.over(request.headers).fields(question) | {"max_new_tokens": body.max_new_tokens}
    if body.stream:
        return await _streamed(completion, body.wants_usage, fields, request, context, caller)
    work = context.daemon.call(caller, "answer", "Answer", **fields)
    return JSONResponse(completion.whole(await while_connected(request, work)))


@router.get("/models")
async def models(context: GatewayContext) -> Json:
    """The one model that answers."""
    return {"object": "list", "data": [_model(context)]}


@router.get("/models/{model}")
async def model(model: str, context: GatewayContext) -> Json:
    _check_model(model, context)
    return _model(context)


def _model(context: Context) -> Json:
    about = {"id": context.settings.model_name, "object": "model", "created": context.started}
    return {**about, "owned_by": OWNER}


def _check_model(name: str, context: Context) -> None:
    served = context.settings.model_name
    if name != served:
        raise HttpError(NO_MODEL, f"the model {name!r} does not exist here: use {served!r}", param="model")


async def _streamed(
    completion: Completion,
    with_usage: bool,
    fields: Mapping[str, Any],
    request: Request,
    context: Context,
    caller: RequestCaller,
) -> Response:
    """The first part is awaited here, so that a refusal is a status and not an event."""
    async with AsyncExitStack() as held:
        held.enter_context(context.streams.take())
        parts = await held.enter_async_context(
            aclosing(context.daemon.stream(caller, "answer", "AnswerStream", **fields))
        )
        first = await while_connected(request, anext(parts))
        return EventStream(_events(completion, with_usage, first, parts), held.pop_all())


class EventStream(StreamingResponse):
    """Server-sent events; lets go of what the stream holds however it ends, begun or not."""

    media_type = "text/event-stream"

    def __init__(self, events: AsyncIterator[str], held: AsyncExitStack) -> None:
        super().__init__(events, headers={"X-Accel-Buffering": "no"})
        self._held = held

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._held:
            await super().__call__(scope, receive, send)


async def _events(
    completion: Completion, with_usage: bool, first: Any, parts: AsyncIterator[Any]
) -> AsyncIterator[str]:
    yield _event(completion.chunk({"role": "assistant", "content": ""}))
    part = first
    try:
        while part.WhichOneof("part") == "text":
            yield _event(completion.chunk({"content": part.text}))
            part = await anext(parts)
    except HttpError as error:
        yield _event(error.body)
        return
    answer = part.answer
    yield _event(completion.chunk({}, answer.finish) | {"lte": completion.evidence(answer)})
    if with_usage:
        yield _event({**completion.head("chat.completion.chunk"), "choices": [], "usage": usage(answer)})
    yield "data: [DONE]\n\n"


def _event(content: Json) -> str:
    return f"data: {json.dumps(content, ensure_ascii=False, separators=(',', ':'))}\n\n"
