"""Routes of the page.

What changes something takes JSON, as every POST of the gateway does: a form of another site cannot send that,
and the cookie does not go along with requests of other sites.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Request
from fastapi.responses import HTMLResponse, Response
from pydantic import BaseModel, Field

from daemon.gateway.context import Context, GatewayContext, caller_of, while_connected
from daemon.gateway.daemon_calls import Caller
from daemon.gateway.errors import DENIED, UNAUTHENTICATED, HttpError
from daemon.gateway.page.outcomes import Problem, problem_of
from daemon.gateway.page.rendering import LONGEST_NAME, LONGEST_QUESTION, html, part, static_file
from daemon.gateway.page.sections import DEFAULT_NAMESPACE, Ask, Search, Sections
from daemon.gateway.page.sessions import LIFETIME_S, LONGEST_TOKEN, Sessions

COOKIE = "lte_session"
Handler = Callable[..., Any]


class AskForm(BaseModel):
    question: str = Field(min_length=1, max_length=LONGEST_QUESTION)
    namespace: str = Field(default=DEFAULT_NAMESPACE, max_length=LONGEST_NAME)
    as_of: str = Field(default="", max_length=64)
    scope: Literal["auto", "edited", "base"] = "auto"


class FeedbackForm(BaseModel):
    verdict: Literal["good", "bad"]
    adapter_id: str = Field(default="", max_length=LONGEST_NAME)


class SignInForm(BaseModel):
    token: str = Field(min_length=1, max_length=LONGEST_TOKEN)


class RealignForm(BaseModel):
    reason: str = Field(default="", max_length=LONGEST_NAME)


class CancelForm(BaseModel):
    run_id: str = Field(min_length=1, max_length=LONGEST_NAME)


def _search(subject: str = "", namespace: str = DEFAULT_NAMESPACE, page: str = "") -> Search:
    return Search(subject.strip()[:LONGEST_NAME], namespace.strip()[:LONGEST_NAME], page)


PageSearch = Annotated[Search, Depends(_search)]


class _Page:
    """The handlers, and what they keep between requests: who is signed in."""

    def __init__(self) -> None:
        self._sessions = Sessions()

    def _sections(self, request: Request, context: Context) -> Sections:
        """Calls with the token of the browser's session, else with the request's own."""
        token = self._sessions.token(request.cookies.get(COOKIE), time.monotonic())
        return Sections(context.daemon, Caller(f"Bearer {token}") if token else caller_of(request))

    async def page(self, request: Request, context: GatewayContext, search: PageSearch) -> HTMLResponse:
        here = self._sections(request, context)
        facts, (operator, ingest) = await asyncio.gather(here.facts(search), here.ingest())
        values: dict[str, Any] = {
            "operator": operator,
            "signed_in": bool(here.caller.metadata),
            "search": search,
            "facts": facts,
            "ingest": ingest,
            "refused": None,
        }
        if operator:
            names = ("drift", "adapters", "runs")
            outcomes = await asyncio.gather(here.drift(), here.adapters(), here.runs())
            values.update(zip(names, outcomes, strict=True))
        return html("page.html", values)

    async def ask(self, request: Request, context: GatewayContext, form: AskForm) -> HTMLResponse:
        ask = Ask(form.question, form.namespace, form.as_of, form.scope)
        outcome = await while_connected(request, self._sections(request, context).answer(ask))
        return html("answer.html", {"answer": outcome, "question": form.question}, outcome.status)

    async def feedback(self, request: Request, context: GatewayContext, form: FeedbackForm) -> HTMLResponse:
        outcome = await self._sections(request, context).feedback(form.verdict, form.adapter_id)
        return html("feedback.html", {"feedback": outcome}, outcome.status)

    async def facts(self, request: Request, context: GatewayContext, search: PageSearch) -> HTMLResponse:
        outcome = await self._sections(request, context).facts(search)
        return part(request, "results.html", {"facts": outcome, "search": search}, outcome.status)

    async def history(
        self,
        request: Request,
        context: GatewayContext,
        subject: str,
        relation: str = "",
        namespace: str = "",
        page: str = "",
    ) -> HTMLResponse:
        outcome = await self._sections(request, context).history(namespace, subject, relation, page)
        key = {"namespace": namespace, "subject": subject, "relation": relation}
        return part(request, "history.html", {"history": outcome, "key": key}, outcome.status)

    async def why_not(self, request: Request, context: GatewayContext, edit_id: str) -> HTMLResponse:
        outcome = await self._sections(request, context).why_not(edit_id)
        return part(request, "why_not.html", {"why_not": outcome}, outcome.status)

    async def ingest(self, request: Request, context: GatewayContext) -> HTMLResponse:
        operator, outcome = await self._sections(request, context).ingest()
        return part(request, "ingest.html", {"operator": operator, "ingest": outcome}, outcome.status)

    async def drift(self, request: Request, context: GatewayContext) -> HTMLResponse:
        outcome = await self._sections(request, context).drift()
        return part(request, "drift.html", {"drift": outcome}, outcome.status)

    async def adapters(self, request: Request, context: GatewayContext) -> HTMLResponse:
        outcome = await self._sections(request, context).adapters()
        return part(request, "adapters.html", {"adapters": outcome}, outcome.status)

    async def runs(self, request: Request, context: GatewayContext) -> HTMLResponse:
        outcome = await self._sections(request, context).runs()
        return part(request, "runs.html", {"runs": outcome}, outcome.status)

    async def realign(self, request: Request, context: GatewayContext, form: RealignForm) -> HTMLResponse:
        outcome = await self._sections(request, context).realign(form.reason)
        return html("started.html", {"run": outcome}, outcome.status)

    async def cancel(self, request: Request, context: GatewayContext, form: CancelForm) -> HTMLResponse:
        outcome = await self._sections(request, context).cancel(form.run_id)
        return html("started.html", {"run": outcome}, outcome.status)

    async def sign_in(self, request: Request, context: GatewayContext, form: SignInForm) -> Response:
        token = form.token.strip()
        problem = await _refusal(context, token)
        if problem:
            return html("sign_in.html", {"refused": problem}, problem.kind.status)
        response = _reload()
        response.set_cookie(
            COOKIE,
            self._sessions.open(token, time.monotonic()),
            max_age=round(LIFETIME_S),
            httponly=True,
            samesite="strict",
            secure=request.url.scheme == "https",
        )
        return response

    async def sign_out(self, request: Request) -> Response:
        self._sessions.close(request.cookies.get(COOKIE))
        response = _reload()
        response.delete_cookie(COOKIE, httponly=True, samesite="strict")
        return response


def page_router() -> APIRouter:
    """The page at `/` and its parts below `/page/`."""
    router, page = APIRouter(include_in_schema=False), _Page()
    reading: dict[str, Handler] = {
        "/": page.page,
        "/page/facts": page.facts,
        "/page/history": page.history,
        "/page/why-not": page.why_not,
        "/page/ingest": page.ingest,
        "/page/drift": page.drift,
        "/page/adapters": page.adapters,
        "/page/runs": page.runs,
        "/page/static/{name}": static_file,
    }
    changing: dict[str, Handler] = {
        "/page/ask": page.ask,
        "/page/feedback": page.feedback,
        "/page/realign": page.realign,
        "/page/cancel": page.cancel,
        "/page/sign-in": page.sign_in,
        "/page/sign-out": page.sign_out,
    }
    for method, handlers in (("GET", reading), ("POST", changing)):
        for path, handler in handlers.items():
            router.add_api_route(path, handler, methods=[method], response_model=None)
    return router


async def _refusal(context: Context, token: str) -> Problem | None:
    """Why a token cannot sign in; one that is no operator's can, it may ask and read where that needs one."""
    if not (token.isascii() and token.isprintable()):
        return problem_of(HttpError(UNAUTHENTICATED, "the text holds characters that no token has"))
    problem = (await Sections(context.daemon, Caller(f"Bearer {token}")).status()).problem
    return None if problem is None or problem.kind is DENIED else problem


def _reload() -> Response:
    """The browser loads the page again: what it may see has changed."""
    return Response(headers={"HX-Refresh": "true"})
