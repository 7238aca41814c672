"""A key with very many edits: what one reader's call costs is bounded, and counted here, not timed."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from event_log import Log
from work import Work, work_of

from lte_runtime.errors import BadRequest, NotFound
from lte_runtime.facts.events import fact_key
from lte_runtime.memory.edit_memory import EditMemory
from lte_runtime.store import inspect, page_tokens
from lte_runtime.store.records import EditPage, EditRecord
from lte_runtime.types import Edit

Opener = Callable[..., EditMemory]
BOSS = fact_key("default", "Acme", "boss")
PAGE = 10

CALLS: dict[str, Callable[[EditMemory], object]] = {
    "get_edit": lambda memory: memory.get_edit("e7"),
    "why_not": lambda memory: memory.why_not("e7"),
    "first page of edits": lambda memory: memory.edits_page(limit=PAGE),
    "first page of history": lambda memory: memory.history_page(BOSS, PAGE),
    "later page of history": lambda memory: memory.history_page(
        BOSS, PAGE, memory.history_page(BOSS, PAGE).next_token
    ),
}


def updated(memory: EditMemory, log: Log, count: int) -> EditMemory:
    """One key with `count` values, one after the other."""
    memory.apply(log.batch(*(log.fact(f"P{n}", id=f"e{n}") for n in range(count))))
    return memory


def walked(fetch: Callable[[str | None], EditPage]) -> list[list[EditRecord]]:
    """All pages, up to a hundred."""
    pages, token = [], None
    for _ in range(100):
        page = fetch(token)
        pages.append(list(page.records))
        token = page.next_token
        if token is None:
            return pages
    raise AssertionError("the pages do not end")


@pytest.mark.parametrize("name", CALLS)
def test_a_call_about_a_key_of_updates_reads_no_more_when_there_are_more(
    open_memory: Opener, name: str
) -> None:
    works = [
        work_of(memory, lambda memory=memory: CALLS[name](memory))  # type: ignore[misc]
        for memory in (updated(open_memory(str(count)), Log(), count) for count in (100, 800))
    ]
    few, many = works
    assert many.rows == few.rows <= 4 * PAGE + 20
    assert many.calls <= few.calls + 5


@pytest.mark.parametrize(
    "call", [lambda memory: memory.history(BOSS), *CALLS.values()], ids=["history", *CALLS]
)
def test_where_something_was_withdrawn_a_call_reads_the_history_once(
    open_memory: Opener, call: Callable[[EditMemory], object]
) -> None:
    works: list[Work] = []
    for count in (100, 800):
        log = Log()
        memory = updated(open_memory(str(count)), log, count)
        memory.apply(log.batch(log.retract(id="e7"), log.retract(id=f"e{count - 3}")))
        works.append(work_of(memory, lambda memory=memory: call(memory)))  # type: ignore[misc]
    few, many = works
    assert many.rows <= 5 * 800  # one call makes two pages
    assert many.calls <= 8.5 * few.calls


def test_a_page_of_withdrawn_edits_of_one_key_folds_it_once(open_memory: Opener, log: Log) -> None:
    memory = updated(open_memory(), log, 400)
    memory.apply(log.batch(*(log.retract(id=f"e{n}") for n in range(50))))
    page = memory.edits_page(limit=1000)
    assert [record.state for record in page.records].count("retracted") == 50
    assert work_of(memory, lambda: memory.edits_page(limit=1000)).rows <= 5 * 450


def test_the_pages_of_a_history_are_the_history(open_memory: Opener, log: Log) -> None:
    memory = updated(open_memory(), log, 25)
    for _ in range(2):  # the second time with something withdrawn
        pages = walked(lambda token: memory.history_page(BOSS, PAGE, token))
        assert [len(page) for page in pages[:-1]] == [PAGE] * (len(pages) - 1)
        assert [record for page in pages for record in page] == memory.history(BOSS)
        memory.apply(log.batch(log.retract(id="e7")))


def test_a_history_that_grows_is_not_shown_twice(open_memory: Opener, log: Log) -> None:
    memory = updated(open_memory(), log, 25)
    first = memory.history_page(BOSS, PAGE)
    memory.apply(log.batch(log.fact("New", id="new"), log.retract(id="e3")))
    second = memory.history_page(BOSS, PAGE, first.next_token)
    assert [record.edit.id for record in second.records] == [f"e{n}" for n in range(14, 4, -1)]


def test_a_token_of_another_key_or_of_nothing_is_refused(open_memory: Opener, log: Log) -> None:
    memory = updated(open_memory(), log, 3)
    memory.apply(log.batch(*(log.fact("x", subject="Other", id=f"o{n}") for n in range(3))))
    other = memory.history_page(fact_key("default", "Other", "boss"), 1).next_token
    for token in (other, page_tokens.token(99), page_tokens.token(-1), "e1", "ö", "AAAAAAAAAAAAAAAA"):
        with pytest.raises(BadRequest, match="page_token"):
            memory.history_page(BOSS, 1, token)
    with pytest.raises(NotFound):
        memory.history_page(fact_key("default", "x", "y"))


@pytest.mark.parametrize("size", [1, 3, 7])
def test_pages_of_edits_end_where_one_id_spans_many_keys(open_memory: Opener, log: Log, size: int) -> None:
    memory = open_memory()
    edits = [log.fact(f"P{n}", subject=f"Firm {n}", id=f"shared-{n % 2}") for n in range(20)]
    memory.apply(log.batch(*edits, log.retract(id="shared-0")))
    pages = walked(lambda token: memory.edits_page(limit=size, after=token))
    targets = [record.edit.target for page in pages for record in page]
    assert targets == [None, *(f"P{n}" for n in reversed(range(20)))]


def test_an_event_of_two_sources_is_two_edits(open_memory: Opener, log: Log) -> None:
    """Publishers that number their events use the same ids."""
    memory = open_memory()
    edits = [log.fact(name, id="1", source={"uri": name}) for name in ("Ann", "Bo")]
    memory.apply(log.batch(*edits, log.retract(id="none")))
    listed = [(record.edit.target, record.positions) for record in memory.list_edits()[1:]]
    assert listed == [("Bo", (edits[1].position,)), ("Ann", (edits[0].position,))]
    assert memory.get_edit("1").edit.target == "Bo"


def test_edits_that_collapsed_are_listed_once(open_memory: Opener, log: Log) -> None:
    memory = open_memory()
    edits = [log.fact("Ann", id=f"a{n}", revision=1) for n in range(5)]
    memory.apply(log.batch(*edits, log.fact("Bo", id="b", revision=2)))
    for size in (1, 2, 10):
        pages = walked(lambda token, size=size: memory.edits_page(limit=size, after=token))  # type: ignore[misc]
        assert [record.edit.id for page in pages for record in page] == ["b", "a0"]
    assert memory.get_edit("a3").collapsed == ("a1", "a2", "a3", "a4")
    assert memory.get_edit("a3").positions == tuple(edit.position for edit in edits)


def test_a_token_of_the_version_before_is_an_edit_id(open_memory: Opener, log: Log) -> None:
    memory = updated(open_memory(), log, 5)
    assert [record.edit.id for record in memory.edits_page(limit=2, after="e3").records] == ["e2", "e1"]
    with pytest.raises(NotFound):
        memory.edits_page(after="x")


def test_a_list_that_finds_little_stops_after_so_many_rows(
    open_memory: Opener, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = open_memory()
    memory.apply(log.batch(log.fact("Ann", subject="Rare", id="rare")))
    updated(memory, log, 95)
    monkeypatch.setattr(inspect, "SCANNED_PER_PAGE", PAGE)
    pages = walked(lambda token: memory.edits_page(subject="Rare", after=token))
    assert (len(pages), [record.edit.id for record in pages[-1]]) == (10, ["rare"])
    assert [record.edit.id for record in memory.list_edits(subject="Rare")] == ["rare"]


def test_a_page_of_edits_folds_only_so_many(
    open_memory: Opener, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = open_memory()
    edits: list[Edit] = []
    for n in range(30):
        edits += [log.fact("x", subject=f"Firm {n}", id=f"f{n}"), log.retract(id=f"f{n}")]
    memory.apply(log.batch(*edits))
    monkeypatch.setattr(inspect, "FOLDED_PER_PAGE", 5)
    pages = walked(lambda token: memory.edits_page(after=token))
    assert [record.edit.op for page in pages for record in page] == ["retract", "assert"] * 30
    assert max(len(page) for page in pages) <= 2 * 5 + 2


def test_an_edit_lists_its_first_deliveries(open_memory: Opener, log: Log) -> None:
    memory = open_memory()
    edits = [log.fact("Ann", id="a") for _ in range(150)]
    memory.apply(log.batch(*edits))
    first = tuple(edit.position for edit in edits[: inspect.MOST_POSITIONS])
    assert memory.get_edit("a").positions == first
    assert work_of(memory, lambda: memory.get_edit("a")).rows < 120


def test_a_set_knows_all_its_members(open_memory: Opener, log: Log) -> None:
    memory = open_memory()
    old = log.fact("Old", id="old")
    memory.apply(log.batch(old, *(log.fact(f"M{n % 4}", id=f"m{n}", cardinality="many") for n in range(6))))
    states = {record.edit.id: record.state for record in memory.history_page(BOSS).records}
    superseded = {"old", "m0", "m1"}
    assert states == {name: "superseded" if name in superseded else "current" for name in states}
    assert memory.why_not("m0").winner_id == "m5"


def test_a_question_about_a_key_of_many_values_reads_the_one_that_holds(open_memory: Opener) -> None:
    works: list[Work] = []
    for count in (100, 800):
        memory = updated(open_memory(str(count)), Log(), count)
        works.append(work_of(memory, lambda: memory.facts_of_keys([1])))  # noqa: B023
    few, many = works
    assert (few.rows, many.rows) == (1, 1)
    assert many.steps <= few.steps + 50
