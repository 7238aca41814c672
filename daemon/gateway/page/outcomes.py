"""What a part of the page shows: a value, or a problem that says what to do."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from daemon.gateway import errors
from daemon.gateway.errors import HttpError, Kind
from lte_runtime.errors import LteError

V = TypeVar("V")

_TEXTS: Mapping[Kind, tuple[str, str]] = {
    errors.INVALID: ("This cannot be taken", ""),
    errors.UNAUTHENTICATED: (
        "A token is needed",
        "Load the page again, and sign in with a token.",
    ),
    errors.DENIED: ("Not allowed with this token", "Sign out, and in again with a token that may do it."),
    errors.NOT_FOUND: ("Not there", ""),
    errors.REFUSED: ("Refused", ""),
    errors.OVERLOADED: ("Busy", "Try again in a moment."),
    errors.UNAVAILABLE: (
        "The daemon does not answer",
        "Start it with `lte up` or `lte serve`; `lte status` on its machine says what it does.",
    ),
    errors.TIMED_OUT: (
        "It took too long",
        "Try again. `lte status` shows how many questions wait.",
    ),
}
_UNEXPECTED = ("Something went wrong", "The daemon's log has more.")


@dataclass(frozen=True, slots=True)
class Problem:
    """`title` for everybody, `message` as the daemon gave it, `advice` what to do."""

    title: str
    message: str
    advice: str
    kind: Kind

    @property
    def closed(self) -> bool:
        """Whether another token would help."""
        return self.kind in (errors.UNAUTHENTICATED, errors.DENIED)


@dataclass(frozen=True, slots=True)
class Outcome(Generic[V]):
    """One of `value` and `problem` is there."""

    value: V | None = None
    problem: Problem | None = None

    @property
    def status(self) -> int:
        return self.problem.kind.status if self.problem else 200


async def attempt(work: Awaitable[V]) -> Outcome[V]:
    """The result of calls of the daemon, or what they ended in."""
    try:
        return Outcome(await work)
    except HttpError as error:
        return Outcome(problem=problem_of(error))
    except LteError as error:
        return Outcome(problem=problem_of(errors.of_error(error)))


def problem_of(error: HttpError) -> Problem:
    """What the page says of an error."""
    title, advice = _TEXTS.get(error.kind, _UNEXPECTED)
    return Problem(title, str(error), advice, error.kind)
