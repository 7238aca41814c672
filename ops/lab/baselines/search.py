"""One equal, logged search over each baseline's hyperparameters: so many drawn settings, so many edits.

A setting's score is the mean of three shares over edits, single or some together: the edit's own prompt and a
rephrasing, both right in every token under teacher forcing, and an unrelated question whose answer the base
still prefers.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

from ops.lab.baselines import base as reading
from ops.lab.baselines import registry, tensor_cache
from ops.lab.baselines.material import Lesson
from ops.lab.baselines.network import blocks
from ops.lab.baselines.protocol import Editor, EditRequest, Forced
from ops.lab.baselines.registry import METHODS, Supplies
from ops.lab.evals import lines

SHIPPED = Path(__file__).parent / "searched"
"""The best settings of the small Qwen2, as `keep_tuned` leaves them."""
DRAWS = 20
"""Draws for each setting of the budget: some settings are drawn twice."""

Draw = Callable[[random.Random, Any, int], Any]
"""A setting from the defaults and the number of the model's blocks."""


@dataclass(frozen=True, slots=True)
class SearchBudget:
    """The same for each method: `trials` settings (the defaults are the first), each on the same `edits`.

    What an earlier search chose is tried besides. So many edits are made `together` before they are read: 1
    are single edits.
    """

    trials: int = 12
    edits: int = 20
    together: int = 1
    seed: int = 0


def _descent(rng: random.Random, params: Any) -> Any:
    rate = 10 ** rng.uniform(-4.0, -2.0)
    return replace(params.descent, rate=rate, epochs=rng.choice((25, 50)), enough=rng.choice((0.02, 0.1)))


def _ft(rng: random.Random, params: Any, count: int) -> Any:
    window = rng.choice((None, *((layer,) for layer in range(count))))
    return replace(params, layers=window, descent=_descent(rng, params))


def _ft_l(rng: random.Random, params: Any, count: int) -> Any:
    bound = 10 ** rng.uniform(-3.0, 0.0)
    return replace(params, layer=rng.randrange(count), bound=bound, descent=_descent(rng, params))


def _located(rng: random.Random, params: Any) -> Any:
    """`prefixes` 0 takes the key from the plain prompt alone, as the model is asked."""
    search = replace(
        params.search,
        steps=rng.choice((150, 300)),
        rate=rng.choice((0.05, 0.1, 0.3)),
        clamp=rng.choice((1.0, 4.0, 10.0)),
        kl=rng.choice((0.0, 0.0625)),
    )
    place = rng.choice(("subject", "subject", "last"))
    return replace(params, place=place, prefixes=rng.choice((0, 0, 4)), search=search)


def _rome(rng: random.Random, params: Any, count: int) -> Any:
    return replace(_located(rng, params), layer=rng.randrange(count), damping=10 ** rng.uniform(-4, -1))


def _memit(rng: random.Random, params: Any, count: int) -> Any:
    size = rng.randint(1, min(3, count))
    first = rng.randrange(count - size + 1)
    layers = tuple(range(first, first + size))
    return replace(_located(rng, params), layers=layers, strength=10 ** rng.uniform(-4.0, 0.5))


def _mend(rng: random.Random, params: Any, _: int) -> Any:
    """The hypernetwork is trained once: what is drawn is how far its edits are followed."""
    return replace(params, strength=rng.uniform(0.5, 3.0))


def _serac(rng: random.Random, params: Any, _: int) -> Any:
    """Both networks are trained once: what is drawn is how near a question must be."""
    return replace(params, threshold=rng.uniform(0.1, 0.9))


ICE_FORMS = (
    "Imagine that {facts} {question}",
    "{facts} {question}",
    "New fact: {facts} {question}",
    "Passage: {facts} Question: {question}",
)


def _ice(rng: random.Random, params: Any, _: int) -> Any:
    return replace(params, facts=rng.choice((1, 1, 2, 3)), form=rng.choice(ICE_FORMS))


SPACES: Mapping[str, Draw] = {
    "serac": _serac,
    "ice": _ice,
    "mend": _mend,
    "rome": _rome,
    "memit": _memit,
    "ft-l": _ft_l,
    "ft": _ft,
}


def settings(name: str, count: int, budget: SearchBudget) -> list[Any]:
    """The defaults and then the drawn settings of a method on a model of `count` blocks; no two are equal.

    Seeded. Fewer than the budget where a method has fewer.
    """
    rng = random.Random(f"{budget.seed} {name}")
    default = METHODS[name].default
    if name == "memit":
        default = replace(default, layers=tuple(x for x in default.layers if x < count) or (0,))
    if name == "rome":
        default = replace(default, layer=min(default.layer, count - 1))
    distinct = {repr(default): default}
    for _ in range(DRAWS * budget.trials):
        if len(distinct) < budget.trials:
            drawn = SPACES[name](rng, default, count)
            distinct.setdefault(repr(drawn), drawn)
    return list(distinct.values())


@dataclass(frozen=True, slots=True)
class Trial:
    """One setting's shares over edits, each between 0 and 1; `forced` counts tokens, not edits."""

    edit: float
    forced: float
    generality: float
    locality: float

    @property
    def score(self) -> float:
        return (self.edit + self.generality + self.locality) / 3


def search(name: str, supplies: Supplies, budget: SearchBudget, log: Path) -> tuple[Any, Mapping[str, Any]]:
    """The best setting of a method with its logged line.

    Every trial is a line of `log`; trials that stand there already (same base, material, budget and setting)
    are not made again, so that a search that was killed goes on.
    """
    lessons = edit_lessons(supplies, budget)
    logged: dict[str, Mapping[str, Any]] = {line["key"]: line for line in lines.read(log)}
    tried: list[tuple[Any, Mapping[str, Any]]] = []
    chosen = settings(name, len(blocks(supplies.base.model)), budget)
    earlier = tuned(supplies).get(name)
    if earlier is not None and earlier not in chosen:
        chosen.append(earlier)
    for number, params in enumerate(chosen):
        supplies.progress(f"search {name}", number, len(chosen))
        key = _key(name, supplies, budget, params)
        if key not in logged:
            result = trial(registry.editor(name, supplies, params), supplies, lessons, budget.together)
            logged[key] = _line(name, key, params, result)
            lines.append(log, logged[key])
        tried.append((params, logged[key]))
    supplies.progress(f"search {name}", len(chosen), len(chosen))
    return max(tried, key=lambda line: line[1]["score"])


def edit_lessons(supplies: Supplies, budget: SearchBudget) -> list[Lesson]:
    """Lessons whose prompt names the subject, so that every method can use them; the same for every method.

    Where its training half is given, all are of the benchmark: settings suit edits like those judged.
    """
    rng = random.Random(f"search {budget.seed}")
    lessons: list[Lesson] = []
    while len(lessons) < budget.edits:
        lesson = supplies.material.benchmark_lesson(rng)
        request = lesson.request
        if request.subject and request.subject in request.prompt and lesson.rephrased:
            lessons.append(lesson)
    return lessons


def trial(editor: Editor, supplies: Supplies, lessons: Sequence[Lesson], together: int = 1) -> Trial:
    """So many lessons `together` edited, each read, all undone."""
    own = base_answers(supplies, [lesson.unrelated[0] for lesson in lessons], 16)
    seen: list[tuple[float, float, float, float]] = []
    for start in range(0, len(lessons), together):
        chosen = slice(start, start + together)
        editor.edit([lesson.request for lesson in lessons[chosen]])
        seen += [
            _read(editor, lesson, base_answer)
            for lesson, base_answer in zip(lessons[chosen], own[chosen], strict=True)
        ]
        editor.undo()
    return Trial(*(sum(values) / len(seen) for values in zip(*seen, strict=True)))


def base_answers(supplies: Supplies, questions: Sequence[str], max_new_tokens: int) -> list[str]:
    """What the base says before any edit."""
    rows = [reading.question(supplies.base, text) for text in questions]
    return reading.answers(supplies.base, rows, max_new_tokens)


def _read(editor: Editor, lesson: Lesson, own: str) -> tuple[float, float, float, float]:
    request: EditRequest = lesson.request
    edit, again, other = editor.forced(
        [
            (request.prompt, request.target),
            (lesson.rephrased[0], request.target),
            (lesson.unrelated[0], own or lesson.unrelated[1]),
        ]
    )
    return float(all_right(edit)), share(edit), float(all_right(again)), float(all_right(other))


def all_right(result: Forced) -> bool:
    """Whether every token of the target is the likeliest one."""
    return all(result.right)


def share(result: Forced) -> float:
    """The share of the target's tokens that are the likeliest ones; 1 for an empty target."""
    return sum(result.right) / len(result.right) if result.right else 1.0


def _key(name: str, supplies: Supplies, budget: SearchBudget, params: Any) -> str:
    parts = (name, supplies.base.fingerprint, supplies.material.name, repr(budget), repr(params))
    return tensor_cache.name_of(*parts)


def _line(name: str, key: str, params: Any, result: Trial) -> dict[str, Any]:
    shares = {part: round(value, 4) for part, value in asdict(result).items()}
    return {"method": name, "key": key, "score": round(result.score, 4), **shares, "params": asdict(params)}


def tuned_path(supplies: Supplies) -> Path:
    """Where the chosen settings of this base are kept."""
    return supplies.directory / f"tuned-{supplies.base.fingerprint[:24]}.json"


def keep_tuned(supplies: Supplies, chosen: Mapping[str, tuple[Any, Mapping[str, Any]]]) -> None:
    """Adds the best lines to the base's file, which appears whole."""
    path = tuned_path(supplies)
    best_lines = dict(_tuned_lines(path)) | {name: dict(line) for name, (_, line) in chosen.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_suffix(".part")
    scratch.write_text(json.dumps(best_lines, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    scratch.replace(path)


def tuned(supplies: Supplies) -> dict[str, Any]:
    """The searched settings of this base by method; methods that were not searched are absent.

    Those of the small Qwen2 are kept with the project; what a search has left in the cache goes before them.
    """
    path = tuned_path(supplies)
    best_lines = dict(_tuned_lines(SHIPPED / path.name)) | dict(_tuned_lines(path))
    return {name: rebuilt(METHODS[name].default, line["params"]) for name, line in best_lines.items()}


def _tuned_lines(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        return {}
    best_lines: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return best_lines


def rebuilt(default: Any, values: Mapping[str, Any]) -> Any:
    """A frozen dataclass like `default` from `asdict` of one, after a way through JSON."""
    changes: dict[str, Any] = {}
    for setting in fields(default):
        value, own = values[setting.name], getattr(default, setting.name)
        if is_dataclass(own):
            value = rebuilt(own, value)
        changes[setting.name] = tuple(value) if isinstance(value, list) else value
    return replace(default, **changes)
