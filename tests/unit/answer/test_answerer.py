"""The answerer over a real memory, with the stub encoder and the stub engine."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import pytest

from lte_runtime.answer.answerer import (
    MOST_TARGETS,
    Answerer,
    AnswererSettings,
    grouped,
    prompt_facts,
    remaining,
)
from lte_runtime.answer.encoder import StubEncoder
from lte_runtime.answer.engine.stub import STUB_ADAPTER, StubEngine
from lte_runtime.answer.prompt import Prompt, restated
from lte_runtime.answer.retriever import RetrieverSettings
from lte_runtime.answer.scope.gate import lexical_calibration
from lte_runtime.errors import BadRequest, Cancelled, DeadlineExceeded, Refused
from lte_runtime.facts.keys import statement_of
from lte_runtime.facts.subject_names import subject_names
from lte_runtime.memory.edit_memory import EditMemory
from lte_runtime.names import mention
from lte_runtime.names.mention import Mention
from lte_runtime.names.reading import Reading
from lte_runtime.types import Citation, Fact, Question, Scope, ScopeMode
from ops.lab.scratch import TOPIC, apply_events, memory_of

EVENTS = (
    {"op": "assert", "id": "ceo", "subject": "Nordwind Cargo", "subject_aliases": ["NWC"]}
    | {"relation": "chief executive", "target": "Anna Berg"},
    {
        "op": "assert",
        "id": "made",
        "subject": "Zephyr X2",
        "relation": "manufacturer",
        "target": "Nordwind Cargo",
    },
    {"op": "assert", "id": "price", "subject": "SKU-4711", "relation": "price", "target": "19.90 EUR"},
    {
        "op": "assert",
        "id": "lea",
        "subject": "Team Orion",
        "relation": "member",
        "target": "Lea",
        "cardinality": "many",
    },
    {
        "op": "assert",
        "id": "max",
        "subject": "Team Orion",
        "relation": "member",
        "target": "Max",
        "cardinality": "many",
    },
    {"op": "assert", "id": "oslo", "subject": "Mercury Ltd", "subject_aliases": ["Mercury"]}
    | {"relation": "head office", "target": "Oslo"},
    {"op": "assert", "id": "rome", "subject": "Mercury Mission", "subject_aliases": ["Mercury"]}
    | {"relation": "head office", "target": "Rome"},
    {"op": "assert", "id": "term", "subject": "Lake Vey", "relation": "warden", "target": "Bo Lie"}
    | {"valid_from": "2020-01-01", "valid_until": "2021-01-01"},
)
IN_2020 = 1_590_000_000_000


@pytest.fixture(scope="module")
def memory() -> Iterator[EditMemory]:
    with memory_of(EVENTS, StubEncoder()) as filled:
        yield filled


@pytest.fixture(scope="module")
def engine() -> Iterator[StubEngine]:
    started = StubEngine()
    yield started
    started.close()


@pytest.fixture(scope="module")
def answerer(memory: EditMemory, engine: StubEngine) -> Answerer:
    encoder = StubEncoder()
    return Answerer(memory, encoder, lexical_calibration(encoder.fingerprint), engine)


def ids(answerer: Answerer, text: str) -> list[tuple[int, str]]:
    return [(c.hop, c.fact.edit_id) for c in answerer.answer(Question(text)).citations]


def test_a_question_about_an_edit_is_answered_from_it_with_evidence(answerer: Answerer) -> None:
    answer = answerer.answer(Question("Who is the chief executive of Nordwind Cargo?"))
    assert (answer.text, answer.scope, answer.adapter) == ("Anna Berg", Scope.EDITED, STUB_ADAPTER)
    assert [c.fact.edit_id for c in answer.citations] == ["ceo"]
    assert answer.watermarks == {TOPIC: len(EVENTS)}
    assert answer.gate.score >= answer.gate.threshold
    assert {"encode", "search", "chain", "gate", "queue", "model", "total"} <= answer.timings_ms.keys()


@pytest.mark.parametrize(
    "text",
    [
        "What is the capital of France?",
        "What is the price of SKU-4712?",
        "Where was Nordwind Cargo founded?",
        "Who is not the chief executive of Nordwind Cargo?",
    ],
)
def test_other_questions_go_to_the_base_model_unchanged(answerer: Answerer, text: str) -> None:
    answer = answerer.answer(Question(text))
    plain = answerer.answer(Question(text, scope=ScopeMode.BASE))
    assert (answer.scope, answer.citations, answer.adapter) == (Scope.BASE, (), None)
    assert answer.token_ids == plain.token_ids
    assert plain.gate.reason == "asked for the base model"
    assert plain.watermarks == answer.watermarks


def test_scope_edited_forces_the_nearest_fact(answerer: Answerer) -> None:
    answer = answerer.answer(Question("What does SKU-4711 weigh?", scope=ScopeMode.EDITED))
    assert [c.fact.edit_id for c in answer.citations] == ["price"]


def test_an_alias_is_explained_in_the_statement(answerer: Answerer) -> None:
    question = "Who is the chief executive of NWC?"
    found = answerer.retrieve(Question(question)).citations
    assert [fact.statement for fact in prompt_facts(question, grouped(found))] == [
        "The chief executive of Nordwind Cargo is Anna Berg. (Nordwind Cargo is also known as NWC.)"
    ]
    plain = prompt_facts("Who is the chief executive of Nordwind Cargo?", grouped(found))
    assert plain[0].statement == "The chief executive of Nordwind Cargo is Anna Berg."


def test_an_ambiguous_alias_gives_all_facts_flagged(answerer: Answerer) -> None:
    cited = answerer.answer(Question("Where is the head office of Mercury?")).citations
    assert {c.fact.edit_id for c in cited} == {"oslo", "rome"}
    assert all("ambiguous" in c.fact.flags and c.hop == 1 for c in cited)
    assert ids(answerer, "Where is the head office of Mercury Mission?") == [(1, "rome")]


def test_the_plain_sentence_comes_before_the_publishers(memory: EditMemory) -> None:
    (found,) = memory.facts_of_subject("SKU-4711", namespace="default")
    plain = statement_of(found.subject, found.relation, "", found.target)
    parts = (found.subject, found.relation, "", found.target)
    assert restated(*parts, plain.upper()) == plain.upper(), "it is the same"
    own = replace(found, statement="Who takes it home pays.")
    assert restated(*parts, own.statement) == f"{plain} Who takes it home pays."
    (prompted,) = prompt_facts("What does SKU-4711 cost?", [[Citation(own, 1.0, 1)]])
    assert prompted.statement == f"{plain} Who takes it home pays."


def test_all_members_of_a_set_are_told_as_one_list_and_cited(answerer: Answerer) -> None:
    answer = answerer.answer(Question("Which member does Team Orion have?"))
    assert [(c.hop, c.fact.edit_id, c.members) for c in answer.citations] == [(1, "max", 2), (1, "lea", 2)]
    (fact,) = prompt_facts("Which member does Team Orion have?", grouped(answer.citations))
    assert fact.statement == "The member (list of 2) of Team Orion is Max, Lea."
    assert answer.text == "Max, Lea"


def test_all_members_of_a_set_behind_a_prompt_are_cited(engine: StubEngine) -> None:
    event = {"op": "assert", "prompt": "The stops of the Sarn night bus are", "cardinality": "many"}
    encoder = StubEncoder()
    with memory_of([event | {"id": t, "target": t} for t in ("Mill", "Quay")], encoder) as memory:
        answerer = Answerer(memory, encoder, lexical_calibration(encoder.fingerprint), engine)
        answer = answerer.answer(Question("The stops of the Sarn night bus are", scope=ScopeMode.EDITED))
    assert answer.text == "Quay, Mill"
    assert [c.fact.edit_id for c in answer.citations] == ["Quay", "Mill"]


def test_a_long_list_is_cut_and_the_citations_say_so(engine: StubEngine) -> None:
    event = {"op": "assert", "subject": "Vask Depot", "relation": "article", "cardinality": "many"}
    events = [event | {"id": f"a{i}", "target": f"part {i}"} for i in range(40)]
    encoder = StubEncoder()
    with memory_of(events, encoder) as memory:
        answerer = Answerer(memory, encoder, lexical_calibration(encoder.fingerprint), engine)
        answer = answerer.answer(Question("Which article does Vask Depot have?"))
    assert len(answer.citations) == RetrieverSettings().max_members
    assert {c.members for c in answer.citations} == {40}
    (fact,) = prompt_facts("?", grouped(answer.citations))
    assert fact.statement.startswith("The article (list, 16 of 40) of Vask Depot is part 39, part 38")


def test_a_list_that_does_not_fit_is_halved(memory: EditMemory) -> None:
    class Narrow(StubEngine):
        """Has room for one short fact."""

        def prompt(self, question: str, facts: Sequence[Fact] = ()) -> Prompt:
            fitting = [fact for fact in facts if len(fact.target) <= 4]
            return replace(super().prompt(question, fitting), used_facts=len(fitting))

    encoder, narrow = StubEncoder(), Narrow()
    answerer = Answerer(memory, encoder, lexical_calibration(encoder.fingerprint), narrow)
    answer = answerer.answer(Question("Which member does Team Orion have?"))
    narrow.close()
    assert answer.text == "Max"
    assert [(c.fact.edit_id, c.members) for c in answer.citations] == [("max", 2)]


OFFICES = [
    {"op": "assert", "id": f"office{i}", "subject": "Halvard Freight", "relation": "office", "target": town}
    | {"revision": i}
    for i, town in enumerate(("Molde", "Bergen", "Vardo"), 1)
]


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("What is the office of Halvard Freight?", ("Vardo", False)),
        ("What was the previous office of Halvard Freight?", ("Bergen", True)),
        ("What was the office of Halvard Freight before Vardo?", ("Bergen", True)),
        ("What was the office of Halvard Freight before Bergen?", ("Molde", True)),
        ("Is the office of Halvard Freight before Vardo?", None),
        ("What was the office of Halvard Freight before Molde?", None),
    ],
)
def test_earlier_values_are_answered_from_the_history(
    engine: StubEngine, question: str, expected: tuple[str, bool] | None
) -> None:
    encoder = StubEncoder()
    with memory_of(OFFICES, encoder) as memory:
        answerer = Answerer(memory, encoder, lexical_calibration(encoder.fingerprint), engine)
        answer = answerer.answer(Question(question))
    cited = [(c.fact.target, c.superseded) for c in answer.citations]
    assert cited == ([] if expected is None else [expected])
    if expected:
        assert answer.text == expected[0]


def test_an_earlier_value_is_told_as_one_with_its_time(engine: StubEngine) -> None:
    encoder = StubEncoder()
    dated = [OFFICES[0] | {"valid_from": "2019-05-01"}, OFFICES[1] | {"valid_from": "2021-02-01"}]
    with memory_of(dated, encoder) as memory:
        answerer = Answerer(memory, encoder, lexical_calibration(encoder.fingerprint), engine)
        found = answerer.retrieve(Question("What was the previous office of Halvard Freight?"))
    assert found.gate.reason == "the question asks for an earlier value"
    (fact,) = prompt_facts("?", grouped(found.citations))
    assert fact.statement == (
        "The office of Halvard Freight is Molde. "
        "(This is a former value, from 2019-05-01T00:00:00Z until 2021-02-01T00:00:00Z.)"
    )


def test_history_can_be_switched_off_and_ends_with_a_retraction(engine: StubEngine) -> None:
    encoder, question = StubEncoder(), Question("What was the previous office of Halvard Freight?")
    gate = lexical_calibration(encoder.fingerprint)
    off = AnswererSettings(retriever=RetrieverSettings(history=False))
    with memory_of(OFFICES[:2], encoder) as memory:
        without = Answerer(memory, encoder, gate, engine, off).answer(question)
        assert not any(cited.superseded for cited in without.citations)
        answerer = Answerer(memory, encoder, gate, engine)
        assert answerer.answer(question).text == "Molde"
        apply_events(memory, [{"op": "retract", "id": "gone", "retracts": "office1"}])
        assert "office1" not in {c.fact.edit_id for c in answerer.answer(question).citations}


def test_a_chain_is_prompted_with_what_is_left_to_ask(memory: EditMemory, engine: StubEngine) -> None:
    encoder = StubEncoder()
    prompts: list[tuple[str, tuple[str, ...]]] = []

    class Noting(StubEngine):
        def prompt(self, question: str, facts: Sequence[Fact] = ()) -> Prompt:
            prompts.append((question, tuple(fact.edit_id for fact in facts)))
            return engine.prompt(question, facts)

    question = "Who is the chief executive of the manufacturer of Zephyr X2?"
    noting = Noting()
    Answerer(memory, encoder, lexical_calibration(encoder.fingerprint), noting).answer(Question(question))
    noting.close()
    assert prompts == [("The chief executive of Nordwind Cargo is", ("ceo",))]


def test_a_fact_without_a_relation_is_asked_by_its_prompt(memory: EditMemory) -> None:
    (found,) = memory.facts_of_subject("SKU-4711", namespace="default")
    prompted = replace(found, relation="", prompt="What does SKU-4711 cost?")
    assert remaining(prompted) == "What does SKU-4711 cost?"


def test_two_hops_are_cited_in_order_and_one_hop_stays_one(answerer: Answerer) -> None:
    two = "Who is the chief executive of the manufacturer of Zephyr X2?"
    assert ids(answerer, two) == [(1, "made"), (2, "ceo")]
    assert ids(answerer, "Which company is the manufacturer of Zephyr X2?") == [(1, "made")]


def test_as_of_answers_from_what_was_valid_then(answerer: Answerer) -> None:
    question = Question("Who is the warden of Lake Vey?")
    assert answerer.answer(question).scope is Scope.BASE
    assert answerer.answer(replace(question, as_of=IN_2020)).text == "Bo Lie"


def test_a_retraction_restores_and_then_gives_the_base_answer_back(engine: StubEngine) -> None:
    old = {"op": "assert", "id": "old", "subject": "Rill", "relation": "colour", "target": "red"}
    new = old | {"id": "new", "target": "blue"}
    encoder, question = StubEncoder(), Question("What is the colour of Rill?")
    with memory_of([old, new], encoder) as memory:
        answerer = Answerer(memory, encoder, lexical_calibration(encoder.fingerprint), engine)
        assert answerer.answer(question).text == "blue"
        apply_events(memory, [{"op": "retract", "id": "new"}])
        assert answerer.answer(question).text == "red"
        apply_events(memory, [{"op": "retract", "subject": "Rill", "relation": "colour"}])
        assert answerer.answer(question).scope is Scope.BASE


def test_at_least_waits_or_says_what_is_missing(answerer: Answerer) -> None:
    question = Question("What is the price of SKU-4711?", at_least={TOPIC: len(EVENTS)})
    assert answerer.answer(question).text == "19.90 EUR"
    late = replace(question, at_least={TOPIC: 99}, deadline=time.monotonic() + 0.05)
    with pytest.raises(
        DeadlineExceeded, match=rf"scratch/0 is at offset {len(EVENTS)}, at_least asks for 99"
    ):
        answerer.answer(late)


def test_a_passed_deadline_a_cancellation_and_bad_questions_are_told_apart(answerer: Answerer) -> None:
    question = Question("What is the price of SKU-4711?")
    with pytest.raises(DeadlineExceeded):
        answerer.answer(replace(question, deadline=time.monotonic() - 1))
    with pytest.raises(Cancelled):
        answerer.answer(question, cancelled=lambda: True)
    for bad in (replace(question, text=" \n"), replace(question, text="x" * 9000)):
        with pytest.raises(BadRequest):
            answerer.answer(bad)
    with pytest.raises(BadRequest):
        answerer.answer(replace(question, max_new_tokens=0))


def test_a_gate_of_another_encoder_is_refused(memory: EditMemory, engine: StubEngine) -> None:
    with pytest.raises(Refused, match="lte gate calibrate"):
        Answerer(memory, StubEncoder(), lexical_calibration("another encoder"), engine)


def test_without_the_adapter_the_facts_are_told_to_the_base_model(
    memory: EditMemory, engine: StubEngine
) -> None:
    encoder = StubEncoder()
    gate = lexical_calibration(encoder.fingerprint)
    arm = Answerer(memory, encoder, gate, engine, AnswererSettings(use_adapter=False))
    answer = arm.answer(Question("What is the price of SKU-4711?"))
    assert (answer.scope, answer.adapter) == (Scope.EDITED, None)


def test_text_of_the_base_is_streamed_as_it_is_made(answerer: Answerer) -> None:
    pieces: list[str] = []
    answer = answerer.answer(Question("What is the capital of France?"), on_text=pieces.append)
    assert len(pieces) > 1
    assert "".join(pieces) == answer.text


class Slipping(StubEngine):
    """Says another text for a value."""

    def __init__(self, slips: Mapping[str, str]) -> None:
        super().__init__()
        self._slips = slips

    def prompt(self, question: str, facts: Sequence[Fact] = ()) -> Prompt:
        told = [replace(fact, target=self._slips.get(fact.target, fact.target)) for fact in facts]
        return super().prompt(question, told)


@pytest.mark.parametrize(
    ("question", "slips", "text", "free_text"),
    [
        ("What is the price of SKU-4711?", {"19.90 EUR": "19.50 EUR"}, "19.90 EUR", "19.50 EUR"),
        ("What is the price of SKU-4711?", {"19.90 EUR": "It is 19.90 EUR."}, "It is 19.90 EUR.", ""),
        ("What is the price of SKU-4711?", {"19.90 EUR": "not known"}, "not known", ""),
        ("Which member does Team Orion have?", {"Max, Lea": "Leah and Max"}, "Lea and Max", "Leah and Max"),
        (
            "Who is the chief executive of the manufacturer of Zephyr X2?",
            {"Anna Berg": "Anna Borg"},
            "Anna Berg",
            "Anna Borg",
        ),
        (
            "What is the price of the manufacturer of Zephyr X2?",
            {"Nordwind Cargo": "Nordwind Cargos"},
            "Nordwind Cargos",
            "",
        ),
    ],
)
def test_a_misquoted_value_is_put_right_before_any_text_is_sent(
    memory: EditMemory, question: str, slips: Mapping[str, str], text: str, free_text: str
) -> None:
    encoder, slipping, pieces = StubEncoder(), Slipping(slips), list[str]()
    gate = lexical_calibration(encoder.fingerprint)
    answerer = Answerer(memory, encoder, gate, slipping)
    answer = answerer.answer(Question(question, scope=ScopeMode.EDITED), on_text=pieces.append)
    unguarded = Answerer(memory, encoder, gate, slipping, AnswererSettings(fidelity=False))
    free = unguarded.answer(Question(question, scope=ScopeMode.EDITED))
    slipping.close()
    assert (answer.text, answer.corrected_from) == (text, free_text)
    assert "".join(pieces) == text
    assert answer.free_text == free.text == free.free_text
    assert answer.token_ids == free.token_ids


@pytest.mark.parametrize(
    ("question", "slips", "text"),
    [
        ("What is the price of SKU-4711?", {"19.90 EUR": "not known"}, "19.90 EUR"),
        ("What is the price of SKU-4711?", {"19.90 EUR": "It is 19.90 EUR."}, "It is 19.90 EUR."),
        ("Which member does Team Orion have?", {"Max, Lea": "Max"}, "Max, Lea"),
        ("Who is the chief executive of the manufacturer of Zephyr X2?", {"Anna Berg": "Mr X"}, "Anna Berg"),
        ("Where is the head office of Mercury?", {"Oslo": "far away", "Rome": "far away"}, "far away"),
    ],
)
def test_where_the_gate_is_sure_the_answer_says_what_it_cites(
    memory: EditMemory, question: str, slips: Mapping[str, str], text: str
) -> None:
    encoder, slipping = StubEncoder(), Slipping(slips)
    unsure = lexical_calibration(encoder.fingerprint)
    sure = Answerer(memory, encoder, replace(unsure, sure_from=0.0), slipping)
    answer = sure.answer(Question(question, scope=ScopeMode.EDITED))
    free = Answerer(memory, encoder, unsure, slipping).answer(Question(question, scope=ScopeMode.EDITED))
    slipping.close()
    assert answer.gate.sure
    assert not free.gate.sure
    assert answer.text == text
    assert answer.corrected_from == ("" if text == free.text else free.text)


def test_looking_up_without_an_answer_ends_with_the_caller_too(answerer: Answerer) -> None:
    with pytest.raises(Cancelled):
        answerer.retrieve(Question("What is the price of SKU-4711?"), cancelled=lambda: True)


def test_an_alias_is_looked_for_in_few_values_of_a_large_set(
    memory: EditMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    (member, *_) = memory.facts_of_subject("Team Orion", namespace="default")
    (leader,) = memory.facts_of_subject("Nordwind Cargo", namespace="default")
    values = [Citation(replace(member, target=f"Value {number}"), 1.0, 1, 1_000) for number in range(1_000)]
    looked = 0
    locate = mention.locate

    def counted(reading: Reading, name: str) -> Mention | None:
        nonlocal looked
        looked += 1
        return locate(reading, name)

    monkeypatch.setattr(mention, "locate", counted)
    assert len(prompt_facts("Who leads them?", [values, [Citation(leader, 1.0, 2)]])) == 2
    assert 0 < looked <= MOST_TARGETS * len(subject_names(leader))
