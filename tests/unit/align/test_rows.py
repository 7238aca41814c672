"""The stream of rows: parallel, seeded, in its shares, frozen by hash."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from random import Random

import pytest

from lte_runtime.align import presets
from lte_runtime.align.data import dataset
from lte_runtime.align.data.cases import GROUPS, CaseKind
from lte_runtime.align.data.dataset import Mixture, Own, RowTally, TrainingMaterial, TrainingRow
from lte_runtime.align.data.facts import FactRecord, invented
from lte_runtime.align.data.pools import KnownFact, Pool, by_words
from lte_runtime.align.stock.relations import FOREIGN_RELATIONS
from lte_runtime.errors import Damaged

LIVE = tuple(
    replace(fact, source="edits") for seed in range(6) for fact in invented(Random(seed), f"edit{seed}")
)
KNOWN = tuple(
    KnownFact("capital", country, city, (f"What is the capital of {country}?",))
    for country, city in (("France", "Paris"), ("Spain", "Madrid"))
)
MATERIAL = TrainingMaterial(Pool.of(LIVE, by_words), None, KNOWN)
MIXTURE = Mixture(dict.fromkeys(CaseKind, 1.0), invented=0.4, replay=0.0)


def sure_of_everything(questions: Sequence[str], _measured: Collection[str]) -> list[Own]:
    return [Own(f"own {text}", 0.9) for text in questions]


def junk(questions: Sequence[str], _measured: Collection[str]) -> list[Own]:
    return [Own(text, 0.1) for text in questions]


def rows(
    count: int = 300, seed: int = 0, material: TrainingMaterial = MATERIAL, tally: RowTally | None = None
) -> list[TrainingRow]:
    drawn = islice(dataset.cases(material, MIXTURE, seed), count)
    return list(dataset.rows(drawn, sure_of_everything, MIXTURE, tally or RowTally()))


def test_every_case_is_a_row_with_facts_and_one_without() -> None:
    pairs: dict[int, list[TrainingRow]] = defaultdict(list)
    for row in rows():
        pairs[row.case].append(row)
    assert len(pairs) == 300
    for told, bare in pairs.values():
        assert told.with_facts
        assert not bare.with_facts
        assert told.question == bare.question
        assert bare.own
        assert bare.answer == f"own {bare.question}"
        assert told.own == (told.kind not in GROUPS["in scope"])
        assert bare.edit_ids == ()


def test_equal_seeds_draw_equal_rows_and_the_stream_is_lazy() -> None:
    assert rows(60) == rows(60)
    assert rows(60) == rows(90)[: len(rows(60))]
    assert rows(60) != rows(60, seed=1)


def test_rows_say_where_they_come_from() -> None:
    made = [row for row in rows() if row.with_facts]
    sources = Counter(row.source for row in made)
    assert sources["edits"] > 60
    assert sources["invented"] > 60
    known = {fact.edit_id for fact in LIVE}
    for row in made:
        ids = {edit for edit in row.edit_ids if not edit.startswith("invented")}
        assert ids <= known
        if row.source == "edits" and row.kind is CaseKind.VERBATIM:
            assert ids
    assert 0.2 < sum(row.exchanged for row in made if row.source == "edits") / sources["edits"] < 0.7


def test_kinds_that_the_live_facts_cannot_make_keep_their_share() -> None:
    """No alias, no chain, no relation: made-up facts stand in."""
    bare = FactRecord("e1", "", "", "Ann", "Who leads it? Ann.", prompt="Who leads it?")
    made = rows(400, material=TrainingMaterial(Pool.of([bare], by_words), None, KNOWN))
    kinds = Counter(row.kind for row in made if row.with_facts)
    assert kinds[CaseKind.ALIAS] > 15
    assert kinds[CaseKind.TWO_HOPS] > 10


def test_replayed_facts_are_drawn_in_their_share() -> None:
    anchor = Pool.of([replace(fact, source="replay") for fact in invented(Random(99), "old")], by_words)
    mixture = replace(MIXTURE, invented=0.2, replay=0.5)
    drawn = islice(dataset.cases(TrainingMaterial(MATERIAL.edits, anchor, KNOWN), mixture, 0), 300)
    sources = Counter(case.source for case in drawn)
    assert 0.3 < sources["replay"] / 300 < 0.6


def test_facts_in_words_of_their_own_are_drawn_in_their_share() -> None:
    plain = [
        FactRecord(f"p{n}", f"Ship {n}", "captain", f"Ann {n}", f"The captain of Ship {n} is Ann {n}.")
        for n in range(9)
    ]
    worded = replace(plain[0], edit_id="w", subject="Ketch", statement="Captain Ann 0 has taken over Ketch.")
    mixture = Mixture({CaseKind.VERBATIM: 1.0}, invented=0.0, exchange=0.0, worded=0.8, alone=1.0)
    drawn = list(
        islice(dataset.cases(TrainingMaterial(Pool.of([*plain, worded], by_words)), mixture, 0), 300)
    )
    assert sum(case.edit_ids == ("w",) for case in drawn) / 300 == pytest.approx(0.82, abs=0.07)
    assert {len(case.facts) for case in drawn} == {1}


def test_a_share_of_the_cases_in_scope_is_put_to_the_model_without_facts() -> None:
    asked: list[str] = []

    def ask(questions: Sequence[str], _measured: Collection[str]) -> list[Own]:
        asked.extend(questions)
        return sure_of_everything(questions, ())

    drawn = list(islice(dataset.cases(MATERIAL, replace(MIXTURE, plain=0.2), 0), 300))
    made = list(dataset.rows(drawn, ask, MIXTURE, RowTally()))
    in_scope = [case for case in drawn if case.answer is not None]
    assert sum(case.plain for case in in_scope) / len(in_scope) == pytest.approx(0.2, abs=0.08)
    assert all(case.plain for case in drawn if case.answer is None)
    assert set(asked) == {case.question for case in drawn if case.plain}
    assert sum(row.with_facts for row in made) == 300
    assert sum(not row.with_facts for row in made) == sum(case.plain for case in drawn)


def test_a_share_of_what_the_model_answers_itself_is_put_to_it_without_facts() -> None:
    mixture = replace(MIXTURE, plain_own=0.3)
    drawn = list(islice(dataset.cases(MATERIAL, mixture, 0), 400))
    out_of_scope = [case for case in drawn if case.answer is None]
    assert sum(case.plain for case in out_of_scope) / len(out_of_scope) == pytest.approx(0.3, abs=0.1)
    own_rows = [row for row in dataset.rows(drawn, sure_of_everything, mixture, RowTally()) if row.own]
    assert sum(row.with_facts for row in own_rows) == len(out_of_scope), "all have a row with the facts"


def test_answers_that_the_model_is_not_sure_of_are_left_out_text_last() -> None:
    tally = RowTally()
    drawn = islice(dataset.cases(MATERIAL, MIXTURE, 0), 200)
    made = list(dataset.rows(drawn, lambda qs, _measured: [Own(text, 0.4) for text in qs], MIXTURE, tally))
    assert {row.kind for row in made if row.own} == {CaseKind.LANGUAGE}
    assert tally.dropped["unsure"] + len(made) == 400
    assert sum(tally.rows.values()) == len(made)
    noise = list(dataset.rows(islice(dataset.cases(MATERIAL, MIXTURE, 0), 200), junk, MIXTURE, RowTally()))
    assert not [row for row in noise if row.own]


def test_frozen_rows_come_back_with_their_manifest(tmp_path: Path) -> None:
    tally = RowTally()
    made = rows(50, tally=tally)
    manifest = dataset.write_rows(iter(made), tmp_path, {"seed": 0}, tally)
    found = dataset.read_rows(tmp_path)
    assert found == (made, manifest)
    assert manifest["rows"] == len(made) == sum(manifest["kinds"].values())
    live = {fact.edit_id for fact in LIVE}
    assert manifest["edit_ids"]
    assert set(manifest["edit_ids"]) <= live


def test_rows_that_were_changed_are_refused(tmp_path: Path) -> None:
    tally = RowTally()
    dataset.write_rows(iter(rows(5, tally=tally)), tmp_path, {}, tally)
    path = tmp_path / dataset.ROWS
    path.write_text(path.read_text().replace("own ", "owN ", 1))
    with pytest.raises(Damaged, match="hash"):
        dataset.read_rows(tmp_path)


def test_rows_without_a_manifest_are_no_data_set(tmp_path: Path) -> None:
    (tmp_path / dataset.ROWS).write_text(json.dumps({}))
    assert dataset.read_rows(tmp_path) is None


@pytest.mark.parametrize("name", sorted(presets.PRESETS))
def test_presets_draw_every_kind(name: str) -> None:
    mixture = presets.preset(name).mixture
    assert set(mixture.kinds) == set(CaseKind)
    assert sum(mixture.kinds.values()) == pytest.approx(1.0)


def test_near_questions_have_a_bar_of_their_own() -> None:
    strict = Mixture({CaseKind.SAME_SUBJECT: 1.0}, sure=0.5)
    drawn = list(islice(dataset.cases(MATERIAL, strict, 0), 50))
    assert list(dataset.rows(drawn, junk, strict, RowTally())) == []
    measured_questions: set[str] = set()

    def ask(questions: Sequence[str], measured: Collection[str]) -> list[Own]:
        measured_questions.update(measured)
        return junk(questions, measured)

    near_rows = list(dataset.rows(drawn, ask, replace(strict, near_sure=0.0), RowTally()))
    assert not measured_questions, "how sure the model is does not matter there"
    assert len(near_rows) == 100
    assert all(row.own for row in near_rows)


def test_a_share_of_the_made_up_worlds_is_in_other_languages() -> None:
    nouns = {relation.noun for relation in FOREIGN_RELATIONS}
    worlds = [invented(Random(seed), "w", foreign=0.5) for seed in range(200)]
    foreign = sum(any(fact.relation in nouns for fact in world) for world in worlds)
    assert 70 < foreign < 130
    assert not any(fact.relation in nouns for seed in range(50) for fact in invented(Random(seed), "w"))


def test_everyday_facts_bring_their_questions_and_near_ones() -> None:
    for seed in range(60):
        world = invented(Random(seed), "w", everyday=1.0)
        assert len(world) == 9
        for fact in world:
            assert fact.rephrased
            assert all(fact.subject in text for text in (*fact.rephrased, *fact.near))
            answered = {text for other in world if other.subject == fact.subject for text in other.rephrased}
            assert not answered & set(fact.near), "a fact of the subject would answer it"
    drawn = islice(
        dataset.cases(MATERIAL, Mixture({CaseKind.SAME_SUBJECT: 1.0}, invented=1.0, everyday=1.0), 0), 40
    )
    assert all(case.answer is None for case in drawn)
