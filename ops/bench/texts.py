"""Seeded fact events for the benchmarks: varied subjects, relations and targets, all invented."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator

_ONSETS = "b br c ch d dr f fl g gr h j k kl l m n p pr qu r s sh st t th tr v w z".split()
_VOWELS = "a e i o u ai ea ou ia".split()
_CODAS = ["", "n", "r", "l", "s", "th", "nd", "rk", "m"]
_KINDS = (
    "Systems Foods Airways Museum Institute Logistics Press Clinic Council Robotics Textiles Energy".split()
)
_RELATIONS = (
    "chief executive|head office|support phone number|list price|current version|lead engineer|main supplier|"
    "opening hours|registered address|founding year|contact e-mail|warranty period|head coach|home stadium|"
    "incident status|delivery date|minimum order|licence holder"
).split("|")


def word(rng: random.Random) -> str:
    """An invented capitalised word of two or three syllables."""
    size = rng.randint(2, 3)
    parts = [rng.choice(_ONSETS) + rng.choice(_VOWELS) + rng.choice(_CODAS) for _ in range(size)]
    return "".join(parts).capitalize()


def subject(rng: random.Random) -> str:
    if rng.random() < 0.25:
        return f"{word(rng)} {rng.choice('ABCDEFGH')}{rng.randint(100, 9999)}"
    return f"{word(rng)} {word(rng)} {rng.choice(_KINDS)}"


def target(rng: random.Random) -> str:
    return rng.choice((lambda: f"{word(rng)} {word(rng)}", lambda: f"{rng.randint(5, 9999)} EUR"))()


def events(n: int, seed: int) -> Iterator[dict[str, str]]:
    """`n` assert events with distinct (subject, relation) keys."""
    rng = random.Random(seed)
    seen: set[tuple[str, str]] = set()
    while len(seen) < n:
        key = (subject(rng), rng.choice(_RELATIONS))
        if key in seen:
            continue
        seen.add(key)
        yield {"id": f"b{seed}-{len(seen)}", "op": "assert", "subject": key[0], "relation": key[1],
               "target": target(rng)}  # fmt: skip


def encoded(n: int, seed: int) -> list[bytes]:
    """The events as JSON values, ready to publish."""
    return [json.dumps(event, ensure_ascii=False).encode() for event in events(n, seed)]
