"""Neighbours have another subject, nearest first; chains and single subjects are found."""

from __future__ import annotations

from random import Random

import numpy as np

from lte_runtime.align.data.facts import FactRecord
from lte_runtime.align.data.pools import Pool, by_vectors, by_words
from lte_runtime.answer.encoder.stub import StubEncoder


def fact(subject: str, relation: str, target: str) -> FactRecord:
    told = f"The {relation} of {subject} is {target}."
    return FactRecord(f"{subject}-{relation}", subject, relation, target, told)


FACTS = (
    fact("Bravex", "owner", "Tolmin"),
    fact("Bravex", "price", "9"),
    fact("Calder", "owner", "Ann"),
    fact("Tolmin", "chief editor", "Bo"),
    fact("Dune", "price", "9"),
)


def test_neighbours_by_words_have_another_subject_and_the_same_relation_first() -> None:
    near = by_words(FACTS)
    assert near[0][0] == 2
    assert 1 not in near[0]
    assert near[1][0] == 4


def test_neighbours_by_vectors_are_the_nearest_by_inner_product() -> None:
    encoder = StubEncoder(1)
    near = by_vectors(encoder.encode)(FACTS)
    vectors = encoder.encode([each.view for each in FACTS])
    for place, found in enumerate(near):
        scores = vectors[list(found)] @ vectors[place]
        assert np.all(np.diff(scores) <= 1e-6)
        assert all(FACTS[other].subject != FACTS[place].subject for other in found)
        assert len(found) == sum(each.subject != FACTS[place].subject for each in FACTS)


def test_a_chain_is_a_target_that_is_a_subject() -> None:
    pool = Pool.of(FACTS, by_words)
    assert [(place, after.subject) for place, after in pool.chains] == [(0, "Tolmin")]


def test_a_relation_and_target_that_stand_twice_have_no_single_subject() -> None:
    pool = Pool.of(FACTS, by_words)
    assert pool.single_subject(FACTS[0])
    assert not pool.single_subject(FACTS[1])


def test_drawn_neighbours_are_distinct_and_as_many_as_there_are() -> None:
    pool = Pool.of(FACTS, by_words)
    for seed in range(30):
        some = pool.neighbours(0, 2, Random(seed))
        assert len({each.edit_id for each in some}) == 2
    assert Pool.of(FACTS[:1], by_words).neighbours(0, 2, Random(0)) == []
