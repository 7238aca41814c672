"""What counts as a quotation, what as a slip of a value, and what is left alone."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lte_runtime.answer.fidelity import LONGEST, MOST_WORDS, CitedValue, completed, corrected, quotes

ASTANA = (CitedValue(("Astana", "Nur-Sultan"), ("Kazakhstan",)),)


@pytest.mark.parametrize(
    ("text", "value", "expected"),
    [
        ("It is Astana.", "Astana", True),
        ("it is astana, as of now", "Astana", True),
        ("Astana's mayor", "Astana", True),
        ("Astanas", "Astana", False),
        ("the <s> token", "</s>", False),
        ("It is </s>.", "</s>", True),
        ("2\u00a0499,90 kr", "2 499,90\u00a0kr", True),
        ("5.2", "5", False),
        ("12:30", "2:30", False),
        ("It is 5.", "5", True),
        ("v2.3-rc1", "v2.3", False),
        ("x-y@z.example", "x_y@z.example", False),
        ("首都是东京。", "东京", True),
        ("수도는 서울입니다", "서울", True),
        ("anything", "", False),
    ],
)
def test_a_quotation_has_all_signs_between_word_boundaries(text: str, value: str, expected: bool) -> None:
    assert quotes(value, text) is expected


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("Astra", "Astana"),
        ("The capital of Kazakhstan is Astra.", "The capital of Kazakhstan is Astana."),
        ("(Astra)", "(Astana)"),
        ("Nur-Sultn", "Nur-Sultan"),
        ("Nur-Sultan", "Nur-Sultan"),
        ("ASTANA", "ASTANA"),
        ("As to that, I do not know.", "As to that, I do not know."),
        ("Almaty", "Almaty"),
        ("I do not know.", "I do not know."),
        ("", ""),
    ],
)
def test_a_slip_becomes_the_value_and_what_is_far_from_it_stays(answer: str, expected: str) -> None:
    assert corrected(answer, ASTANA, "What is the capital of Kazakhstan?") == expected


@pytest.mark.parametrize(
    ("said", "value"),
    [
        ("Linde", "Leiden"),
        ("<s>", "</s>"),
        ("<|im_end>", "<|im_end|>"),
        ("[INST]", "[/INST]"),
        ("2 499.90 kr", "2\u00a0499,90\u00a0kr"),
        ("12 May 2023", "12 May 2024"),
        ("AB-124-X", "AB-142-X"),
        ("Acme Inc", "Acme Inc."),
        ("Łodz", "Łódź"),
        ("Москве", "Москва"),
        ("B13", "B12"),
        ("Moen", "Ida Moen"),
        ("v2.3", "v2.3-rc1"),
    ],
)
def test_slips_of_every_kind_of_value(said: str, value: str) -> None:
    assert corrected(said, [CitedValue((value,))]) == value


GATES = (CitedValue(("Gate B | Dock #4 & #5",), ("Mill & Weir",)),)


@pytest.mark.parametrize(
    ("answer", "question", "expected"),
    [
        ("Gate B", "Which gate does Mill & Weir use?", "Gate B | Dock #4 & #5"),
        ("Gate B.", "Which gate does Mill & Weir use?", "Gate B | Dock #4 & #5."),
        ("Gate B", "Which does Mill & Weir use, Gate A or Gate B?", "Gate B"),
        ("Gate C", "Which gate does Mill & Weir use?", "Gate C"),
        ("Dock", "What stands at the gate of Mill & Weir?", "Dock"),
    ],
)
def test_an_answer_that_stops_within_a_value_is_the_value(answer: str, question: str, expected: str) -> None:
    assert corrected(answer, GATES, question) == expected


REGIONS = (CitedValue(("eu-west-2",), ("Norwind API",)), CitedValue(("ap-south-1",), ("Norwind API",)))


@pytest.mark.parametrize(
    ("answer", "question", "expected"),
    [
        ("eu-west-2", "Which regions does the Norwind API support?", "eu-west-2, ap-south-1"),
        ("It runs in ap-south-1 and eu-west-2.", "Which regions?", "It runs in ap-south-1 and eu-west-2."),
        ("Yes", "Is eu-west-2 a region of the Norwind API?", "Yes"),
        ("A platform.", "Where does the Norwind API run?", "eu-west-2, ap-south-1"),
    ],
)
def test_values_that_are_surely_asked_for_are_all_said(answer: str, question: str, expected: str) -> None:
    assert completed(answer, REGIONS, question) == expected


def test_a_value_that_is_too_long_to_quote_is_not_asked_for_in_full() -> None:
    assert completed("In short: no.", (CitedValue(("x" * (LONGEST + 1),)),)) == "In short: no."


def test_members_of_a_set_are_put_right_one_by_one() -> None:
    members = [CitedValue((name,)) for name in ("Astana", "Almaty", "Shymkent")]
    assert corrected("Astana, Almati and Shymkant", members) == "Astana, Almaty and Shymkent"
    ports = [CitedValue((f"port {number}",)) for number in (8080, 8081)]
    assert corrected("port 8080", ports) == "port 8080", "a member that is left out is no slip of another"
    assert corrected("port 8088", ports) in ("port 8080", "port 8081")


def test_names_of_the_subject_and_words_of_the_question_are_no_slips() -> None:
    holding = [CitedValue(("Velmora Holding",), ("Velmora Group",))]
    said = "The owner of Velmora Group is not known."
    assert corrected(said, holding, "Who owns Velmora Group?") == said
    said = "Velmora Group belongs to Velmora Holdings."
    assert corrected(said, holding) == "Velmora Group belongs to Velmora Holding."
    assert (
        corrected("Velmora Group", [CitedValue(("Velmora Groups",))], "Is it Velmora Group?")
        == "Velmora Group"
    )


def test_a_question_that_names_the_value_asks_for_something_else() -> None:
    yen = [CitedValue(("Yen",), ("Japan",))]
    assert corrected("Yes", yen, "Is the currency of Japan the Yen?") == "Yes"


def test_the_end_of_an_answer_that_was_cut_short_is_no_slip() -> None:
    assert corrected("It is Asta", ASTANA, cut_short=True) == "It is Asta"
    assert corrected("Astra, as", ASTANA, cut_short=True) == "Astana, as"


def test_common_words_are_no_slips_of_short_names() -> None:
    said = "The mayor is an old man, as a rule."
    for value in ("Ana", "Isa", "Asa"):
        assert corrected(said, [CitedValue((value,))]) == said


def test_long_values_and_long_answers_are_bounded() -> None:
    long = "word " * LONGEST
    assert corrected(long[:-7], [CitedValue((long,))]) == long[:-7]
    answer = "and " * (MOST_WORDS + 1) + "Astra"
    assert corrected(answer, ASTANA) == answer


TEXTS = st.text(alphabet="Aab\u00e414 .-<|/\u6771", min_size=1, max_size=12)


@settings(deadline=None)
@given(st.lists(TEXTS, max_size=4), st.lists(TEXTS, min_size=1, max_size=3))
def test_what_was_put_right_is_quoted_and_what_was_quoted_stays(words: list[str], values: list[str]) -> None:
    answer, cited = " ".join(words), [CitedValue((value,)) for value in values]
    once = corrected(answer, cited)
    assert once == answer or any(quotes(value, once) for value in values)
    assert all(quotes(value, once) for value in values if quotes(value, answer))
