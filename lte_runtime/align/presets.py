"""Ready-made recipes of an alignment run, as values; `docs/operations.md` explains them with their memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from lte_runtime.align.data.cases import CaseKind
from lte_runtime.align.data.dataset import Mixture
from lte_runtime.align.settings import TrainingSettings
from lte_runtime.errors import BadRequest

_SMALL: Mapping[CaseKind, float] = {
    CaseKind.VERBATIM: 0.32,
    CaseKind.REPHRASED: 0.27,
    CaseKind.ALIAS: 0.03,
    CaseKind.TWO_HOPS: 0.06,
    CaseKind.COMPOSED: 0.01,
    CaseKind.REVERSED: 0.01,
    CaseKind.VERSIONS: 0.02,
    CaseKind.LISTED: 0.02,
    CaseKind.FORMER: 0.02,
    CaseKind.INSTRUCTED: 0.14,
    CaseKind.SAME_SUBJECT: 0.04,
    CaseKind.NEIGHBOUR: 0.02,
    CaseKind.UNRELATED: 0.03,
    CaseKind.LANGUAGE: 0.01,
}
_LARGE: Mapping[CaseKind, float] = {
    CaseKind.VERBATIM: 0.14,
    CaseKind.REPHRASED: 0.14,
    CaseKind.ALIAS: 0.06,
    CaseKind.TWO_HOPS: 0.08,
    CaseKind.COMPOSED: 0.07,
    CaseKind.REVERSED: 0.03,
    CaseKind.VERSIONS: 0.03,
    CaseKind.LISTED: 0.03,
    CaseKind.FORMER: 0.02,
    CaseKind.INSTRUCTED: 0.05,
    CaseKind.SAME_SUBJECT: 0.10,
    CaseKind.NEIGHBOUR: 0.08,
    CaseKind.UNRELATED: 0.07,
    CaseKind.LANGUAGE: 0.10,
}
"""About 30 % verbatim of what is in scope, and a third out of scope or language, as in the paper."""


_RESTRAINED: Mapping[CaseKind, float] = {
    CaseKind.VERBATIM: 0.10,
    CaseKind.REPHRASED: 0.19,
    CaseKind.ALIAS: 0.08,
    CaseKind.TWO_HOPS: 0.06,
    CaseKind.COMPOSED: 0.07,
    CaseKind.REVERSED: 0.02,
    CaseKind.VERSIONS: 0.02,
    CaseKind.LISTED: 0.04,
    CaseKind.FORMER: 0.03,
    CaseKind.INSTRUCTED: 0.04,
    CaseKind.SAME_SUBJECT: 0.22,
    CaseKind.NEIGHBOUR: 0.05,
    CaseKind.UNRELATED: 0.04,
    CaseKind.LANGUAGE: 0.04,
}
"""A third out of scope, most of it the fact's subject with another relation: a model that is given a fact
must not say its value to every question about the subject."""


@dataclass(frozen=True, slots=True)
class Preset:
    """What is drawn, how it is trained, and for which machine.

    `cases` are drawn (two rows each at most); `held_out` of the rows stop the training early; `keep` is the
    share of a fresh adapter's update that is kept; `most_facts` caps the live facts; `warm_start` begins with
    the incumbent adapter where there is one; `own_tokens` bounds an own answer; `probes` is the share of
    `material.COUNTS` that each arm is judged by.
    """

    name: str
    cases: int
    mixture: Mixture
    settings: TrainingSettings
    max_tokens: int = 512
    held_out: float = 0.05
    keep: float = 1.0
    most_facts: int = 20_000
    known: int = 400
    own_tokens: int = 32
    warm_start: bool = True
    processes: int = 1
    probes: float = 1.0


_DEMO = Preset(
    "demo",
    cases=750,
    mixture=Mixture(_SMALL, invented=0.1, replay=0.1, worded=0.55, alone=0.7, plain=0.1, sure=0.85),
    settings=TrainingSettings(
        rank=32, alpha=64, rate=2e-3, warm=10, batch=16, threads=1, epochs=2, every=25, patience=4
    ),
    keep=0.6,
    known=120,
    own_tokens=16,
)
_SMALL_CHAT = Preset(
    "small",
    cases=12_000,
    mixture=Mixture(
        _RESTRAINED,
        invented=0.7,
        replay=0.0,
        worded=0.3,
        plain=0.05,
        plain_own=0.2,
        sure=0.5,
        near_sure=0.0,
        foreign=0.25,
        everyday=0.6,
    ),
    settings=TrainingSettings(
        rank=16,
        alpha=32,
        rate=5e-4,
        warm=30,
        batch=8,
        first=1.0,
        long_answer=12,
        threads=2,
        every=100,
        patience=4,
    ),
    held_out=0.02,
    known=700,
    own_tokens=40,
)
_DEMO_SMALL = replace(
    _SMALL_CHAT,
    name="demo-small",
    cases=320,
    mixture=replace(_SMALL_CHAT.mixture, invented=0.2, replay=0.15, everyday=0.3, foreign=0.1),
    settings=replace(_SMALL_CHAT.settings, rate=3e-4, warm=5, every=20),
    held_out=0.05,
    known=64,
    own_tokens=24,
    probes=0.48,
)
"""A re-alignment of a small chat model on two cores in some ten minutes: most rows are of the live facts."""
_SEVEN = Preset(
    "7b-1xh200",
    cases=30_000,
    mixture=Mixture(_LARGE),
    settings=TrainingSettings(
        rank=16,
        alpha=32,
        rate=1e-4,
        warm=30,
        batch=64,
        first=1.0,
        threads=1,
        budget=7168,
        every=100,
        patience=4,
    ),
    max_tokens=1024,
    held_out=0.02,
    known=2000,
    own_tokens=64,
)

PRESETS: Mapping[str, Preset] = {
    preset.name: preset
    for preset in (
        _DEMO,
        replace(
            _DEMO,
            name="embedded",
            cases=2000,
            settings=replace(_DEMO.settings, warm=20, every=40),
            known=400,
        ),
        _SMALL_CHAT,
        _DEMO_SMALL,
        _SEVEN,
        replace(
            _SEVEN,
            name="7b-4x",
            settings=replace(_SEVEN.settings, rate=2e-4, batch=256, every=50),
            processes=4,
        ),
    )
}


def preset(name: str) -> Preset:
    """The preset called `name`; raises `BadRequest` with the names there are."""
    if name not in PRESETS:
        raise BadRequest(f"there is no preset {name!r}; choose one of {', '.join(PRESETS)}")
    return PRESETS[name]


def adjusted(chosen: Preset, changes: Mapping[str, object]) -> Preset:
    """The preset with other numbers: names of its own fields, of its settings' or of its mixture's.

    Raises `BadRequest` for a name that does not exist and for a value of another type.
    """
    for name, value in changes.items():
        owner = next((part for part in (chosen, chosen.settings, chosen.mixture) if _has(part, name)), None)
        if owner is None:
            raise BadRequest(f"preset {chosen.name} has no number called {name!r}")
        converted = _like(getattr(owner, name), value, name)
        if owner is chosen:
            chosen = replace(chosen, **{name: converted})
        elif owner is chosen.settings:
            chosen = replace(chosen, settings=replace(chosen.settings, **{name: converted}))
        else:
            chosen = replace(chosen, mixture=replace(chosen.mixture, **{name: converted}))
    return chosen


def _has(part: object, name: str) -> bool:
    names = {field.name for field in fields(part)}  # type: ignore[arg-type]
    return name in names and isinstance(getattr(part, name), bool | int | float)


def _like(old: object, value: object, name: str) -> Any:
    """`value` as what `old` is: true or false, a whole number, a number."""
    try:
        if isinstance(old, bool):
            return {"true": True, "false": False}[str(value).lower()]
        return int(str(value)) if isinstance(old, int) else float(str(value))
    except (KeyError, ValueError):
        raise BadRequest(f"{name} must be a value like {old!r}, not {value!r}") from None
