"""The steps of the demo, in order. Each shows one promise on the running daemon and says whether it held."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from lte_runtime.scoring import contains
from ops.demo.realign import realignment
from ops.demo.session import (
    DEAD_LETTERS,
    ERRORS,
    Json,
    Session,
    citation_ids,
    connect,
    is_right,
    marks,
    until,
)

Step = Callable[[Session], bool]
# What the shipped model and gate are measured to do, not what they ought to: see docs/evaluation.md.
MIN_FOUND, MIN_ANSWERED = 0.90, 0.75
FAST_QUESTIONS = 24


def old_answers(s: Session) -> bool:
    """Before any event: what the base model believes, old or wrong, and not what the events will say."""
    held = []
    for case in s.script["old_then_new"]:
        answer, ms = s.ask(case["question"])
        own = answer["scope"] == "base" and bool(answer["text"])
        right = own and not contains(answer["text"], case["expected"])
        held.append(s.check("base, before", case["question"], answer, ms, right))
    return all(held)


def first_event(s: Session) -> bool:
    """One event, and the time from its publication to the first right answer."""
    case = s.script["old_then_new"][0]
    answers: list[tuple[Json, float]] = []

    def right() -> bool:
        answers.append(s.ask(case["question"]))
        return is_right(answers[-1][0], case["expected"])

    s.publish(list(s.events)[-1])  # connects the producer
    begin = time.perf_counter()
    s.publish(case["event_id"])
    acknowledged = (time.perf_counter() - begin) * 1e3
    until(right, "the first right answer")
    total_ms = (time.perf_counter() - begin) * 1e3
    event = s.events[case["event_id"]]
    fact = f"{event['relation']} of {event['subject']} is {event['target']}"
    s.show(f"event: {fact} (from {event['valid_from'][:10]}, {event['source']['uri']})")
    s.show(
        f"publish to first right answer: [bold]{total_ms:.0f} ms[/bold] "
        f"(Kafka's acknowledgement {acknowledged:.0f} ms, asked {len(answers)}x)"
    )
    return s.check(
        "after event", case["question"], *answers[-1], ok=case["event_id"] in citation_ids(answers[-1][0])
    )


def all_events(s: Session) -> bool:
    """All other facts but those that later steps bring."""
    later = {s.script["retraction"]["event_id"], s.script["conflict"]["winner"]}
    ids = [name for name in s.events if name not in later and name not in s.published]
    begin = time.perf_counter()
    positions = s.publish(*ids)
    s.client.retrieve("Is everything there?", at_least=marks(positions), timeout_s=120.0)
    seconds = time.perf_counter() - begin
    s.show(
        f"{len(ids)} events published and retrievable in {seconds:.2f} s ({len(ids) / seconds:.0f} a second)"
    )
    held = [
        s.expect("after event", case["question"], case["expected"], [case["event_id"]])
        for case in s.script["old_then_new"][1:]
    ]
    return all(held)


def ways_to_ask(s: Session) -> bool:
    """A paraphrase, a declared alias, a question over two events, a set of values."""
    held = []
    for kind in ("paraphrase", "alias", "two_hop"):
        case = s.script[kind]
        ids = case.get("event_ids") or [case["event_id"]]
        held.append(s.expect(kind.replace("_", " "), case["question"], case["expected"], ids))
    case = s.script["set_valued"]
    answer, ms = s.ask(case["question"])
    right = any(value in answer["text"] for value in case["expected_any"])
    right = right and set(citation_ids(answer)) == set(case["event_ids"])
    held.append(s.check("set of values", case["question"], answer, ms, right))
    return all(held)


def unrelated(s: Session) -> bool:
    """A question that no edit is about: token for token the base model's answer."""
    question = s.script["unrelated"]["question"]
    base, _ = s.ask(question, scope="base")
    answer, ms = s.ask(question)
    same = answer["scope"] == "base" and answer["token_ids"] == base["token_ids"] and not answer["adapter"]
    right = contains(answer["text"], s.script["unrelated"]["expected"])
    return s.check("unrelated", question, answer, ms, same and right)


def conflict(s: Session) -> bool:
    """Two publishers, one key: the declared order decides, and `why-not` names the winner."""
    case = s.script["conflict"]
    first = [s.events[case["loser"]]["target"]]
    held = [s.expect("conflict, first", case["question"], first, [case["loser"]])]
    positions = s.publish(case["winner"])
    held.append(s.expect("conflict, second", case["question"], case["expected"], [case["winner"]], positions))
    why = s.client.why_not(case["loser"])
    s.show(f"why not {case['loser']}: {why['reason']} (winner {why['winner_id']})")
    return all(held) and why["winner_id"] == case["winner"]


def retraction(s: Session) -> bool:
    """A retraction brings the fact before it back; where there was none, the base model's own answer."""
    case = s.script["retraction"]
    positions = s.publish(case["event_id"])
    held = [s.expect("before retraction", case["question"], case["before"], [case["event_id"]], positions)]
    positions = s.send(case["publish"])
    restored = [case["restored_event_id"]]
    held.append(s.expect("after retraction", case["question"], case["restored_to"], restored, positions))
    case = s.script["retraction_to_base"]
    held.append(s.expect("before retraction", case["question"], case["before"], [case["event_id"]]))
    base, _ = s.ask(case["question"], scope="base")
    answer, ms = s.ask(case["question"], at_least=s.send(case["publish"]))
    same = answer["scope"] == "base" and answer["token_ids"] == base["token_ids"]
    right = same and not contains(answer["text"], case["before"])
    held.append(s.check("after retraction", case["question"], answer, ms, right))
    return all(held)


def malformed(s: Session) -> bool:
    """A record that is no event: quarantined, copied to the dead-letter topic, and in nobody's way."""
    (sent,) = s.send(s.script["malformed"])
    position = (sent.partition, sent.offset)
    letters: list[Json] = []

    def has_arrived() -> bool:
        letters[:] = [letter for letter in s.dead_letters() if _position(letter) == position]
        return bool(letters)

    ms = until(has_arrived, "the dead letter")
    s.show(f"in {DEAD_LETTERS} after {ms:.0f} ms: {letters[0][ERRORS + 'exception.message']}")
    return not s.client.status()["reasons"]


def kill_and_restart(s: Session) -> bool:
    """SIGKILL; the same state, the same answers, nothing applied twice."""
    questions = [case["question"] for case in _questions(s)[:12]]
    before = [_essence(s.ask(question)[0]) for question in questions]
    counts = _counts(s)
    s.client.close()
    s.stack.kill_daemon()
    seconds = s.stack.start_daemon()
    s.client = connect(s.stack)
    after = [_essence(s.ask(question)[0]) for question in questions]
    same, again = before == after, _counts(s)
    s.show(f"kill -9, READY again after {seconds:.1f} s; same {len(questions)} answers: {same}; {again}")
    return same and counts == again


def more_questions(s: Session) -> bool:
    """Many further questions: which facts were found, and what the small model made of them."""
    cases = _questions(s)
    facts_cited: list[bool] = []
    right: dict[str, list[bool]] = {}
    for case in cases:
        ids = case.get("event_ids") or [case["event_id"]]
        held = s.expect(case["kind"].replace("_", " "), case["question"], case["expected"], ids)
        right.setdefault(case["kind"], []).append(held)
        facts_cited.append(set(ids) <= set(s.rows[-1].citation_ids))
    for kind, verdicts in right.items():
        s.show(f"{kind.replace('_', ' ')}: {sum(verdicts)} of {len(verdicts)} right")
    answered = [held for verdicts in right.values() for held in verdicts]
    s.show(f"facts found: {sum(facts_cited)} of {len(cases)}; promised: at least {MIN_FOUND:.0%}")
    s.show(
        f"answered right from them: {sum(answered)} of {len(cases)}; promised: at least {MIN_ANSWERED:.0%}"
    )
    return sum(facts_cited) >= MIN_FOUND * len(cases) and sum(answered) >= MIN_ANSWERED * len(cases)


@dataclass(frozen=True)
class Named:
    """A step with the line that announces it. `minutes`: it takes some, and a fast demo leaves it out."""

    title: str
    run: Step
    minutes: bool = False


STEPS: tuple[Named, ...] = (
    Named("The base model's old answers, before any event", old_answers),
    Named("One event on Kafka, one right answer", first_event),
    Named("All events", all_events),
    Named("Paraphrase, alias, two hops, a set of values", ways_to_ask),
    Named("An unrelated question stays with the base model", unrelated),
    Named("A conflict of two publishers", conflict),
    Named("Retractions restore", retraction),
    Named("A malformed event", malformed),
    Named("kill -9 and restart", kill_and_restart),
    Named("More questions", more_questions),
    Named("Drift, re-alignment, a swap under questions", realignment, minutes=True),
)


def _questions(s: Session) -> list[Json]:
    """The script's further questions; those of a kind spread evenly when only some are asked."""
    cases: list[Json] = s.script["questions"]
    if not s.fast:
        return cases
    return cases[:: max(1, len(cases) // FAST_QUESTIONS)]


def _position(headers: Json) -> tuple[int, int]:
    return int(headers[ERRORS + "partition"]), int(headers[ERRORS + "offset"])


def _essence(answer: Json) -> tuple[str, str, tuple[str, ...]]:
    return answer["text"], answer["scope"], tuple(citation_ids(answer))


def _counts(s: Session) -> str:
    memory = s.client.status()["memory"]
    return f"{memory['edits']} edits, {memory['current_facts']} current facts, {memory['keys']} keys"
