"""The pairs that the relevance model learns from: labelled rightly, without names, split by relation."""

from __future__ import annotations

from collections import Counter
from functools import cache

import pytest

from lte_runtime.answer.encoder import StubEncoder
from ops.lab.gate.pairs import NAME, Pair, Pairs, likeness_by
from ops.lab.gate.topics import half, similar, topics

TOPICS = topics()


def pairs_of(side: int | None = None) -> Pairs:
    encode = StubEncoder().encode
    chosen = (lambda _noun: True) if side is None else (lambda noun: half(noun) == side)
    return Pairs(TOPICS, similar(TOPICS, encode), likeness_by(TOPICS, encode), chosen)


@cache
def epoch() -> list[Pair]:
    return pairs_of().epoch(7)


def test_every_topic_of_a_table_has_questions_and_names_its_subject() -> None:
    for topic in TOPICS:
        assert topic.noun.strip() == topic.noun
        assert all("{s}" in text for text in (*topic.asking, *topic.near)), topic
        assert not set(topic.asking) & set(topic.near), topic
    languages = Counter(topic.language for topic in TOPICS)
    assert languages["en"] > 1_500
    assert min(languages[name] for name in ("de", "fr", "es")) > 100


def test_equal_seeds_give_equal_pairs() -> None:
    assert pairs_of().epoch(7) == epoch()
    assert pairs_of().epoch(8) != epoch()


def test_no_pair_keeps_a_place_to_fill_and_all_know_the_name() -> None:
    for pair in epoch():
        assert "{" not in pair.question + pair.view, pair
        assert NAME in pair.question, pair


def test_a_question_asks_for_at_most_one_thing() -> None:
    for pair in epoch():
        assert sum(label > 0 for label in (pair.asks, pair.earlier, pair.beyond)) <= 1, pair
    sorts = {pair.sort for pair in epoch() if pair.asks}
    assert sorts == {"asks", "chain", "roles"}
    assert {pair.sort for pair in epoch() if pair.beyond} == {"beyond"}


def test_half_of_the_relations_can_be_held_back() -> None:
    sides = [{pair.relation for pair in pairs_of(side).epoch(1) if pair.sort == "asks"} for side in (0, 1)]
    assert not sides[0] & sides[1]
    assert min(map(len, sides)) > 400


@pytest.mark.parametrize("noun", ["owner", "price", "Preis"])
def test_a_view_is_asked_for_in_its_own_words(noun: str) -> None:
    own = [pair for pair in epoch() if pair.relation == noun]
    assert any(pair.asks for pair in own)
    assert any(not (pair.asks or pair.earlier or pair.beyond) for pair in own)
