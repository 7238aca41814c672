"""An answer with its evidence. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from daemon.gateway.page.views.charts import Segment, segments
from daemon.rpc.gen.lte.v1 import answer_service_pb2, common_pb2

# The order in which a question passes them; what is not named here comes last.
_STAGES = ("encode", "search", "chain", "gate", "queue", "model")
_TOTAL = "total"
_REST = "other"


@dataclass(frozen=True, slots=True)
class CitedFact:
    """A fact that the answer rests on; `place` is where its record stands in Kafka."""

    edit_id: str
    statement: str
    key: common_pb2.FactKey
    score: float
    hop: int
    place: str
    publisher: str
    uri: str
    flags: tuple[str, ...]
    members: int
    superseded: bool


@dataclass(frozen=True, slots=True)
class CandidateFact:
    """A fact that retrieval brought up, whether or not the gate let it in."""

    edit_id: str
    statement: str
    key: common_pb2.FactKey
    dense: float
    lexical: float
    matched_name: str
    cited: bool


@dataclass(frozen=True, slots=True)
class AnswerView:
    """`score` and `threshold` are probabilities; times are milliseconds."""

    text: str
    edited: bool
    score: float
    threshold: float
    reason: str
    citations: tuple[CitedFact, ...]
    candidates: tuple[CandidateFact, ...]
    adapter: common_pb2.Adapter | None
    runtime: str
    index_path: str
    watermarks: tuple[common_pb2.Watermark, ...]
    stale: bool
    gap: bool
    cut: bool
    corrected_from: str
    total_ms: float
    stages: tuple[Segment, ...]


def answer_view(
    answer: answer_service_pb2.AnswerResponse, candidates: Iterable[common_pb2.Candidate] = ()
) -> AnswerView:
    """What the page shows of an answer, and of the candidates that its gate chose from."""
    cited = {citation.edit_id for citation in answer.citations}
    return AnswerView(
        text=answer.text,
        edited=answer.scope == common_pb2.SCOPE_EDITED,
        score=answer.gate.score,
        threshold=answer.gate.threshold,
        reason=answer.gate.reason,
        citations=tuple(map(_cited, answer.citations)),
        candidates=candidate_facts(candidates, cited),
        adapter=answer.adapter if answer.HasField("adapter") else None,
        runtime=answer.runtime,
        index_path=answer.index_path,
        watermarks=tuple(answer.watermarks),
        stale=answer.stale,
        gap=answer.gap,
        cut=answer.finish == "length",
        corrected_from=answer.corrected_from,
        total_ms=answer.timings_ms.get(_TOTAL, 0.0),
        stages=segments(_stages(answer.timings_ms)),
    )


def _cited(citation: common_pb2.Citation) -> CitedFact:
    return CitedFact(
        edit_id=citation.edit_id,
        statement=citation.statement,
        key=citation.key,
        score=citation.score,
        hop=citation.hop,
        place=place_of(citation.position),
        publisher=citation.source.publisher,
        uri=citation.source.uri,
        flags=tuple(citation.flags),
        members=citation.members,
        superseded=citation.superseded,
    )


def candidate_facts(
    candidates: Iterable[common_pb2.Candidate], cited: Collection[str] = ()
) -> tuple[CandidateFact, ...]:
    """Candidates of retrieval; `cited` are the ids of those that the answer cites."""
    return tuple(
        CandidateFact(
            edit_id=candidate.edit_id,
            statement=candidate.statement,
            key=candidate.key,
            dense=candidate.dense,
            lexical=candidate.lexical,
            matched_name=candidate.matched_name,
            cited=candidate.edit_id in cited,
        )
        for candidate in candidates
    )


def place_of(position: common_pb2.Position) -> str:
    """`partition/offset`, as the command line prints it."""
    return f"{position.partition}/{position.offset}"


def _stages(timings: Mapping[str, float]) -> list[tuple[str, float]]:
    named = [(name, timings[name]) for name in _STAGES if name in timings]
    further = sorted((name, ms) for name, ms in timings.items() if name not in (*_STAGES, _TOTAL))
    parts = [*named, *further]
    rest = timings.get(_TOTAL, 0.0) - sum(ms for _, ms in parts)
    return [*parts, (_REST, rest)] if rest > 0 else parts
