"""The parts of the page: which calls each makes, with the token of who looks at it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from daemon.gateway.daemon_calls import Caller, DaemonCalls
from daemon.gateway.errors import DENIED, HttpError
from daemon.gateway.page.outcomes import Outcome, attempt
from daemon.gateway.page.views.adapters import AdaptersView, RunView, adapters_view, run_view
from daemon.gateway.page.views.answer import AnswerView, CandidateFact, answer_view, candidate_facts
from daemon.gateway.page.views.drift import DriftView, drift_view
from daemon.gateway.page.views.facts import FactView, WhyNotView, fact_view, why_not_view
from daemon.gateway.page.views.ingest import IngestView, PublicView, ingest_view, public_view
from daemon.messages import enum_name, key_fields, question_fields
from daemon.rpc.gen.lte.v1 import edit_service_pb2
from lte_runtime.drift.past import MOST_PAST

DEFAULT_NAMESPACE = "default"
PAGE_SIZE = 10
RUNS = 5
# Candidates that a search shows: how many at most, and how like it the least of them is.
MOST_RELATED = 8
LEAST_LIKENESS = 0.3


@dataclass(frozen=True, slots=True)
class Ask:
    """A question as the form sends it; `as_of` ISO 8601 or empty."""

    question: str
    namespace: str
    as_of: str
    scope: str


@dataclass(frozen=True, slots=True)
class Search:
    """`subject` empty: all; `namespace` empty: all that the token may read."""

    subject: str = ""
    namespace: str = DEFAULT_NAMESPACE
    page: str = ""


@dataclass(frozen=True, slots=True)
class FactPage:
    """Facts, a token for the next page or none, and candidates that are near the words of a search."""

    facts: tuple[FactView, ...]
    next_page: str
    related: tuple[CandidateFact, ...] = ()


@dataclass(frozen=True, slots=True)
class Sections:
    """Calls for one request of `caller`. What a daemon answers with an error becomes a problem to show."""

    daemon: DaemonCalls
    caller: Caller

    async def answer(self, ask: Ask) -> Outcome[AnswerView]:
        return await attempt(self._answer(ask))

    async def _answer(self, ask: Ask) -> AnswerView:
        fields = question_fields(ask.question, ask.namespace, (), ask.as_of or None, ask.scope)
        answer = await self.daemon.call(self.caller, "answer", "Answer", **fields)
        evidence = await self.daemon.call(self.caller, "answer", "Retrieve", **fields)
        return answer_view(answer, evidence.candidates)

    async def feedback(self, verdict: str, adapter_id: str) -> Outcome[bool]:
        """Whether the verdict counts among the readings of drift."""
        return await attempt(self._feedback(verdict, adapter_id))

    async def _feedback(self, verdict: str, adapter_id: str) -> bool:
        fields = {"verdict": enum_name("VERDICT", verdict), "adapter_id": adapter_id}
        reply = await self.daemon.call(self.caller, "answer", "ReportFeedback", **fields)
        return bool(reply.counted)

    async def facts(self, search: Search) -> Outcome[FactPage]:
        return await attempt(self._facts(search))

    async def _facts(self, search: Search) -> FactPage:
        reply = await self.daemon.call(
            self.caller,
            "edit",
            "ListEdits",
            namespace=search.namespace or None,
            subject=search.subject or None,
            page_size=PAGE_SIZE,
            page_token=search.page,
        )
        facts = tuple(map(fact_view, reply.edits))
        related = await self._related(search, facts) if search.subject and not search.page else ()
        return FactPage(facts, reply.next_page_token, related)

    async def _related(self, search: Search, facts: tuple[FactView, ...]) -> tuple[CandidateFact, ...]:
        fields = question_fields(search.subject, search.namespace, (), None, "auto")
        try:
            reply = await self.daemon.call(self.caller, "answer", "Retrieve", **fields)
        except HttpError as error:
            if error.kind is not DENIED:
                raise
            return ()  # who may read facts need not be one who may ask
        # The next pages of the search have the others of these subjects.
        listed = {fact.key.subject for fact in facts if fact.key}
        near = (
            candidate
            for candidate in candidate_facts(reply.candidates)
            if candidate.key.subject not in listed
            and (candidate.dense >= LEAST_LIKENESS or candidate.matched_name)
        )
        return tuple(near)[:MOST_RELATED]

    async def history(self, namespace: str, subject: str, relation: str, page: str) -> Outcome[FactPage]:
        return await attempt(self._history(namespace, subject, relation, page))

    async def _history(self, namespace: str, subject: str, relation: str, page: str) -> FactPage:
        key = key_fields(subject, relation, namespace)
        reply = await self.daemon.call(
            self.caller, "edit", "GetHistory", key=key, page_size=PAGE_SIZE, page_token=page
        )
        return FactPage(tuple(map(fact_view, reply.edits)), reply.next_page_token)

    async def why_not(self, edit_id: str) -> Outcome[WhyNotView]:
        return await attempt(self._why_not(edit_id))

    async def _why_not(self, edit_id: str) -> WhyNotView:
        reply = await self.daemon.call(self.caller, "edit", "WhyNot", edit_id=edit_id)
        if not reply.winner_id:
            return why_not_view(reply, None)
        winner = await self.daemon.call(self.caller, "edit", "GetEdit", edit_id=reply.winner_id)
        return why_not_view(reply, winner.edit)

    async def ingest(self) -> tuple[bool, Outcome[IngestView] | Outcome[PublicView]]:
        """For an operator the status; for others, and where the token is none, what is open to them."""
        if self.caller.metadata:
            status = await self.status()
            if not (status.problem and status.problem.closed):
                return True, status
        return False, await attempt(self._public())

    async def status(self) -> Outcome[IngestView]:
        return await attempt(self._status())

    async def _status(self) -> IngestView:
        return ingest_view(await self.daemon.call(self.caller, "admin", "GetStatus"))

    async def _public(self) -> PublicView:
        serving, newest = await asyncio.gather(self.daemon.is_serving(), self._newest())
        return public_view(serving, newest)

    async def _newest(self) -> edit_service_pb2.ListEditsResponse | None:
        try:
            reply: edit_service_pb2.ListEditsResponse = await self.daemon.call(
                self.caller, "edit", "ListEdits", namespace=DEFAULT_NAMESPACE, page_size=1
            )
        except HttpError:
            # Health is shown all the same; the facts beside it say what is wrong.
            return None
        return reply

    async def drift(self) -> Outcome[DriftView]:
        return await attempt(self._drift())

    async def _drift(self) -> DriftView:
        return drift_view(await self.daemon.call(self.caller, "admin", "GetDrift", past=MOST_PAST))

    async def adapters(self) -> Outcome[AdaptersView]:
        return await attempt(self._adapters())

    async def _adapters(self) -> AdaptersView:
        return adapters_view(await self.daemon.call(self.caller, "admin", "ListAdapters"))

    async def runs(self) -> Outcome[tuple[RunView, ...]]:
        return await attempt(self._runs())

    async def _runs(self) -> tuple[RunView, ...]:
        reply = await self.daemon.call(self.caller, "admin", "ListRealignments", page_size=RUNS)
        return tuple(map(run_view, reply.realignments))

    async def realign(self, reason: str) -> Outcome[RunView]:
        return await attempt(self._realign(reason))

    async def _realign(self, reason: str) -> RunView:
        reply = await self.daemon.call(self.caller, "admin", "TriggerRealignment", reason=reason)
        return run_view(reply.realignment)

    async def cancel(self, run_id: str) -> Outcome[RunView]:
        return await attempt(self._cancel(run_id))

    async def _cancel(self, run_id: str) -> RunView:
        reply = await self.daemon.call(self.caller, "admin", "CancelRealignment", id=run_id)
        return run_view(reply.realignment)
