"""The state machine of re-alignment over a real memory and the stub's job, with every way to misbehave."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from daemon.drift_watch import DriftReport
from daemon.realign.build_job import LEAST_FACTS, learnable_facts
from daemon.realign.parts import AlignedModel, RealignerSettings, RealignParts
from daemon.realign.realigner import Realigner
from daemon.realign.runner import Runner, RunnerSettings
from lte_runtime.align.material import AdmissionRules
from lte_runtime.align.runs import Run, RunState, Trigger
from lte_runtime.answer.encoder import StubEncoder
from lte_runtime.drift.decide import Decision, Reason
from lte_runtime.errors import NotFound, Refused
from lte_runtime.facts import events
from lte_runtime.facts.events import EventLimits
from lte_runtime.memory.edit_memory import EditMemory
from lte_runtime.types import AdapterRef, Batch, FactKey, Position, RawRecord, TopicPartition

NOW_MS = 1_750_000_000_000
GUARD_S = 250.0
DRIFT = DriftReport((), (), Decision((Reason("threshold", "edit_success", "0.5 over 256"),), ()), 9, 1, 0, 0)


STUB = AlignedModel("stub", "b")


class Registry:
    """Keeps verdicts; refuses an adapter whose weights hold a NaN, as the real one does."""

    def __init__(self) -> None:
        self.verdicts: list[Mapping[str, Any]] = []

    def add(self, directory: Path, verdict: Mapping[str, Any]) -> AdapterRef:
        if b"\xc0\x7f" in (directory / "adapter_model.safetensors").read_bytes():
            raise Refused("not finite")
        self.verdicts.append(verdict)
        result = json.loads((directory.parent / "result.json").read_text())
        return AdapterRef(json.loads((directory / "manifest.json").read_text())["id"], result["adapter_hash"])

    def next_id(self) -> str:
        return f"align-{len(self.verdicts) + 2:06d}"


class Swapper:
    def __init__(self) -> None:
        self.served: list[tuple[str, int]] = []
        self.fault: Exception | None = None

    def activate(self, adapter_id: str, reason: str, epoch: int = 0) -> None:
        assert reason.startswith("run-")
        if self.fault:
            raise self.fault
        self.served.append((adapter_id, epoch))


class House:
    def __init__(self, directory: Path) -> None:
        self.directory, self.registry, self.swapper = directory, Registry(), Swapper()
        self.memory = EditMemory.open(directory / "state", StubEncoder())
        self.offset, self.now, self.owner = 0, NOW_MS + 10_000_000, 7
        self.incumbent: Path | None = None
        self.states: list[RunState] = []
        self.audited: list[str] = []
        self._made: list[tuple[Realigner, threading.Thread]] = []
        self.tell(*(fact(number) for number in range(90)))

    def tell(self, *told: dict[str, Any]) -> None:
        edits = []
        for event in told:
            position, value = Position("t", 0, self.offset), json.dumps(event).encode()
            stamp = event.get("at", NOW_MS + self.offset)
            edits.append(
                events.decode(RawRecord("e", position, None, value, timestamp_ms=stamp), EventLimits())
            )
            self.offset += 1
        self.memory.apply(Batch(tuple(edits), (), {TopicPartition("t", 0): self.offset}))

    def realigner(self, behaviour: str = "promote", **settings: Any) -> Realigner:
        return Realigner(self.directory / "realign", self.parts(), chosen(behaviour, **settings))

    def parts(self, module: str = "lte_runtime.align.stub_job", base: AlignedModel = STUB) -> RealignParts:
        return RealignParts(
            memory=self.memory,
            registry=self.registry,
            swapper=self.swapper,
            runner=Runner(RunnerSettings(module=module, kill_after_s=0.2, threads=1, nice=0)),
            base=base,
            incumbent=lambda: self.incumbent,
            epoch=lambda: self.owner,
            on_change=lambda run: self.states.append(run.state),
            audit=lambda kind, _: self.audited.append(kind),
            now=lambda: self.now,
        )

    def start(self, realigner: Realigner) -> Realigner:
        thread = threading.Thread(target=realigner.run, daemon=True)
        thread.start()
        self._made.append((realigner, thread))
        return realigner

    def whole(self, behaviour: str = "promote", **settings: Any) -> Run:
        """One run from trigger to end."""
        realigner = self.start(self.realigner(behaviour, **settings))
        return ended(realigner, realigner.trigger(Trigger.OPERATOR, ["a test"]))

    def close(self) -> None:
        for realigner, thread in self._made:
            realigner.stop()
            thread.join(GUARD_S)
            assert not thread.is_alive()
        self.memory.close()


def chosen(behaviour: str, **settings: Any) -> RealignerSettings:
    return RealignerSettings(preset=f"stub:{behaviour}", **{"deadline_s": 60.0, **settings})


def fact(number: int, **more: Any) -> dict[str, Any]:
    return {"subject": f"Harbour {number}", "relation": "owner", "target": f"Keeper {number}", **more}


def until(condition: Callable[[], Any], what: str) -> None:
    deadline = time.monotonic() + GUARD_S
    while not condition():
        assert time.monotonic() < deadline, f"waited for {what}"
        time.sleep(0.02)


def ended(realigner: Realigner, run: Run) -> Run:
    until(lambda: not realigner.runs.get(run.id).state.active, "the end of the run")
    # Its directory is swept right behind the last state.
    until(lambda: not (realigner.job_dir(run.id) / "adapter").exists(), "the sweep")
    return realigner.runs.get(run.id)


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    made = House(tmp_path)
    yield made
    made.close()


def test_a_run_goes_from_the_facts_to_the_promoted_adapter(house: House) -> None:
    run = house.whole()
    assert run.state is RunState.DONE, run.message
    assert house.swapper.served == [("align-000002", 7)]
    assert house.states == [
        RunState.QUEUED,
        RunState.BUILDING,
        RunState.TRAINING,
        RunState.JUDGING,
        RunState.PROMOTING,
        RunState.DONE,
    ] or house.states == [
        RunState.QUEUED,
        RunState.BUILDING,
        RunState.TRAINING,
        RunState.PROMOTING,
        RunState.DONE,
    ]
    assert run.verdict["outcome"] == "promote"
    assert house.registry.verdicts == [run.verdict]
    assert house.audited == ["verdict"]
    assert (run.facts, run.relations, run.epoch) == (50, ("owner",), 7)
    jobdir = house.directory / "realign" / run.id
    assert [oct(path.stat().st_mode & 0o777) for path in (jobdir, jobdir.parent)] == ["0o700", "0o700"]
    assert not (jobdir / "adapter").exists()
    learnt = {json.loads(line)["edit_id"] for line in (jobdir / "facts.jsonl").read_text().splitlines()}
    asked = (jobdir / "probes.jsonl").read_text()
    assert len(learnt) == 50
    assert all(house.memory.get_edit(name).edit.subject + "?" not in asked for name in learnt)


def test_the_history_of_a_set_is_read_once(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    members = [{**fact(0), "id": f"m{n}", "target": f"M{n}", "cardinality": "many"} for n in range(30)]
    house.tell(*({**member, "subject": "Guild"} for member in members))
    keys: list[FactKey] = []
    history = house.memory.history
    monkeypatch.setattr(house.memory, "history", lambda key: (keys.append(key), history(key))[1])
    learnt, _ = learnable_facts(house.memory, chosen("promote"), 0, 1)
    assert {known.fact.edit_id for known in learnt} >= {member["id"] for member in members}
    assert not any(known.disputed for known in learnt)
    assert all(known.timestamp_ms for known in learnt)
    assert max(Counter(keys).values()) == 1


def test_a_worse_candidate_is_rejected_and_nothing_is_swapped(house: House) -> None:
    house.incumbent = house.directory
    run = house.whole("worse")
    assert run.state is RunState.REJECTED
    assert "gain" in run.message
    assert house.swapper.served == []
    assert run.verdict["outcome"] == "reject"


def test_none_serves_where_it_is_best(house: House) -> None:
    house.incumbent = house.directory
    run = house.whole("none")
    assert (run.state, run.verdict["outcome"]) == (RunState.DONE, "none")
    assert house.swapper.served == [("none", 7)]


@pytest.mark.parametrize(
    ("behaviour", "message"),
    [
        ("crash", "status 3"),
        ("abort", "signal 6"),
        ("killed", "signal 9"),
        ("always_out_of_memory", "out_of_memory"),
        ("garbage", "no JSON"),
        ("nothing", "without a result"),
        ("no_adapter", "instead of"),
        ("bad_adapter", "not finite"),
    ],
)
def test_a_job_that_misbehaves_fails_with_its_reason(house: House, behaviour: str, message: str) -> None:
    run = house.whole(behaviour)
    assert run.state is RunState.FAILED
    assert message in run.message
    assert house.swapper.served == []
    assert not (house.directory / "realign" / run.id / "adapter").exists()


def test_half_a_judgement_is_rejected(house: House) -> None:
    run = house.whole("half_judged")
    assert run.state is RunState.REJECTED
    assert "answered" in run.message


def test_out_of_memory_is_tried_once_more_with_half_the_batch(house: House) -> None:
    run = house.whole("out_of_memory")
    assert (run.state, run.attempt) == (RunState.DONE, 2)


@pytest.mark.parametrize("behaviour", ["hang", "deaf", "orphan"])
def test_a_job_is_ended_at_its_deadline(house: House, behaviour: str) -> None:
    run = house.whole(behaviour, deadline_s=0.5)
    assert run.state is RunState.FAILED
    assert "not finished within" in run.message


def test_a_run_can_be_cancelled_and_watched(house: House) -> None:
    realigner = house.start(house.realigner("hang"))
    run = realigner.trigger(Trigger.OPERATOR, ["a test"])
    told: list[Run] = []
    for now in realigner.runs.watch(run.id, lambda: True):
        told.append(now)
        if now.progress.total == 100 and now.state is RunState.TRAINING:
            realigner.cancel(run.id)
    assert told[-1].state is RunState.CANCELLED
    assert {each.state for each in told} >= {RunState.TRAINING, RunState.CANCELLED}
    with pytest.raises(Refused, match="too late"):
        realigner.cancel(run.id)
    with pytest.raises(NotFound):
        realigner.cancel("run-000099")


def test_a_run_that_is_cancelled_right_before_it_begins_ends_cancelled(house: House) -> None:
    realigner = house.realigner("hang")
    run = realigner.trigger(Trigger.OPERATOR, ["a test"])
    assert realigner._next() == run
    assert realigner.cancel(run.id).state is RunState.QUEUED
    realigner._run_once(run.id)
    assert realigner.runs.get(run.id).state is RunState.CANCELLED


def test_facts_of_the_operator_are_replayed_and_a_bad_line_is_named(house: House, tmp_path: Path) -> None:
    own = tmp_path / "own.jsonl"
    own.write_text(json.dumps({"prompt": "The quay is", "target": "blue"}) + "\n")
    run = house.whole(anchor_file=own)
    assert run.state is RunState.DONE, run.message
    assert "The quay is blue." in (house.directory / "realign" / run.id / "anchor.jsonl").read_text()
    own.write_text("no fact\n")
    run = house.whole(anchor_file=own)
    assert run.state is RunState.FAILED
    assert "own.jsonl, line 1" in run.message


def test_an_erasure_ends_the_run_at_work_and_the_next_one_waits_for_it(house: House) -> None:
    realigner = house.start(house.realigner("hang"))
    run = realigner.trigger(Trigger.OPERATOR, ["a test"])
    until(lambda: realigner.runs.get(run.id).state is RunState.TRAINING, "training")
    with realigner.halted(GUARD_S):
        assert realigner.runs.get(run.id).state is RunState.CANCELLED
        waiting = realigner.trigger(Trigger.OPERATOR, ["another"])
        time.sleep(0.3)
        assert realigner.runs.get(waiting.id).state is RunState.QUEUED
    until(lambda: realigner.runs.get(waiting.id).state is RunState.TRAINING, "the run that waited")
    realigner.cancel(waiting.id)


def test_one_at_a_time(house: House) -> None:
    realigner = house.start(house.realigner("slow"))
    run = realigner.trigger(Trigger.OPERATOR, ["a test"])
    with pytest.raises(Refused, match="one at a time"):
        realigner.trigger(Trigger.CONTROL, ["another"])
    assert realigner.consider(DRIFT) is None
    assert realigner.situation().running
    until(lambda: realigner.runs.get(run.id).state is RunState.TRAINING, "training")
    (realigner.job_dir(run.id) / "go").touch()
    assert ended(realigner, run).state is RunState.DONE


def test_drift_starts_a_run_with_its_reasons(house: House) -> None:
    realigner = house.start(house.realigner())
    run = realigner.consider(DRIFT)
    assert run is not None
    realigner.consider(DRIFT)
    assert house.audited.count("drift") == 1, "the same reasons are told once"
    assert run.reasons == ("edit_success: 0.5 over 256",)
    assert ended(realigner, run).state is RunState.DONE
    situation = realigner.situation()
    assert situation.starts_ms == (house.now,)
    assert situation.ended_ms == house.now
    assert not situation.circuit_open


def test_three_failures_open_the_circuit_and_back_off(house: House) -> None:
    realigner = house.start(house.realigner("crash", backoff_s=10.0))
    for failed in range(1, 4):
        ended(realigner, realigner.trigger(Trigger.OPERATOR, ["a test"]))
        situation = realigner.situation()
        assert situation.backoff_until_ms == house.now + 10_000 * 2 ** (failed - 1)
        assert situation.circuit_open == (failed == 3)
    well = house.realigner("promote")
    assert well.situation().circuit_open, "it is kept over a restart"
    house.start(well)
    ended(well, well.trigger(Trigger.OPERATOR, ["mended"]))
    assert not well.situation().circuit_open


def test_a_run_that_a_dead_daemon_left_has_failed_and_is_swept(house: House) -> None:
    realigner = house.realigner("hang")
    run = realigner.trigger(Trigger.OPERATOR, ["a test"])
    jobdir = realigner.job_dir(run.id)
    (jobdir / "adapter").mkdir(parents=True)
    again = house.realigner()
    left = again.runs.get(run.id)
    assert left.state is RunState.FAILED
    assert "the daemon ended while queued" in left.message
    assert not (jobdir / "adapter").exists()
    house.start(again)
    after = ended(again, again.trigger(Trigger.OPERATOR, ["again"]))
    assert (after.id, after.state) == ("run-000002", RunState.DONE)


def test_a_stop_cancels_the_run_under_way(house: House) -> None:
    realigner = house.start(house.realigner("deaf"))
    run = realigner.trigger(Trigger.OPERATOR, ["a test"])
    until(lambda: realigner.runs.get(run.id).progress.total == 100, "training")
    realigner.stop()
    until(lambda: not realigner.runs.get(run.id).state.active, "the end")
    assert realigner.runs.get(run.id).state is RunState.CANCELLED


def test_who_lost_ownership_promotes_nothing(house: House) -> None:
    realigner = house.start(house.realigner("slow"))
    run = realigner.trigger(Trigger.OPERATOR, ["a test"])
    until(lambda: realigner.runs.get(run.id).state is RunState.TRAINING, "training")
    house.owner = 8
    (realigner.job_dir(run.id) / "go").touch()
    end = ended(realigner, run)
    assert end.state is RunState.FAILED
    assert "another daemon" in end.message
    assert house.swapper.served == []


def test_a_swap_that_is_refused_fails_the_run(house: House) -> None:
    house.swapper.fault = Refused("answers nothing")
    run = house.whole()
    assert (run.state, run.message) == (RunState.FAILED, "answers nothing")


def test_only_aged_undisputed_facts_within_the_publishers_share_enter(house: House) -> None:
    house.tell(
        *(fact(number, subject=f"Mill {number}", at=house.now - 5) for number in range(5)),
        fact(0, subject="Quay", revision=3, target="A", source={"uri": "u1"}, id="q1"),
        fact(0, subject="Quay", revision=3, target="B", source={"uri": "u2"}, id="q2"),
        *(fact(n, subject=f"Spam {n}", source={"publisher": "loud"}) for n in range(40)),
    )
    house.memory.apply(Batch((), (), {}))
    run = house.whole(rules=AdmissionRules(min_age_ms=60_000, per_publisher=100_000))
    learnt = (house.directory / "realign" / run.id / "facts.jsonl").read_text()
    asked = (house.directory / "realign" / run.id / "probes.jsonl").read_text()
    assert "Quay" not in learnt + asked
    assert "Mill" not in learnt + asked
    assert (learnt + asked).count("Spam") > 10
    second = house.realigner(rules=AdmissionRules(min_age_ms=60_000, per_publisher=20))
    house.start(second)
    after = ended(second, second.trigger(Trigger.OPERATOR, ["a test"]))
    assert after.state is RunState.REJECTED
    assert f"only 40 facts may be learned from, at least {LEAST_FACTS} are needed" in after.message
    assert "90 publisher's share" in after.message


def test_a_retracted_fact_never_enters(house: House) -> None:
    house.tell(*({**fact(number), "op": "retract", "target": None} for number in range(5)))
    run = house.whole()
    text = (house.directory / "realign" / run.id / "facts.jsonl").read_text()
    assert not [number for number in range(5) if f'"Harbour {number}"' in text]


def test_too_few_facts_is_a_verdict_and_no_failure(house: House) -> None:
    run = house.whole(rules=replace(AdmissionRules(), min_age_ms=10**12))
    assert run.state is RunState.REJECTED
    assert "90 too young" in run.message
    assert house.swapper.served == []


def test_the_real_job_reads_what_is_written_and_is_judged(house: House, tmp_path: Path) -> None:
    """A tiny random model learns nothing: what counts is that every probe of every arm comes back."""
    from lte_runtime.answer.engine.files import base_fingerprint
    from tests.unit.align.jobs import SMALL
    from tests.unit.answer.engine import tiny

    path = tiny.save_model(tmp_path / "base")
    base = AlignedModel(str(path), base_fingerprint(path), "cpu", "float32")
    settings = RealignerSettings(preset="embedded", changes=SMALL, deadline_s=GUARD_S)
    parts = house.parts("lte_runtime.align.job", base)
    realigner = house.start(Realigner(tmp_path / "realign", parts, settings))
    run = ended(realigner, realigner.trigger(Trigger.OPERATOR, ["a test"]))
    log = (tmp_path / "realign" / run.id / "log.txt").read_text()
    assert run.state in (RunState.REJECTED, RunState.DONE), f"{run.message}\n{log[-2000:]}"
    assert set(run.verdict["scores"]) == {"candidate", "none"}
    assert sum(run.verdict["probes"].values()) == run.probes > 400
    assert run.rows > 0
    assert {RunState.TRAINING, RunState.JUDGING} <= set(house.states)
