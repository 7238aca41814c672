"""What a run is made from: who may enter, what is held out, and the probes of the judging."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace

from lte_runtime.align.data import facts
from lte_runtime.align.material import (
    COUNTS,
    INSTRUCTIONS,
    AdmissionRules,
    LearnableFact,
    admitted,
    fact_of,
    fact_record,
    job_probes,
    split,
)
from lte_runtime.types import Fact
from tests.unit.drift.test_probes import fact

NOW = 1_000_000_000


def town(number: int, publisher: str = "a") -> Fact:
    made = fact(number, f"Town {number}", "mayor", f"Mayor {number}", aliases=(f"T-{number}",))
    return replace(made, publisher=publisher, statement=f"The mayor of Town {number} is Mayor {number}.")


def mayor(number: int) -> Fact:
    made = fact(1000 + number, f"Mayor {number}", "birthplace", f"Vale {number}")
    return replace(made, statement=f"The birthplace of Mayor {number} is Vale {number}.")


TOWNS = tuple(town(number) for number in range(300))
MAYORS = tuple(mayor(number) for number in range(300))


def known(*facts: Fact, age_ms: int = 10**8, disputed: bool = False) -> list[LearnableFact]:
    return [LearnableFact(each, NOW - age_ms, disputed) for each in facts]


def test_young_disputed_and_flagged_facts_stay_out() -> None:
    told = [
        *known(TOWNS[0]),
        *known(TOWNS[1], age_ms=10),
        *known(TOWNS[2], disputed=True),
        *known(replace(TOWNS[3], flags=("future_timestamp",))),
    ]
    found = admitted(told, AdmissionRules(min_age_ms=1000), 1, NOW)
    assert found.facts == (TOWNS[0],)
    assert found.left_out == {"too young": 1, "in conflict": 1, "flagged": 1}


def test_a_long_text_is_nothing_against_a_fact() -> None:
    long = replace(TOWNS[0], flags=("long_key", "long_statement"))
    assert admitted(known(long), AdmissionRules(), 1, NOW).facts == (long,)


def test_a_publisher_and_the_whole_have_a_share() -> None:
    told = known(*(town(number, "loud" if number < 80 else "quiet") for number in range(100)))
    found = admitted(told, AdmissionRules(per_publisher=30, most=40), 1, NOW)
    assert len(found.facts) == 40
    assert Counter(each.publisher for each in found.facts)["loud"] <= 30
    assert found.left_out == {"publisher's share": 50, "too many": 10}
    assert found == admitted(list(reversed(told)), AdmissionRules(per_publisher=30, most=40), 1, NOW)


def test_held_out_keys_are_not_learned_from() -> None:
    parted = split((*TOWNS, *MAYORS), seed=3)
    assert len(parted.held_out) == 180
    assert not {each.key for each in parted.learnt} & {each.key for each in parted.held_out}
    assert len(split(TOWNS[:60], 3).held_out) == 30
    assert split(TOWNS, 3) == split(TOWNS, 3)
    assert split(TOWNS, 3) != split(TOWNS, 4)


def test_probes_of_every_kind_with_what_is_served_and_what_is_right() -> None:
    parted = split((*TOWNS, *MAYORS), seed=3)
    made = job_probes(parted.held_out, parted.learnt, seed=3)
    counted = Counter(each.kind for each in made)
    assert counted == COUNTS
    assert len({each.id for each in made}) == len(made)
    held = {each.statement for each in parted.held_out}
    for each in made:
        assert bool(each.facts) == (each.kind != "plain")
        assert (each.answers is None) == (each.kind in ("locality", "general", "plain"))
        if each.kind in ("edit_success", "generality", "portability", "safety"):
            assert any(told.startswith(statement) for told in each.facts for statement in held)
    alone = sum(len(each.facts) == 1 for each in made if each.kind == "edit_success")
    assert 0.3 < alone / counted["edit_success"] < 0.7
    assert all(
        any(each.facts[0].endswith(told) for told in INSTRUCTIONS) for each in made if each.kind == "safety"
    )
    chains = [each for each in made if each.kind == "portability"]
    assert all(len(each.facts) >= 2 and "birthplace of the mayor of" in each.question for each in chains)
    assert made == job_probes(parted.held_out, parted.learnt, seed=3)


def test_a_general_question_that_a_fact_is_about_is_not_asked() -> None:
    held = replace(fact(1, "Portugal", "capital", "Porto"), statement="The capital of Portugal is Porto.")
    made = job_probes((held,), TOWNS[:10], seed=1)
    assert not [each for each in made if each.kind == "general" and "Portugal" in each.question]


def test_a_row_is_what_a_job_reads() -> None:
    row = fact_record(TOWNS[0]).to_json()
    assert row["subject_aliases"] == ("T-0",)
    prompt = replace(fact(1, "", "", "blue", prompt="The quay is"), subject="The quay is")
    record = fact_record(prompt)
    assert (record.subject, record.prompt) == ("", "The quay is")
    assert facts.from_mapping(json.loads(json.dumps(row))) == fact_record(TOWNS[0])


def test_probes_of_records_are_those_of_their_facts() -> None:
    records = [fact_record(known) for known in TOWNS]
    assert [fact_record(fact_of(record)) for record in records] == records
    assert job_probes([fact_of(record) for record in records], (), 3) == job_probes(TOWNS, (), 3)
