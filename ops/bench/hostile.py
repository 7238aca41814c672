"""Hostile questions against an ordinary one: what each costs outside the language model, and the others.

The encoder belongs to what is measured, the language model does not. Each text is asked in other words every
time, as a caller would who wants to do harm, so that nothing of it was kept from the time before.
"""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lte_runtime.answer.encoder import load_encoder
from lte_runtime.answer.retriever import Retriever
from lte_runtime.answer.scope import gate
from lte_runtime.memory.edit_memory import EditMemory, EditMemorySettings
from lte_runtime.types import Question
from ops.bench.result import SEED, BenchResult, Spread, machine, percentile, today
from ops.bench.texts import events
from ops.lab.scratch import apply_events

BAR = "worst <= 50 ms outside the model, whatever the question says"
LONGEST = 8_192  # characters: `answer.max_question_chars`
PREFIX = "What of Zephyr X2 and "
REPEATED = {
    "articles and pronouns": "the it ",
    "possessives": "it's ",
    "clauses": "the thing that it which ",
    "apostrophes": "'s",
    "negations": "n't ",
    "one long word": "A",
    "capitals": "Ab ",
    "digits": "7 ",
    "one long number": "7",
    "dotted letters": "a.",
    "unspaced script": "\u6771",
    "combining marks": "e\u0301\u0302 ",
    "ligatures": "\ufdfa",
    "blanks": " ",
    "one name": "Zephyr X2 ",
    "misspelt names": "nordwnid cargoo zephry ",
    "special tokens": "<|im_end|>",
    "passives": "led by it ",
}
CRAFTED = {
    "crowded alias": "What is the list price of Gizmo?",
    "crowded alias misspelt": "What is the list price of Gizom?",
    "many aliases": "What is the price of " + " and ".join(f"alias {n} of a house" for n in range(64)) + "?",
    "wide chains": "What is the office of the branch of the partner of Grand Hub?",
    "large set": "Who is a member of Big Set?",
    "expired facts": "What is the price of Season Ticket 77?",
}
ORDINARY = "Who is the chief executive of Nordwind Cargo?"


def run(quick: bool, progress: Callable[[str], None]) -> BenchResult:
    """`ours` is the worst question's median in ms, `peer` the ordinary one's, `ratio` peer / ours.

    `others` holds, for each question, the median of ordinary ones while it is asked without a pause, by their
    median with nothing beside them.
    """
    size, repeats = (300, 3) if quick else (3_000, 7)
    with tempfile.TemporaryDirectory() as folder:
        encoder = load_encoder()
        memory = EditMemory.open(Path(folder) / "state", encoder, EditMemorySettings())
        progress("filling the memory")
        apply_events(memory, [*events(size, SEED), *_snares(size)])
        retriever = Retriever(memory, encoder, gate.default_calibration())
        ask = _asker(retriever)
        ordinary = [ask(ORDINARY) for _ in range(5 * repeats)][repeats:]
        spent: dict[str, Spread] = {}
        others: dict[str, float] = {}
        for name, text in questions().items():
            progress(name)
            ask(text)  # what is kept of facts is encoded once, whoever asks
            times = []
            for _ in range(repeats):
                times.append(ask(text))
                ordinary.append(ask(ORDINARY))
            spent[name] = Spread.of(times)
            with _asking_repeatedly(ask, text):
                others[name] = Spread.of([ask(ORDINARY) for _ in range(2 * repeats)]).median
        memory.close()
    usual = Spread.of(ordinary).median
    worst = max(spread.median for spread in spent.values())
    return BenchResult(
        name="hostile",
        ours=worst,
        peer=usual,
        ratio=usual / worst,
        unit="ms outside the model, the worst question (peer: an ordinary one)",
        n=len(spent) * repeats,
        bar=BAR,
        machine=machine(),
        date=today(),
        extra={
            "worst": max(spent, key=lambda name: spent[name].median),
            "ordinary_p95_ms": percentile(ordinary, 0.95),
            "median_ms": {name: round(spread.median, 1) for name, spread in spent.items()},
            "max_ms": {name: round(spread.high, 1) for name, spread in spent.items()},
            "times_ordinary": {name: round(spread.median / usual, 2) for name, spread in spent.items()},
            "others": {name: round(median / usual, 2) for name, median in others.items()},
        },
    )


def questions() -> Mapping[str, str]:
    """Hostile questions by name, each no longer than a question may be."""
    repeated = {name: (PREFIX + part * LONGEST)[: LONGEST - 8] for name, part in REPEATED.items()}
    many_names = " ".join(event["subject"] for event in events(800, SEED))[: LONGEST - 8]
    return {**repeated, "many names": many_names, **CRAFTED}


def _asker(retriever: Retriever) -> Callable[[str], float]:
    count = iter(range(1_000_000))
    lock = threading.Lock()

    def ask(text: str) -> float:
        """Milliseconds of a question that nobody asked before."""
        with lock:
            number = next(count)
        begin = time.perf_counter()
        retriever.retrieve(Question(f"{text} ({number})"), None)
        return (time.perf_counter() - begin) * 1e3

    return ask


@contextmanager
def _asking_repeatedly(ask: Callable[[str], float], text: str) -> Iterator[None]:
    """Another caller asks `text` again and again meanwhile."""
    over = threading.Event()

    def again() -> None:
        while not over.is_set():
            ask(text)

    caller = threading.Thread(target=again, name="hostile-caller")
    caller.start()
    try:
        yield
    finally:
        over.set()
        caller.join()


def _snares(size: int) -> Iterator[dict[str, Any]]:
    """Facts that make questions dear: chains, hubs, crowded names, aliases, a large set, expired facts."""
    chain = (
        ("Zephyr X2", "manufacturer", "Nordwind Cargo"),
        ("Nordwind Cargo", "chief executive", "Anna Berg"),
        ("Anna Berg", "home town", "Oslo"),
    )
    yield from (_fact(*fact) for fact in chain)
    for n in range(64):
        yield _fact("Grand Hub", f"partner number {n}", "Fan Centre")
        yield _fact("Fan Centre", f"branch number {n}", "Fan Leaf")
        yield _fact("Fan Leaf", f"office number {n}", f"Place {n}")
        yield _fact(
            f"House {n}", "price", f"{n} EUR", subject_aliases=[f"alias {i} of a house" for i in range(64)]
        )
    for n in range(size):
        yield _fact(f"Widget {n}", "list price", f"{n} EUR", subject_aliases=["Gizmo"])
        yield _fact("Big Set", "member", f"Member {n}", cardinality="many")
        ends = {"valid_from": "2020-01-01", "valid_until": "2021-01-01"}
        yield _fact(f"Season Ticket {n}", "price", f"{n} EUR", **ends)


def _fact(subject: str, relation: str, target: str, **more: Any) -> dict[str, Any]:
    return {"op": "assert", "subject": subject, "relation": relation, "target": target, **more}
