"""The watch on drift: asks probes when nobody else asks, reads what arrives, and says what follows from it.

Two jobs of the timetable: `ask`, a cycle of probes through the same path as users' questions, and `look`,
which reads new edits, questions and feedback and is cheap. What they found survives a restart.
"""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from random import Random
from typing import Protocol, TypeVar

import structlog

from daemon.drift_store import DriftStateStore
from lte_runtime.drift import monitor, past, probes, watched
from lte_runtime.drift import readings as r
from lte_runtime.drift.decide import Decision, DecisionSettings, Margin, Situation, decide, drifted, margins
from lte_runtime.drift.general import GENERAL
from lte_runtime.drift.outcomes import ProbeResult, readings_of, shares_of
from lte_runtime.drift.past import PastReadings
from lte_runtime.drift.probes import BaseAnswer, DriftProbe, ProbeKind
from lte_runtime.drift.readings import Reading
from lte_runtime.drift.shift import SAMPLE, WINDOW, ShiftMeter
from lte_runtime.drift.watched import DriftState
from lte_runtime.errors import Cancelled, DeadlineExceeded, LteError, Overloaded, Retry
from lte_runtime.store.sampling import Arrival
from lte_runtime.types import AdapterRef, Answer, Encoder, Fact, Op, Question, ScopeMode, Vectors

log = structlog.get_logger(__name__)

QUESTIONS, EVENTS, PAST = "drift.questions", "drift.events", "drift.past"
# Edits read at once, of which so many give their vectors to the measure of shift.
MOST_ARRIVALS, MOST_VECTORS = 5_000, 256
# Questions and verdicts kept between two looks; further ones push out the oldest.
MOST_KEPT = 1_000
RIGHT, WRONG, SKIPPED = "right", "wrong", "skipped"
IDLE_CHECK_S = 0.02
PROBE_DEADLINE_S = 30.0
TRIES = 4
# Facts drawn from the memory for each verbatim probe of a cycle. Probes of all kinds are made of them, 2.75
# for one verbatim, and not every fact allows every kind.
FACTS_PER_PROBE = 8
# Longest answer to a probe: as long as an answer to a user who names no length.
ANSWER_TOKENS = 32
# With the cycle's number: each cycle draws another sample, and the same one after a restart.
SEED = 0

Item = TypeVar("Item")


class DriftMemory(Protocol):
    """What the watch needs of the edit memory."""

    def sample_facts(self, count: int, rng: Random) -> tuple[Fact, ...]: ...
    def facts_of_subject(self, name: str, *, namespace: str) -> tuple[Fact, ...]: ...
    def arrivals(self, after: int, limit: int) -> list[Arrival]: ...
    def last_row(self) -> int: ...
    def vectors_of(self, key_ids: Sequence[int]) -> Vectors: ...
    def recall_self_check(self, sample: int = 64, k: int = 3) -> float: ...
    def meta_get(self, name: str) -> str | None: ...
    def meta_set(self, name: str, value: str) -> None: ...


class ProbeAnswerer(Protocol):
    """The path of users' questions."""

    def answer(self, q: Question, *, cancelled: Callable[[], bool]) -> Answer: ...


class ProbedEngine(Protocol):
    """Who waits, what runs, and which model and adapter answer."""

    @property
    def adapter(self) -> AdapterRef | None: ...
    @property
    def fingerprint(self) -> str: ...
    @property
    def runtime(self) -> str: ...
    @property
    def queue_depth(self) -> int: ...


@dataclass(frozen=True, slots=True)
class WatchSettings:
    """`probes` verbatim probes a cycle, the other kinds in proportion; a cycle takes at most `budget_s`
    seconds. `window` rows make a reference for shifts, `sample` a reading."""

    probes: int = 64
    budget_s: float = 60.0
    window: int = WINDOW
    sample: int = SAMPLE
    decision: DecisionSettings = field(default_factory=DecisionSettings)

    def quota(self) -> dict[ProbeKind, int]:
        verbatim_share = probes.QUOTA[ProbeKind.VERBATIM]
        return {kind: -(-share * self.probes // verbatim_share) for kind, share in probes.QUOTA.items()}


@dataclass(frozen=True, slots=True)
class DriftReport:
    """What `lte drift` shows: the newest reading of each name, every rule's margin, what would happen now.
    `past` are the last readings of each name, oldest first."""

    readings: tuple[Reading, ...]
    margins: tuple[Margin, ...]
    decision: Decision
    new_edits: int
    cycles: int
    cycle_ms: int
    adapter_since_ms: int
    past: tuple[Reading, ...] = ()


class DriftWatch:
    """Thread-safe. `running` tells how many questions are being answered; `on_probe(kind, outcome)` counts
    right, wrong and skipped probes. `situation` gives what the readings do not tell, `relations` what an
    adapter was aligned on; None where that is not known."""

    def __init__(
        self,
        memory: DriftMemory,
        answers: ProbeAnswerer,
        encoder: Encoder,
        engine: ProbedEngine,
        store: DriftStateStore,
        settings: WatchSettings,
        *,
        situation: Callable[[], Situation] = Situation,
        relations: Callable[[AdapterRef], Collection[str] | None] = lambda _: None,
        running: Callable[[], int] = lambda: 0,
        on_probe: Callable[[str, str], None] = lambda _kind, _outcome: None,
        now: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._memory, self._answers, self._encoder, self._engine = memory, answers, encoder, engine
        self._settings, self._running = settings, running
        self._on_probe, self._now = on_probe, now
        self._situation, self._relations = situation, relations
        self._store, self._lock = store, store.lock
        self._asking = threading.Lock()
        self._stopping = threading.Event()
        self._questions: deque[str] = deque(maxlen=MOST_KEPT)
        self._verdicts: deque[bool] = deque(maxlen=MOST_KEPT)
        self._meters = {
            name: ShiftMeter(encoder.dimension, settings.window, settings.sample)
            for name in (QUESTIONS, EVENTS)
        }
        self._past = PastReadings()
        self._restore()

    # -- what others tell ------------------------------------------------------------------------------

    def note_question(self, question: str) -> None:
        """A user asked this; its text is held in memory until the next look, its vector is kept."""
        self._questions.append(question)

    def feedback(self, *, good: bool, adapter_id: str = "") -> bool:
        """A user's word on an answer; False, and not counted, when another adapter serves by now."""
        now = self._engine.adapter
        if adapter_id and (now is None or now.id != adapter_id):
            return False
        self._verdicts.append(good)
        return True

    def stop(self) -> None:
        """End the cycle under way and keep what was learned; harmless a second time."""
        self._stopping.set()
        with self._asking, self._lock:
            self._save_learned()

    # -- what it says ----------------------------------------------------------------------------------

    def report(self, past_readings: int = 0) -> DriftReport:
        """With so many of the last readings of each name."""
        with self._lock:
            state, rules = self._store.state, self._settings.decision.rules
            new = max(0, self._memory.last_row() - state.since_row)
            latest = state.drift.latest
            return DriftReport(
                readings=tuple(latest[name] for name in r.NAMES if name in latest),
                margins=margins(state.drift, rules),
                decision=self._decision(state, new),
                new_edits=new,
                cycles=state.cycle,
                cycle_ms=state.cycle_ms,
                adapter_since_ms=state.adapter_since_ms,
                past=self._past.last(past_readings),
            )

    def _decision(self, state: DriftState, new_edits: int) -> Decision:
        since = state.adapter_since_ms or None
        situation = replace(
            self._situation(),
            new_edits=new_edits,
            adapter_since_ms=since,
            reason_since_ms=state.reason_since_ms,
        )
        return decide(state.drift, situation, self._settings.decision, self._now())

    # -- the cheap job ---------------------------------------------------------------------------------

    def look(self) -> None:
        """Read what came since the last look: edits, questions, feedback."""
        self._follow_adapter()
        with self._lock:
            while (rows := self._memory.arrivals(self._store.state.cursor, MOST_ARRIVALS)) and self._going():
                self._observe(self._of_arrivals(rows))
            self._observe([*self._of_questions(), *self._of_feedback()])

    def _of_arrivals(self, rows: Sequence[Arrival]) -> list[Reading]:
        now, state = self._now(), self._store.state
        assertions = [row for row in rows if row.op == Op.ASSERT]
        relations, unseen = state.relations.step([row.relation for row in assertions if row.relation])
        self._store.state = replace(state, cursor=rows[-1].row, relations=relations)
        keys = [row.key_id for row in assertions if row.key_id is not None]
        since = float(max(0, rows[-1].row - state.since_row))
        return [
            *shares_of(r.UNSEEN_RELATIONS, unseen, now),
            Reading(r.EDITS_SINCE, since, 1, now),
            *self._shift(EVENTS, r.EVENT_SHIFT, self._event_vectors(keys)),
        ]

    def _event_vectors(self, key_ids: Sequence[int]) -> Vectors:
        """Of the newest keys; one that was erased meanwhile ends it for this look."""
        try:
            return self._memory.vectors_of(key_ids[-MOST_VECTORS:])
        except LteError as error:
            log.info("no_event_vectors", error=str(error))
            return self._memory.vectors_of([])

    def _of_questions(self) -> list[Reading]:
        texts = _drained(self._questions)[-MOST_VECTORS:]
        if not texts:
            return []
        return self._shift(QUESTIONS, r.QUESTION_SHIFT, self._encoder.encode(texts, query=True))

    def _of_feedback(self) -> tuple[Reading, ...]:
        bad = [not good for good in _drained(self._verdicts)]
        return shares_of(r.NEGATIVE_FEEDBACK, bad, self._now())

    def _shift(self, meter: str, name: str, rows: Vectors) -> list[Reading]:
        p_values = self._meters[meter].feed(rows)
        return [Reading(name, p, self._settings.sample, self._now()) for p in p_values]

    # -- the cycle of probes ---------------------------------------------------------------------------

    def ask(self) -> None:
        """One cycle. Cut short by its budget, by a stop, or by an adapter that is exchanged meanwhile."""
        with self._asking:
            self._follow_adapter()
            cycle, adapter = self._store.state.cycle, self._store.state.adapter
            until = time.monotonic() + self._settings.budget_s
            facts = self._facts(Random(f"{SEED}:{cycle}:facts"))
            base = self._base_answers(facts, until)
            chosen = probes.make(facts, base, seed=SEED, cycle=cycle, quota=self._settings.quota())
            results = [result for probe in chosen if (result := self._probe(probe, until))]
            now = self._now()
            measured = [*readings_of(results, now), *self._recall(now)]
            with self._lock:
                if _name(self._engine.adapter) != adapter:
                    measured = []
                self._store.state = replace(self._store.state, cycle=cycle + 1, cycle_ms=now)
                self._observe(measured, always=True)
                self._save_learned()

    def _facts(self, rng: Random) -> tuple[Fact, ...]:
        """A sample, and the facts that begin where sampled ones end, for questions over two hops."""
        drawn = self._memory.sample_facts(FACTS_PER_PROBE * self._settings.probes, rng)
        facts = {(fact.key, fact.edit_id): fact for fact in drawn}
        for fact in drawn[: 4 * self._settings.probes]:
            for other in self._memory.facts_of_subject(fact.target, namespace=fact.key.namespace)[:4]:
                facts.setdefault((other.key, other.edit_id), other)
        return tuple(facts.values())

    def _base_answers(self, facts: Sequence[Fact], until: float) -> list[BaseAnswer]:
        """The base model's own answers to the general questions; one answer for each base model."""
        namespaces = sorted({fact.key.namespace for fact in facts})
        if not namespaces:
            return []
        rng = Random(f"{SEED}:{self._store.state.cycle}:general")
        answers = []
        for question, names in GENERAL:
            namespace = rng.choice(namespaces)
            if any(self._memory.facts_of_subject(name, namespace=namespace) for name in names):
                continue
            text = self._recorded(question, until)
            if text is not None:
                answers.append(BaseAnswer(question, text, namespace))
        return answers

    def _recorded(self, question: str, until: float) -> str | None:
        with self._lock:
            state = self._store.state
            base_model = f"{self._engine.fingerprint} {self._engine.runtime}"
            if state.base_model != base_model:
                state = self._store.state = replace(state, base_model=base_model, base={})
        if question in state.base:
            return state.base[question]
        answer = self._answer(Question(question, scope=ScopeMode.BASE), until)
        if answer is None or not answer.text:
            return None
        with self._lock:
            state = self._store.state
            self._store.state = replace(state, base={**state.base, question: answer.text})
        return answer.text

    def _probe(self, probe: DriftProbe, until: float) -> ProbeResult | None:
        answer = self._answer(Question(probe.question, probe.namespace), until)
        if answer is None:
            self._on_probe(probe.kind, SKIPPED)
            return None
        self._on_probe(probe.kind, RIGHT if probes.right(probe, answer.free_text) else WRONG)
        cited = frozenset(citation.fact.edit_id for citation in answer.citations)
        return ProbeResult(probe, answer.free_text, cited, answer.gate.score - answer.gate.threshold)

    def _answer(self, question: Question, until: float) -> Answer | None:
        """Answered when no user waits, cancelled at once when one does, and tried again a few times."""
        for _ in range(TRIES):
            if not self._wait_for_quiet(until):
                return None
            deadline = time.monotonic() + PROBE_DEADLINE_S
            limited = replace(question, max_new_tokens=ANSWER_TOKENS, deadline=deadline)
            try:
                return self._answers.answer(limited, cancelled=self._must_yield)
            except (Cancelled, Overloaded, DeadlineExceeded, Retry):
                continue
        return None

    def _must_yield(self) -> bool:
        return self._engine.queue_depth > 0 or not self._going()

    def _wait_for_quiet(self, until: float) -> bool:
        """Whether nobody asks now; False at the end of the budget or at a stop."""
        while self._going() and time.monotonic() < until:
            if not self._engine.queue_depth and not self._running():
                return True
            self._stopping.wait(IDLE_CHECK_S)
        return False

    def _recall(self, now_ms: int) -> tuple[Reading, ...]:
        """One reading of 64 searches, so that a window of the threshold holds four of them."""
        recall = self._memory.recall_self_check()
        return (Reading(r.RECALL, recall, 64, now_ms),)

    # -- state -----------------------------------------------------------------------------------------

    def _going(self) -> bool:
        return not self._stopping.is_set()

    def _follow_adapter(self) -> None:
        with self._lock:
            ref = self._engine.adapter
            if _name(ref) == self._store.state.adapter:
                return
            relations = self._relations(ref) if ref else None
            first = not self._store.state.adapter
            row, now = self._memory.last_row(), self._now()
            state = watched.changed(self._store.state, _name(ref), relations, row, now)
            if not first:
                for meter in self._meters.values():
                    meter.clear()
            self._store.save(state)

    def _observe(self, readings: Iterable[Reading], *, always: bool = False) -> None:
        new = list(readings)
        self._past = self._past.step(new)
        if new or always:
            rules = self._settings.decision.rules
            drift = monitor.observe(self._store.state.drift, new, rules)
            since = self._store.state.reason_since_ms
            since = (self._now() if since is None else since) if drifted(drift, rules) else None
            self._store.save(replace(self._store.state, drift=drift, reason_since_ms=since))

    def _save_learned(self) -> None:
        """What is too much to be written at every look."""
        for name, meter in self._meters.items():
            self._memory.meta_set(name, json.dumps(meter.to_json()))
        self._memory.meta_set(PAST, json.dumps(past.to_json(self._past)))

    def _restore(self) -> None:
        for name, meter in self._meters.items():
            if stored := self._memory.meta_get(name):
                meter.restore(json.loads(stored))
        if stored := self._memory.meta_get(PAST):
            self._past = past.from_json(json.loads(stored))


def _name(ref: AdapterRef | None) -> str:
    return ref.sha256 if ref else "none"


def _drained(queue: deque[Item]) -> list[Item]:
    """Everything that is in it now; what comes meanwhile waits for the next time."""
    return [queue.popleft() for _ in range(len(queue))]
