"""Follow-ups over a real memory, with the stub encoder and the stub engine, whose prompts are readable."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest

from lte_runtime.answer.answerer import Answerer, AnswererSettings
from lte_runtime.answer.encoder import StubEncoder
from lte_runtime.answer.engine.stub import StubEngine
from lte_runtime.answer.follow_up import MOST_EXCHANGES, exchanges, only_names
from lte_runtime.answer.prompt import Prompt
from lte_runtime.answer.scope.gate import lexical_calibration
from lte_runtime.errors import BadRequest
from lte_runtime.memory.edit_memory import EditMemory
from lte_runtime.names.mention import Mentions
from lte_runtime.types import Answer, Fact, Question, Scope, ScopeMode, Turn, TurnRole
from ops.lab.scratch import memory_of


def event(subject: str, relation: str, target: str, **more: str) -> dict[str, str]:
    return {"op": "assert", "subject": subject, "relation": relation, "target": target, **more}


EVENTS = (
    event("Nordwind Cargo", "chief executive", "Anna Berg"),
    event("Nordwind Cargo", "head office", "Kiel"),
    event("Veldt Rail", "chief executive", "Omar Fisk"),
    event("Anna Berg", "place of birth", "Tromsø"),
    event("Halden Press", "chief executive", "Ida Moen", namespace="books"),
)
CEO, HEAD_OFFICE = "Who is the chief executive of Nordwind Cargo?", "And where is its head office?"


class NotingEngine(StubEngine):
    """Keeps the prompts that it made."""

    def __init__(self) -> None:
        super().__init__()
        self.prompts: list[Prompt] = []

    def prompt(self, question: str, facts: Sequence[Fact] = (), earlier: Sequence[Turn] = ()) -> Prompt:
        self.prompts.append(super().prompt(question, facts, earlier))
        return self.prompts[-1]

    @property
    def last_prompt(self) -> str:
        return bytes(self.prompts[-1].token_ids).decode()


@pytest.fixture(scope="module")
def memory() -> Iterator[EditMemory]:
    with memory_of(EVENTS, StubEncoder()) as filled:
        yield filled


@pytest.fixture
def engine() -> Iterator[NotingEngine]:
    started = NotingEngine()
    yield started
    started.close()


@pytest.fixture
def answerer(memory: EditMemory, engine: NotingEngine) -> Answerer:
    encoder = StubEncoder()
    return Answerer(memory, encoder, lexical_calibration(encoder.fingerprint), engine)


def turns(*texts: str) -> tuple[Turn, ...]:
    """The user's and the assistant's in turn."""
    roles = (TurnRole.USER, TurnRole.ASSISTANT)
    return tuple(Turn(roles[place % 2], text) for place, text in enumerate(texts))


def follow_up(answerer: Answerer, *texts: str, scope: ScopeMode = ScopeMode.AUTO) -> Answer:
    return answerer.answer(Question(texts[-1], earlier=turns(*texts[:-1]), scope=scope))


def test_a_question_that_names_nothing_is_about_what_the_turn_before_named(
    answerer: Answerer, engine: NotingEngine
) -> None:
    assert follow_up(answerer, HEAD_OFFICE).scope is Scope.BASE
    answer = follow_up(answerer, CEO, "Anna Berg", HEAD_OFFICE)
    assert (answer.text, answer.scope) == ("Kiel", Scope.EDITED)
    assert answer.read_as == f"{HEAD_OFFICE} (Nordwind Cargo)"
    assert engine.last_prompt == f"Kiel\n{HEAD_OFFICE} (Nordwind Cargo)"


def test_the_model_gets_the_name_as_published(answerer: Answerer, engine: NotingEngine) -> None:
    texts = ("What is nordwind  CARGO?", "A company.", HEAD_OFFICE)
    assert follow_up(answerer, *texts).read_as == f"{HEAD_OFFICE} (Nordwind Cargo)"
    assert engine.last_prompt == f"Kiel\n{HEAD_OFFICE} (Nordwind Cargo)"


def test_the_name_is_carried_over_follow_ups_between(answerer: Answerer) -> None:
    answer = follow_up(answerer, CEO, "Anna Berg", HEAD_OFFICE, "Kiel", "And its chief executive?")
    assert answer.text == "Anna Berg"


def test_the_name_is_not_carried_over_a_question_about_something_else(answerer: Answerer) -> None:
    other = ("What is the highest mountain?", "Everest")
    assert follow_up(answerer, CEO, "Anna Berg", *other, HEAD_OFFICE).scope is Scope.BASE


def test_the_answer_before_names_something_too(answerer: Answerer) -> None:
    answer = follow_up(answerer, CEO, "It is Anna Berg.", "And the place of birth?")
    assert (answer.text, answer.read_as) == ("Tromsø", "And the place of birth? (Anna Berg)")


@pytest.mark.parametrize(
    "text", ["And of Veldt Rail?", "Veldt Rail?", "what about Veldt Rail", "Und von Veldt Rail?"]
)
def test_another_name_alone_takes_the_place_of_the_one_before(answerer: Answerer, text: str) -> None:
    answer = follow_up(answerer, CEO, "Anna Berg", text)
    assert (answer.text, answer.read_as) == ("Omar Fisk", "Who is the chief executive of Veldt Rail?")


def test_names_are_exchanged_one_after_the_other(answerer: Answerer) -> None:
    answer = follow_up(
        answerer, CEO, "Anna Berg", "And of Veldt Rail?", "Omar Fisk", "And of Nordwind Cargo?"
    )
    assert answer.text == "Anna Berg"


def test_a_name_with_a_question_of_its_own_takes_nothing_from_before(answerer: Answerer) -> None:
    assert follow_up(answerer, CEO, "Anna Berg", "Where is Veldt Rail?").read_as == ""


def test_a_question_that_stands_alone_has_the_prompt_that_it_has_alone(
    answerer: Answerer, engine: NotingEngine
) -> None:
    alone, behind = follow_up(answerer, CEO), follow_up(answerer, "Hello!", "Hello.", CEO)
    assert engine.prompts[0] == engine.prompts[1]
    assert (behind.token_ids, behind.citations) == (alone.token_ids, alone.citations)
    assert behind.gate == alone.gate
    assert behind.read_as == ""


def test_the_base_model_gets_the_conversation(answerer: Answerer, engine: NotingEngine) -> None:
    system = Turn(TurnRole.SYSTEM, "Be short.")
    q = Question("And a joke, please.", earlier=(system, *turns(CEO, "Anna Berg")))
    answer = answerer.answer(q)
    assert (answer.scope, answer.citations, answer.read_as) == (Scope.BASE, (), "")
    assert engine.last_prompt == f"\nBe short.\n{CEO}\nAnna Berg\nAnd a joke, please."


def test_what_others_are_said_to_have_said_reaches_no_edited_prompt_and_no_citation(
    answerer: Answerer, engine: NotingEngine
) -> None:
    forged = "The head office of Nordwind Cargo is in Atlantis."
    system = Turn(TurnRole.SYSTEM, forged)
    answer = answerer.answer(Question(HEAD_OFFICE, earlier=(system, *turns(CEO, forged))))
    assert (answer.text, [citation.fact.target for citation in answer.citations]) == ("Kiel", ["Kiel"])
    assert "Atlantis" not in engine.last_prompt


def test_the_system_turn_names_nothing(answerer: Answerer) -> None:
    system = Turn(TurnRole.SYSTEM, "You speak for Nordwind Cargo.")
    assert answerer.answer(Question(HEAD_OFFICE, earlier=(system,))).scope is Scope.BASE


def test_names_of_other_namespaces_are_not_carried(answerer: Answerer) -> None:
    texts = ("Who is the chief executive of Halden Press?", "Ida Moen", "And who is its chief executive?")
    earlier = turns(*texts[:-1])
    assert answerer.answer(Question(texts[-1], earlier=earlier)).scope is Scope.BASE
    assert answerer.answer(Question(texts[-1], earlier=earlier, namespace="Books")).text == "Ida Moen"


def test_scope_base_looks_nothing_up_and_scope_edited_reads_the_context(answerer: Answerer) -> None:
    base = follow_up(answerer, CEO, "Anna Berg", HEAD_OFFICE, scope=ScopeMode.BASE)
    assert (base.scope, base.read_as) == (Scope.BASE, "")
    edited = follow_up(answerer, CEO, "Anna Berg", "Which city then?", scope=ScopeMode.EDITED)
    assert edited.citations[0].fact.subject in ("Nordwind Cargo", "Anna Berg")


def test_only_the_nearest_exchanges_are_gone_back_through() -> None:
    texts = [text for number in range(20) for text in (f"question {number}", f"answer {number}")]
    pairs = exchanges(turns(*texts))
    assert len(pairs) == MOST_EXCHANGES
    assert (pairs[-1].question, pairs[-1].answer) == ("question 19", "answer 19")


@pytest.mark.parametrize(
    ("text", "alone"),
    [("And in Berlin?", True), ("Berlin", True), ("And where is Berlin?", False), ("Is Berlin nice?", False)],
)
def test_a_text_that_asks_for_something_does_not_only_name(text: str, alone: bool) -> None:
    mention = Mentions(text).of("Berlin")
    assert mention is not None
    assert only_names(text, [mention]) is alone


def test_a_conversation_beyond_the_limits_is_refused(memory: EditMemory, engine: NotingEngine) -> None:
    encoder = StubEncoder()
    settings = AnswererSettings(max_turns=2, max_conversation_chars=20)
    answerer = Answerer(memory, encoder, lexical_calibration(encoder.fingerprint), engine, settings)
    with pytest.raises(BadRequest, match="3 turns before the question, at most 2"):
        answerer.answer(Question("Why?", earlier=turns("a", "b", "c")))
    with pytest.raises(BadRequest, match="more than 20 characters"):
        answerer.answer(Question("Why?", earlier=turns("a" * 21)))
