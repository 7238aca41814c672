"""The step that drifts: a burst of facts like none before, and an alignment to them while questions go on."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from lte_runtime.errors import LteError
from ops.demo.session import (
    HERE,
    Json,
    Session,
    TableRow,
    citation_ids,
    cited,
    connect,
    is_right,
    marks,
    until,
)

# What the shipped model and the preset `demo` must reach: see docs/evaluation.md.
LEAST_GAIN = 0.10
DRIFT_S, RUN_S = 180.0, 900.0
RESAMPLES, SEED = 4000, 0
SHOWN = 6
BASE = "the base model"
PAUSE_S = 0.2


@dataclass(frozen=True, slots=True)
class BurstFact:
    """A fact of the burst with a question for it. `late` ones are told once the training set is frozen."""

    family: str
    late: bool
    question: str
    event: Json


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer to a question of the quiz. `text` is the model's own, before any value was put right in it;
    `fact_cited`: the fact is among the citations.
    """

    text: str
    adapter: str
    right: bool
    fact_cited: bool
    answer: Json
    milliseconds: float


@dataclass
class SwapAnswers:
    """The outcome of the questions beside the swap: the adapters of the answers in order, and what failed."""

    adapters: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)


def burst() -> list[BurstFact]:
    """The facts of `burst.jsonl`."""
    lines = (HERE / "burst.jsonl").read_text(encoding="utf-8").splitlines()
    return [BurstFact(**json.loads(line)) for line in lines]


def realignment(s: Session) -> bool:
    """Burst, reason, run, verdict, swap, scores; as promised only if the new adapter serves and is better."""
    facts = burst()
    if not drifted(s, [fact.event for fact in facts if not fact.late]):
        return False
    run_id = started(s)
    quiz = [fact for fact in facts if fact.late]
    before: list[Reply] = []
    progress = ProgressLine(s)
    with questions(s, [fact.question for fact in quiz]) as swap_answers:
        for run in s.client.watch_realignment(run_id, timeout_s=RUN_S):
            progress.show(run)
            if run["state"] == "training" and not before:
                publish(s, [fact.event for fact in quiz])
                before = ask(s, quiz)
        if before and run["state"] == "done":
            after_swap(swap_answers, run["adapter"])
    verdict(s, run)
    if run["state"] != "done" or not before:
        s.show(f"[yellow]{run['state']}, because:[/yellow] {run['message']}")
        return False
    return swapped(s, swap_answers, run) and better(s, quiz, before, ask(s, quiz))


def publish(s: Session, events: Sequence[Json]) -> None:
    """Tell facts and wait until they can be found."""
    positions = s.publisher.publish(list(events))
    s.client.retrieve("Is everything there?", at_least=marks(positions), timeout_s=120.0)


def drifted(s: Session, events: Sequence[Json]) -> bool:
    """The burst, and what the watch on drift says to it; no setting of it was changed."""
    relations = sorted({event["relation"] for event in events})
    publish(s, events)
    s.show(f"{len(events)} facts in {len(relations)} relations that are new: {', '.join(relations)}")
    reply: list[Json] = []

    def has_reason() -> bool:
        reply[:] = [s.client.drift()]
        time.sleep(PAUSE_S)
        return bool(reply[0]["reasons"])

    ms = until(has_reason, "a reason to re-align", DRIFT_S)
    s.show(f"drift after {ms / 1e3:.0f} s:")
    for reason in reply[0]["reasons"]:
        s.show(f"  reason {reason['name']}: {reason['detail']}")
    for block in reply[0]["blocks"]:
        s.show(f"  held back by {block['name']}: {block['detail']}")
    return "unseen_relations" in {reason["name"] for reason in reply[0]["reasons"]}


def started(s: Session) -> str:
    """The run that the daemon begins by itself."""
    runs: list[Json] = []

    def begun() -> bool:
        runs[:] = [run for run in s.client.realignments() if run["trigger"] == "drift"]
        time.sleep(PAUSE_S)
        return bool(runs)

    ms = until(begun, "a run by drift", DRIFT_S)
    s.show(f"{runs[0]['id']} begins by itself {ms / 1e3:.0f} s later, while questions go on")
    return str(runs[0]["id"])


@dataclass
class ProgressLine:
    """A line for each state, and for each quarter of one."""

    session: Session
    shown: tuple[str, int] = ("", 0)

    def show(self, run: Json) -> None:
        now = run["progress"] or {}
        step, total = now.get("step") or 0, now.get("total") or 0
        working = run["state"] in ("training", "judging")
        phase = now.get("phase") if working else None
        quarter = 4 * step // total if phase and total else 0
        doing = f"{run['state']}: {phase}" if phase and phase != run["state"] else str(run["state"])
        if (doing, quarter) == self.shown:
            return
        self.shown = (doing, quarter)
        steps = f" {step}/{total}" if quarter else ""
        loss = f", loss {now['loss']:.2f}" if quarter and now.get("loss") is not None else ""
        self.session.show(f"{run['id']} {doing}{steps}{loss}")


def verdict(s: Session, run: Json) -> None:
    """What the promotion gate compared, and what each arm got right."""
    gate_verdict: Json = json.loads(run["verdict_json"]) if run["verdict_json"] else {}
    if not gate_verdict:
        return
    outcome = gate_verdict["outcome"]
    s.show(f"the gate's verdict: [bold]{outcome}[/bold] ({run['probes']} probes, none learned from)")
    for comparison in gate_verdict["comparisons"]:
        word = "[green]ok[/green]" if comparison["ok"] else "[red]NO[/red]"
        mean, lower, least = (f"{comparison[name]:+.3f}" for name in ("mean", "lower", "least"))
        figures = f"{mean}, lower bound {lower}, must exceed {least}"
        s.show(f"  {comparison['name']} {figures} (n {comparison['n']}) {word}")
    for arm, scores in gate_verdict["scores"].items():
        s.show(f"  {arm}: " + ", ".join(f"{kind} {share:.2f}" for kind, share in sorted(scores.items())))


def ask(s: Session, quiz: Sequence[BurstFact]) -> list[Reply]:
    """The quiz through the daemon: facts that no adapter can have learned."""
    replies = []
    for fact in quiz:
        answer, ms = s.ask(fact.question)
        own = {**answer, "text": answer["corrected_from"] or answer["text"]}
        right = is_right(own, [fact.event["target"]])
        fact_cited = fact.event["id"] in citation_ids(answer)
        adapter = answer["adapter"]["id"] if answer["adapter"] else "-"
        replies.append(Reply(own["text"], adapter, right, fact_cited, answer, ms))
    return replies


@contextmanager
def questions(s: Session, texts: Sequence[str]) -> Iterator[SwapAnswers]:
    """Questions one after the other from a thread of their own, as long as the block lasts."""
    swap_answers, stop = SwapAnswers(), threading.Event()

    def run() -> None:
        client = connect(s.stack)
        number = 0
        while not stop.wait(PAUSE_S):
            try:
                answer = client.answer(texts[number % len(texts)])
                swap_answers.adapters.append(answer["adapter"]["id"] if answer["adapter"] else BASE)
            except LteError as error:
                swap_answers.failed.append(str(error))
            number += 1
        client.close()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield swap_answers
    finally:
        stop.set()
        thread.join()


def after_swap(swap_answers: SwapAnswers, adapter: str) -> None:
    """Wait until the questions beside it have seen the new adapter."""
    until(
        lambda: swap_answers.adapters.count(adapter) > SHOWN or bool(swap_answers.failed),
        "answers of the new adapter",
    )


def swapped(s: Session, swap_answers: SwapAnswers, run: Json) -> bool:
    """Whether every question was answered, and none by the old adapter once the new one had answered."""
    counts = Counter(swap_answers.adapters)
    named = [name for name in swap_answers.adapters if name != BASE]
    first = named.index(run["adapter"])
    clean = set(named[first:]) == {run["adapter"]} and not swap_answers.failed
    shown = ", ".join(
        f"{count} by {'the base model' if name == '-' else name}" for name, count in counts.items()
    )
    answered, failed = len(swap_answers.adapters), len(swap_answers.failed)
    s.show(f"questions beside the run: {answered} answered ({shown}), {failed} failed")
    return clean


def better(s: Session, quiz: Sequence[BurstFact], before: Sequence[Reply], after: Sequence[Reply]) -> bool:
    """Scores by family, and the gain with its interval over all facts of the quiz."""
    gains = [int(new.right) - int(old.right) for old, new in zip(before, after, strict=True)]
    for family in dict.fromkeys(fact.family for fact in quiz):
        places = [place for place, fact in enumerate(quiz) if fact.family == family]
        old, new = (sum(replies[place].right for place in places) for replies in (before, after))
        s.show(f"{family}: {old} of {len(places)} right before, {new} after")
    for place in [place for place, gain in enumerate(gains) if gain][:SHOWN]:
        for when, reply in (("before swap", before[place]), ("after swap", after[place])):
            texts = (quiz[place].question, reply.text, cited(reply.answer), reply.answer["scope"])
            s.rows.append(TableRow(when, *texts, reply.adapter, reply.milliseconds, reply.right))
    facts_found = sum(reply.fact_cited for reply in after)
    gain, lower = sum(gains) / len(gains), lower_bound(gains)
    s.show(f"facts found: {facts_found} of {len(quiz)}; they were told after the training set was frozen")
    s.show(
        f"gain [bold]{gain:+.3f}[/bold], lower 95 % bound {lower:+.3f}; promised: {LEAST_GAIN:+.2f}, above 0"
    )
    return better_by(gains)


def better_by(gains: Sequence[int]) -> bool:
    """Whether the gain over all questions is what is promised, and sure."""
    return sum(gains) / len(gains) >= LEAST_GAIN and lower_bound(gains) > 0


def lower_bound(gains: Sequence[int]) -> float:
    """The lower end of the 95 % interval of a mean, by bootstrap over the questions."""
    drawn = np.random.default_rng(SEED).choice(np.array(gains), (RESAMPLES, len(gains)))
    return float(np.quantile(drawn.mean(axis=1), 0.025))
