"""AnswerService: questions in, answers with their evidence out."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue

import grpc

from daemon.rpc import convert
from daemon.rpc.gen.lte.v1 import answer_service_pb2 as pb
from daemon.rpc.gen.lte.v1 import answer_service_pb2_grpc
from daemon.rpc.services import Services
from lte_runtime import types
from lte_runtime.errors import BadRequest

DEFAULT_NAMESPACE = "default"


class AnswerServicer(answer_service_pb2_grpc.AnswerServiceServicer):
    """`streams` runs the answers whose text is passed on while it is made."""

    def __init__(self, services: Services, streams: ThreadPoolExecutor) -> None:
        self._services = services
        self._streams = streams

    def Answer(self, request: pb.AnswerRequest, context: grpc.ServicerContext) -> pb.AnswerResponse:
        self._services.require_serving()
        question = self._question(request, context)
        answer = self._services.answerer.answer(question, cancelled=gone(context))
        return self._response(question, answer)

    def AnswerStream(
        self, request: pb.AnswerStreamRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.AnswerStreamResponse]:
        self._services.require_serving()
        question = self._question(request, context)
        pieces: SimpleQueue[str | None] = SimpleQueue()
        answered: Future[types.Answer] = self._streams.submit(
            self._services.answerer.answer, question, pieces.put, gone(context)
        )
        answered.add_done_callback(lambda _: pieces.put(None))
        while (piece := pieces.get()) is not None:
            yield pb.AnswerStreamResponse(text=piece)
        yield pb.AnswerStreamResponse(answer=self._response(question, answered.result()))

    def Retrieve(self, request: pb.RetrieveRequest, context: grpc.ServicerContext) -> pb.RetrieveResponse:
        self._services.require_serving()
        question = self._question(request, context)
        retrieval = self._services.answerer.retrieve(question, gone(context))
        return convert.retrieval(retrieval, **self._services.flags())

    def ReportFeedback(
        self,
        request: pb.ReportFeedbackRequest,
        context: grpc.ServicerContext,  # noqa: ARG002 - gRPC's signature
    ) -> pb.ReportFeedbackResponse:
        if request.verdict not in (pb.VERDICT_GOOD, pb.VERDICT_BAD):
            raise BadRequest("verdict must be GOOD or BAD")
        good = request.verdict == pb.VERDICT_GOOD
        self._services.on_feedback("good" if good else "bad")
        watch = self._services.drift
        counted = watch is not None and watch.feedback(good=good, adapter_id=request.adapter_id)
        return pb.ReportFeedbackResponse(counted=counted)

    def _response(self, question: types.Question, answer: types.Answer) -> pb.AnswerResponse:
        self._services.on_answer(answer)
        if self._services.drift is not None:
            self._services.drift.note_question(question.text)
        return convert.answer(answer, runtime=self._services.engine.runtime, **self._services.flags())

    def _question(
        self,
        request: pb.AnswerRequest | pb.AnswerStreamRequest | pb.RetrieveRequest,
        context: grpc.ServicerContext,
    ) -> types.Question:
        return types.Question(
            text=request.question,
            namespace=request.namespace or DEFAULT_NAMESPACE,
            max_new_tokens=self._new_tokens(request),
            at_least=convert.at_least(request.at_least),
            as_of=convert.milliseconds(request.as_of) if request.HasField("as_of") else None,
            scope=convert.mode(request.scope),
            deadline=deadline(context, self._services),
        )

    def _new_tokens(self, request: pb.AnswerRequest | pb.AnswerStreamRequest | pb.RetrieveRequest) -> int:
        if isinstance(request, pb.RetrieveRequest) or not request.HasField("max_new_tokens"):
            return self._services.max_new_tokens
        if request.max_new_tokens < 1:
            raise BadRequest("max_new_tokens must be at least 1")
        return min(request.max_new_tokens, self._services.max_new_tokens_limit)


def deadline(context: grpc.ServicerContext, services: Services) -> float:
    """The caller's deadline on the monotonic clock, but not beyond the longest that the daemon allows; the
    daemon's own for a caller without one."""
    time_left = context.time_remaining()
    if time_left is None:
        time_left = services.deadline_s
    return time.monotonic() + min(time_left, services.deadline_max_s)


def gone(context: grpc.ServicerContext) -> Callable[[], bool]:
    """Whether the caller has gone away; asked between two tokens, and while the call waits for events."""
    return lambda: not context.is_active()
