"""The vector index: like a dictionary with exact search, whatever path it takes, and under threads."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lte_runtime.errors import Damaged
from lte_runtime.index.hnsw import GraphShape
from lte_runtime.index.vector_index import VectorIndex
from lte_runtime.types import Vectors

D = 16
SEED = 20231
MODES = ("auto", "exact", "hnsw")


def unit(n: int, seed: int = SEED, dimension: int = D) -> Vectors:
    rows = np.random.default_rng(seed).standard_normal((n, dimension)).astype(np.float32)
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def exact(vector_of: dict[int, Vectors], query: Vectors, k: int) -> list[tuple[int, float]]:
    scores = sorted(
        ((float(row @ query[0]), key) for key, row in vector_of.items()), key=lambda s: (-s[0], s[1])
    )
    return [(key, score) for score, key in scores[:k]]


def agrees(index: VectorIndex, vector_of: dict[int, Vectors], query: Vectors, k: int) -> None:
    """The index gives what a dictionary would: as many, with scores as good, each id's score its own."""
    ids, scores, _ = index.search(query, k)
    truth = exact(vector_of, query, k)
    assert len(ids) == len(set(ids)) == len(truth)
    np.testing.assert_allclose(scores, [score for _, score in truth], atol=1e-5)
    for key, score in zip(ids, scores, strict=True):
        assert float(vector_of[key] @ query[0]) == pytest.approx(score, abs=1e-5)


@pytest.mark.parametrize("mode", MODES)
def test_empty_index_finds_nothing(mode: str) -> None:
    index = VectorIndex(D, mode=mode)
    assert index.search(unit(1), 3)[:2] == ([], [])
    assert (index.live, index.dead, index.recall(unit(5), 3)) == (0, 0, 1.0)
    index.add([], np.empty((0, D), np.float32))
    index.remove([1, 2])
    index.rebuild()
    assert index.live == 0


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("k", [1, 3, 10, 100])
def test_k_is_clamped(mode: str, k: int) -> None:
    index, rows = VectorIndex(D, mode=mode), unit(10)
    index.add(range(10), rows)
    agrees(index, dict(enumerate(rows)), unit(1, 5), k)
    assert index.search(unit(1), 0)[0] == []


@pytest.mark.parametrize("mode", MODES)
def test_a_new_vector_takes_the_place_of_the_old(mode: str) -> None:
    """hnswlib's own replace leaves a ghost of the old vector behind."""
    index, old, new = VectorIndex(D, mode=mode), unit(50), unit(50, 9)
    index.add(range(50), old)
    index.add(range(0, 50, 2), new[::2])
    vector_of = {key: new[key] if key % 2 == 0 else old[key] for key in range(50)}
    for row in old:
        agrees(index, vector_of, row[None], 5)
    assert index.live == 50


def test_the_last_of_a_repeated_id_counts() -> None:
    index, rows = VectorIndex(D, mode="hnsw"), unit(3)
    index.add([7, 7, 7], rows)
    assert (index.live, index.dead) == (1, 0)
    assert index.search(rows[2:], 1)[1][0] == pytest.approx(1.0, abs=1e-6)


def bad_vectors() -> list[Vectors]:
    nan, inf, zero, long, huge = (unit(2) for _ in range(5))
    nan[1, 3], inf[1, 3], zero[1], long[1] = np.nan, np.inf, 0.0, long[1] * 1.5
    huge[1] = np.finfo(np.float32).max
    return [nan, inf, zero, long, huge, unit(3), unit(2, dimension=D + 1), unit(2).reshape(2, 2, D // 2)]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("bad", range(8))
@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")
def test_bad_vectors_change_nothing(mode: str, bad: int) -> None:
    index, rows = VectorIndex(D, mode=mode), unit(5)
    index.add(range(5), rows)
    with pytest.raises(ValueError, match="vectors"):
        index.add([3, 9], bad_vectors()[bad])
    agrees(index, dict(enumerate(rows)), rows[3:4], 5)
    assert (index.live, index.dead) == (5, 0)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")
def test_bad_questions_are_refused(mode: str) -> None:
    index = VectorIndex(D, mode=mode)
    index.add(range(5), unit(5))
    for bad in [*(rows[1:] for rows in bad_vectors()[:5]), unit(2), unit(1, dimension=8)]:
        with pytest.raises(ValueError, match="vectors"):
            index.search(bad, 1)


def test_unknown_mode_is_refused() -> None:
    with pytest.raises(ValueError, match="fast"):
        VectorIndex(D, mode="fast")


# --- which path --------------------------------------------------------------------------------------------


def test_path_follows_the_size_with_hysteresis() -> None:
    index, rows = VectorIndex(D, hnsw_from=100), unit(120)
    index.add(range(99), rows[:99])
    assert index.path == "exact"
    index.add([99], rows[99:100])
    assert index.path == "hnsw"
    index.remove(range(15))
    assert index.path == "hnsw", "85 of 100: not yet below the band"
    index.remove(range(15, 21))
    assert index.path == "exact"
    agrees(index, {key: rows[key] for key in range(21, 100)}, unit(1, 3), 7)
    index.add(range(100, 120), rows[100:])
    assert index.path == "exact", "99 of 100: not yet above the band"
    index.add([0], rows[:1])
    assert (index.path, index.live) == ("hnsw", 100)


def test_modes_force_the_path() -> None:
    exact_index, graph = VectorIndex(D, mode="exact", hnsw_from=5), VectorIndex(D, mode="hnsw")
    exact_index.add(range(50), unit(50))
    graph.add([1], unit(1))
    assert exact_index.search(unit(1), 1)[2] == "exact"
    assert graph.search(unit(1), 1)[2] == "hnsw"
    graph.remove([1])
    assert graph.path == "hnsw"


def test_ids_and_vectors_come_back() -> None:
    for mode in MODES:
        index, rows = VectorIndex(D, mode=mode), unit(6)
        index.add(range(6), rows)
        index.remove([2])
        ids, vectors = index.vectors([5, 2, 77, 0])
        assert ids == [5, 0]
        np.testing.assert_array_equal(vectors, rows[[5, 0]])
        assert sorted(index.ids()) == [0, 1, 3, 4, 5]
        assert index.vectors([2])[1].shape == (0, D)


# --- as a dictionary, by drawn histories -------------------------------------------------------------------

STEP = st.tuples(
    st.sampled_from(["add", "add", "remove", "rebuild"]), st.lists(st.integers(0, 30), max_size=12)
)


@settings(max_examples=60, deadline=None)
@given(mode=st.sampled_from(MODES), steps=st.lists(STEP, max_size=12), seed=st.integers(0, 99))
def test_any_history_agrees_with_a_dictionary(
    mode: str, steps: Sequence[tuple[str, list[int]]], seed: int
) -> None:
    index = VectorIndex(D, mode=mode, hnsw_from=12)
    vector_of: dict[int, Vectors] = {}
    for turn, (kind, ids) in enumerate(steps):
        if kind == "add":
            rows = unit(len(ids), seed * 100 + turn)
            index.add(ids, rows)
            vector_of.update(zip(ids, rows, strict=True))
        elif kind == "remove":
            index.remove(ids)
            vector_of = {key: row for key, row in vector_of.items() if key not in ids}
        else:
            index.rebuild()
            assert index.dead == 0
        assert index.live == len(vector_of)
        assert set(index.ids()) == set(vector_of)
    agrees(index, vector_of, unit(1, seed), 3)
    agrees(index, vector_of, unit(1, seed + 1), 40)


# --- rebuild -----------------------------------------------------------------------------------------------


def test_dead_share_asks_for_a_rebuild() -> None:
    index, rows = VectorIndex(D, mode="hnsw"), unit(100)
    index.add(range(100), rows)
    index.remove(range(20))
    assert (index.dead, index.needs_rebuild()) == (20, False)
    index.add([50], unit(1, 4))
    assert (index.dead, index.needs_rebuild()) == (21, True)
    index.rebuild()
    assert (index.live, index.dead, index.needs_rebuild()) == (80, 0, False)
    index.remove(range(100))
    assert index.search(unit(1), 3)[0] == []


def test_searches_and_changes_go_on_in_a_rebuild() -> None:
    """Nothing that is always there is ever missed, and what changed meanwhile is in the new graph."""
    index, rows = VectorIndex(D, mode="hnsw"), unit(3000)
    index.add(range(2000), rows[:2000])
    index.remove(range(500))
    failures: list[str] = []
    stop = threading.Event()

    def ask() -> None:
        turn = 0
        while not stop.is_set():
            key = 1001 + turn % 50 * 10
            ids, scores, _ = index.search(rows[key : key + 1], 3)
            if ids[0] != key or abs(scores[0] - 1.0) > 1e-5:
                failures.append(f"{key} not found")
            turn += 1

    def change() -> None:
        for key in range(2000, 3000, 10):
            index.add(range(key, key + 10), rows[key : key + 10])
            index.remove([key - 1500])

    askers = [threading.Thread(target=ask) for _ in range(2)]
    changer = threading.Thread(target=change)
    for thread in [*askers, changer]:
        thread.start()
    while changer.is_alive():
        index.rebuild()
    changer.join()
    stop.set()
    for thread in askers:
        thread.join()
    index.rebuild()
    assert failures == []
    gone = set(range(500)) | set(range(500, 1500, 10))
    assert set(index.ids()) == set(range(3000)) - gone
    assert index.dead == 0
    assert index.recall(rows[-200:], 3) >= 0.99


def test_failed_rebuild_leaves_the_old_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    index, rows = VectorIndex(D, mode="hnsw"), unit(50)
    index.add(range(50), rows)
    index.remove(range(25))

    def refuse(*_args: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(index, "_fresh", refuse)
        with pytest.raises(MemoryError):
            index.rebuild()
    index.add([3], rows[3:4])
    index.rebuild()
    assert (index.live, index.dead) == (26, 0)


def test_few_live_among_many_dead_are_all_found() -> None:
    """Where the walk through the graph meets too few live rows, all are read instead."""
    index, rows = VectorIndex(D, mode="hnsw"), unit(2000)
    index.add(range(2000), rows)
    index.remove(range(1990))
    agrees(index, {key: rows[key] for key in range(1990, 2000)}, unit(1, 8), 10)


def test_rewritten_facts_keep_recall() -> None:
    """Near copies of one fact, as repeated updates make them, are what breaks a sparse graph."""
    index, rng = VectorIndex(32, mode="hnsw"), np.random.default_rng(SEED)
    base = unit(200, dimension=32)
    for _ in range(20):
        rows = base + 0.02 * rng.standard_normal(base.shape).astype(np.float32)
        index.add(range(200), rows / np.linalg.norm(rows, axis=1, keepdims=True))
        if index.needs_rebuild():
            index.rebuild()
    assert index.live == 200
    assert index.recall(base, 3) >= 0.99


def test_groups_that_arrive_one_by_one_are_found_after_a_rebuild() -> None:
    """Sorted near copies make a poor graph; the check of recall sees it, a rebuild in mixed order heals."""
    shape = GraphShape(links=4, ef_construction=20, ef_search=20)
    index, rng = VectorIndex(32, mode="hnsw", shape=shape), np.random.default_rng(SEED)
    rows = np.repeat(unit(80, dimension=32), 40, axis=0)
    rows += 0.005 * rng.standard_normal(rows.shape).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    for start in range(0, len(rows), 40):
        index.add(range(start, start + 40), rows[start : start + 40])
    before = index.recall(rows[::11], 3)
    assert before < 0.99
    assert index.needs_rebuild()
    index.rebuild()
    assert index.recall(rows[::11], 3) > before
    assert not index.needs_rebuild(), "nothing has come since: building again would change nothing"


# --- files -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_saved_and_loaded_it_is_the_same(tmp_path: Path, mode: str) -> None:
    index, rows = VectorIndex(D, mode=mode, hnsw_from=100), unit(400)
    index.add(range(300), rows[:300])
    index.remove(range(50))
    index.add(range(50, 60), rows[300:310])
    index.save(tmp_path)
    again = VectorIndex(D, mode=mode, hnsw_from=100)
    again.load(tmp_path)
    vector_of = {key: rows[key + 250] if key < 60 else rows[key] for key in range(50, 300)}
    assert (again.live, again.dead, again.path) == (index.live, index.dead, index.path)
    for seed in range(20):
        agrees(again, vector_of, unit(1, seed), 3)
    again.add(range(300, 400), rows[300:])
    assert again.live == 350


def test_loading_keeps_to_the_mode(tmp_path: Path) -> None:
    index, rows = VectorIndex(D, mode="exact"), unit(30)
    index.add(range(30), rows)
    index.save(tmp_path)
    graph = VectorIndex(D, mode="hnsw")
    graph.load(tmp_path)
    assert (graph.path, graph.live) == ("hnsw", 30)
    agrees(graph, dict(enumerate(rows)), unit(1, 4), 5)


def test_empty_index_is_saved(tmp_path: Path) -> None:
    for mode in ("exact", "hnsw"):
        directory = tmp_path / mode
        directory.mkdir()
        VectorIndex(D, mode=mode).save(directory)
        again = VectorIndex(D, mode=mode)
        again.load(directory)
        again.add([1], unit(1))
        assert again.live == 1


def test_files_of_another_dimension_or_count_are_refused(tmp_path: Path) -> None:
    """hnswlib itself loads them without a word."""
    index, rows = VectorIndex(D, mode="hnsw"), unit(30)
    index.add(range(30), rows)
    index.save(tmp_path)
    with pytest.raises(Damaged, match="dimension 16"):
        VectorIndex(D * 2, mode="hnsw").load(tmp_path)
    kind = json.loads((tmp_path / "kind.json").read_text())
    (tmp_path / "kind.json").write_text(json.dumps({**kind, "dimension": D * 2}))
    with pytest.raises(Damaged, match="rows of 16"):
        VectorIndex(D * 2, mode="hnsw").load(tmp_path)
    (tmp_path / "kind.json").write_text(json.dumps({**kind, "live": 29}))
    other = VectorIndex(D, mode="hnsw")
    with pytest.raises(Damaged, match="29"):
        other.load(tmp_path)
    assert other.live == 0
    (tmp_path / "hnsw.bin").write_bytes(b"short")
    with pytest.raises(Damaged, match="short"):
        other.load(tmp_path)


def test_short_write_is_noticed(tmp_path: Path) -> None:
    """hnswlib ignores write errors; /dev/full refuses every byte."""
    index = VectorIndex(D, mode="hnsw")
    index.add(range(30), unit(30))
    (tmp_path / "hnsw.bin").symlink_to("/dev/full")
    with pytest.raises(OSError, match="partly written"):
        index.save(tmp_path)


# --- memory ------------------------------------------------------------------------------------------------


def test_bytes_per_vector_stay_within_the_bound() -> None:
    index = VectorIndex(384, mode="hnsw")
    rows = unit(3000, dimension=384)
    for start in range(0, 3000, 500):
        index.add(range(start, start + 500), rows[start : start + 500])
    assert 384 * 4 < index.nbytes / index.live <= 2200
