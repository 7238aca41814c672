"""The worker: how batches are chosen, what a failing batch does, and what a closed worker does."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lte_runtime.answer.engine.rows import GenerationRow
from lte_runtime.answer.engine.versions import Version, Versions
from lte_runtime.answer.engine.worker import PendingRequest, Worker, next_batch
from lte_runtime.errors import Overloaded, Retry
from lte_runtime.types import GenerateRequest


def a_row(length: int = 1, *, adapter: bool = True, limit: int = 1) -> GenerationRow:
    request = GenerateRequest((1,) * length, adapter=adapter, max_new_tokens=limit)
    return GenerationRow(request, lambda tokens: "x" * len(tokens), ())


def jobs(*shapes: tuple[int, bool]) -> list[PendingRequest]:
    version = Version(None, None)
    return [
        PendingRequest(a_row(length, adapter=adapter), version, arrived=0.0) for length, adapter in shapes
    ]


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 50), st.booleans()), min_size=1, max_size=30),
    st.integers(1, 8),
)
def test_a_batch_holds_the_oldest_and_never_mixes(shapes: list[tuple[int, bool]], most: int) -> None:
    waiting = jobs(*shapes)
    batch = next_batch(waiting, most)
    assert batch[0] is waiting[0]
    assert len(set(map(id, batch))) == len(batch) <= most
    assert all(job.request.adapter == batch[0].request.adapter for job in batch)
    assert len(batch) == 1 or batch[0].request.adapter


def test_a_base_row_runs_alone() -> None:
    assert len(next_batch(jobs((9, False), (9, False), (9, True)), 8)) == 1


def test_neighbours_are_the_nearest_in_length() -> None:
    batch = next_batch(jobs((20, True), (90, True), (22, True), (5, False), (17, True)), 3)
    assert [len(job.request.token_ids) for job in batch] == [20, 22, 17]


def finish(rows: Sequence[GenerationRow], settled: Callable[[GenerationRow], None]) -> None:
    for row in rows:
        row.push(1)
        settled(row)


def worker(
    run: Callable[[Sequence[GenerationRow], Callable[[GenerationRow], None]], None],
    queue_limit: int = 10,
    versions: Versions | None = None,
) -> Worker:
    return Worker(
        lambda _, rows, settled: run(rows, settled),
        versions=versions or Versions(None),
        max_batch=4,
        queue_limit=queue_limit,
    )


def test_a_failing_batch_fails_its_rows_and_the_worker_goes_on() -> None:
    calls: list[int] = []

    def run(rows: Sequence[GenerationRow], settled: Callable[[GenerationRow], None]) -> None:
        calls.append(len(rows))
        if len(calls) == 1:
            raise RuntimeError("out of memory")
        finish(rows, settled)

    made = worker(run)
    with pytest.raises(RuntimeError, match="out of memory"):
        made.submit(a_row()).result(timeout=10)
    assert made.submit(a_row()).result(timeout=10).finish == "length"
    made.close()


def test_full_queue_refuses_and_close_fails_what_waits() -> None:
    busy, release = threading.Event(), threading.Event()

    def run(rows: Sequence[GenerationRow], settled: Callable[[GenerationRow], None]) -> None:
        busy.set()
        release.wait(10)
        finish(rows, settled)

    made = worker(run, queue_limit=2)
    first = made.submit(a_row(adapter=False))
    assert busy.wait(10)
    waiting = [made.submit(a_row()) for _ in range(2)]
    with pytest.raises(Overloaded, match="2 questions wait"):
        made.submit(a_row())
    assert made.stats().refused == 1
    assert made.queue_depth == 2
    closer = threading.Thread(target=made.close)
    closer.start()
    for future in waiting:
        assert isinstance(future.exception(timeout=10), Retry)
    release.set()
    closer.join(10)
    assert first.result(timeout=10).finish == "length"
    with pytest.raises(Retry):
        made.submit(a_row())


def test_a_full_queue_makes_room_from_callers_who_are_gone() -> None:
    busy, release = threading.Event(), threading.Event()

    def run(rows: Sequence[GenerationRow], settled: Callable[[GenerationRow], None]) -> None:
        busy.set()
        release.wait(10)
        finish(rows, settled)

    made = worker(run, queue_limit=1)
    made.submit(a_row(adapter=False))
    assert busy.wait(10)
    gone = made.submit(
        GenerationRow(GenerateRequest((1,), True, 1, cancelled=lambda: True), lambda _: "", ())
    )
    kept = made.submit(a_row())
    assert gone.result(timeout=10).finish == "cancelled"
    with pytest.raises(Overloaded):
        made.submit(a_row())
    release.set()
    assert kept.result(timeout=10).finish == "length"
    made.close()


def test_a_cancelled_future_is_dropped_before_the_model() -> None:
    busy, release = threading.Event(), threading.Event()
    seen: list[int] = []

    def run(rows: Sequence[GenerationRow], settled: Callable[[GenerationRow], None]) -> None:
        seen.append(len(rows))
        busy.set()
        release.wait(10)
        finish(rows, settled)

    made = worker(run)
    made.submit(a_row(adapter=False))
    assert busy.wait(10)
    gone, kept = made.submit(a_row()), made.submit(a_row())
    assert gone.cancel()
    release.set()
    assert kept.result(timeout=10).finish == "length"
    assert seen == [1, 1]
    made.close()
