"""Rows that wait for their place in the graph are found, replaced and dropped like all others."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pytest

from lte_runtime.index.buffered import BufferedRows
from lte_runtime.index.exact import ExactRows
from lte_runtime.index.vector_index import VectorIndex
from tests.unit.index.test_index import D, agrees, unit


@pytest.fixture
def rows() -> BufferedRows:
    """0-9 in the graph, 10-19 waiting; exact rows stand for the graph."""
    buffered, vectors = BufferedRows(ExactRows(D), D), unit(20)
    buffered.put(range(10), vectors[:10])
    buffered.put_later(range(10, 20), vectors[10:])
    return buffered


def test_both_halves_are_searched_as_one(rows: BufferedRows) -> None:
    exact, vectors = ExactRows(D), unit(20)
    exact.put(range(20), vectors)
    for seed in range(10):
        for k in (1, 3, 15, 20):
            ids, scores = rows.search(unit(1, seed), k)
            exact_ids, exact_scores = exact.search(unit(1, seed), k)
            assert ids == exact_ids
            np.testing.assert_allclose(scores, exact_scores, atol=1e-6)


def test_an_id_is_in_one_half_alone(rows: BufferedRows) -> None:
    newer = unit(2, 7)
    rows.put_later([0], newer[:1])
    rows.put([10], newer[1:])
    assert (rows.live, rows.waiting, sorted(rows.ids())) == (20, 10, list(range(20)))
    ids, vectors = rows.export([0, 10, 99])
    assert {key: vector.tolist() for key, vector in zip(ids, vectors, strict=True)} == {
        0: newer[0].tolist(),
        10: newer[1].tolist(),
    }
    rows.drop([0, 10, 11, 1])
    assert (rows.live, rows.waiting) == (16, 8)


def test_settling_changes_nothing_but_the_place(rows: BufferedRows, tmp_path: Path) -> None:
    before = rows.search(unit(1, 3), 20)
    with pytest.raises(ValueError, match="10 rows"):
        rows.save(tmp_path)
    rows.settle(4)
    assert (rows.waiting, rows.live) == (6, 20)
    rows.settle(100)
    assert rows.waiting == 0
    assert rows.search(unit(1, 3), 20) == before
    rows.save(tmp_path)
    assert ExactRows.load(tmp_path, D).live == 20


def settled() -> None:
    while any(thread.name == "index-settle" for thread in threading.enumerate()):
        time.sleep(0.01)


def test_single_rows_go_into_the_graph_beside_searches(tmp_path: Path) -> None:
    index, vectors = VectorIndex(D, hnsw_from=50), unit(900)
    index.add(range(100), vectors[:100])
    vector_of = dict(enumerate(vectors[:100]))
    for key in range(100, 900):
        index.add([key], vectors[key : key + 1])
        vector_of[key] = vectors[key]
        if key % 40 == 0:
            index.remove([key - 60])
            del vector_of[key - 60]
            agrees(index, vector_of, unit(1, key), 3)
    settled()
    assert (index.path, index.live) == ("hnsw", len(vector_of))
    assert index.recall(vectors[-100:], 3) >= 0.99
    index.save(tmp_path)
    again = VectorIndex(D, hnsw_from=50)
    again.load(tmp_path)
    assert sorted(again.ids()) == sorted(vector_of)


def test_a_row_that_waits_survives_a_rebuild_and_a_removal() -> None:
    index, vectors = VectorIndex(D, hnsw_from=50), unit(120)
    index.add(range(100), vectors[:100])
    index.add([100, 101], vectors[100:102])
    index.remove([101])
    index.rebuild()
    assert index.search(vectors[100:101], 1)[0] == [100]
    assert index.live == 101
