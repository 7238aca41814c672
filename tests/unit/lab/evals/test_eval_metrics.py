"""Metrics against values worked out by hand."""

from __future__ import annotations

import pytest

from lte_runtime import scoring


@pytest.mark.parametrize(
    ("answer", "accepted", "right"),
    [
        ("The Oslo.", ("Oslo",), True),
        ("  anna   BERG ", ("Anna Berg",), True),
        ("Anna Berg-Lie", ("Anna Berg Lie",), True),
        ("Anna", ("Anna Berg",), False),
        ("", ("",), False),
        ("", ("Tolmin",), False),
        ("Łódź", ("Łódź",), True),
        ("$12.50", ("12.50",), False),
        ("the", ("a",), False),
        ("1,040 pieces", ("1040 pieces",), True),
        ("4.5", ("45",), False),
        ("€5", ("$5",), False),
        ("second", ("first", "second"), True),
        ("ﬁfth", ("fifth",), True),
    ],
)
def test_exact_match_after_normalising(answer: str, accepted: tuple[str, ...], right: bool) -> None:
    assert scoring.matches(answer, accepted) is right


def test_entropy_of_ngrams() -> None:
    # a b a b: bigrams ab, ba, ab -> 0.9183 bits; trigrams aba, bab -> 1 bit.
    expected = 100 * (2 / 3 * 0.9182958 + 4 / 3 * 1.0) / 2
    assert scoring.ngram_entropy("abab") == pytest.approx(expected)
    assert scoring.ngram_entropy("aaaa") == 0.0
    assert scoring.ngram_entropy("ab") is None


def test_mean_leaves_out_what_is_not_there() -> None:
    assert scoring.mean([True, None, False]) == 0.5
    assert scoring.mean([None]) is None


@pytest.mark.parametrize(
    ("answer", "accepted", "inside"),
    [
        ("The capital of Kenya is Nairobi.", ("Nairobi",), True),
        ("He lives in the York area.", ("New York", "york"), True),
        ("Nairobian food", ("Nairobi",), False),
        ("It costs 1,040 euros.", ("1040",), True),
        ("It is version 14.5.", ("4.5",), False),
        ("", ("x",), False),
        ("anything", ("",), False),
    ],
)
def test_a_value_in_a_sentence_is_found_between_word_boundaries(
    answer: str, accepted: tuple[str, ...], inside: bool
) -> None:
    assert scoring.contains(answer, accepted) is inside


@pytest.mark.parametrize(
    ("answer", "accepted", "others", "inside"),
    [
        ("It is Oslo, not Bergen.", ("Oslo",), ("Bergen",), False),
        ("It is Oslo.", ("Oslo",), ("Bergen",), True),
        ("He lives in New York City.", ("New York",), ("New York City",), False),
        ("She is a mezzo soprano.", ("mezzo soprano",), ("soprano",), True),
        ("She is a mezzo soprano.", ("soprano",), ("mezzo soprano",), False),
        ("On 20 December 2007.", ("20 December 2007",), ("20 December 2007", ""), True),
        ("It costs €5.", ("€5",), ("5",), True),
    ],
)
def test_another_candidate_beside_the_value_makes_the_answer_wrong(
    answer: str, accepted: tuple[str, ...], others: tuple[str, ...], inside: bool
) -> None:
    assert scoring.contains(answer, accepted, others) is inside
