"""Events to Kafka, and the wait until questions can see them."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from daemon.cli import connect, output
from daemon.cli.connect import Where
from daemon.cli.event_input import Event
from lte_runtime.errors import LteError, NotFound, Retry
from lte_runtime.facts.events import FOREIGN_NAME, LONG_KEY, LONG_STATEMENT, WEAK_NAME

if TYPE_CHECKING:
    from daemon.client import Client
    from lte_runtime.types import Position

_CHUNK = 500
_CHECKED = 1000
# The default encoder reads 256 word pieces, two of them its own marks, and a word is one piece or more.
_READ_WORDS = 254
_LONG = {
    LONG_KEY: "prompt (or subject and relation) longer than the encoder reads at once: searched in parts",
    LONG_STATEMENT: "statement longer than the encoder reads: shown to the model, but not searched; "
    "questions find the fact by subject, relation, prompt and names",
}
_NAMES = {
    FOREIGN_NAME: "a name that facts of another publisher have: answers from it are flagged ambiguous",
    WEAK_NAME: "a name that says too little, a function word or a single letter: give the full name",
}


@dataclass(frozen=True)
class Waited:
    """How long it took until questions could see the events, those that the daemon refused as no edits, and
    how many it flagged for texts longer than its encoder reads, or for their names."""

    seconds: float
    refused: Sequence[Event]
    long_texts: Mapping[str, int]
    doubtful_names: Mapping[str, int]


@dataclass(frozen=True)
class Sent:
    """What was published, in order, and how long it took."""

    events: Sequence[Event]
    positions: Sequence[Position]
    seconds: float


def send(where: Where, events: Iterable[Event], *, progress: bool = False) -> Sent:
    """Publish in chunks, each acknowledged. Raises `Retry` without a broker, `BadRequest` for a bad event."""
    from daemon.kafka.publisher import Publisher, PublisherSettings

    settings = PublisherSettings(
        bootstrap=where.bootstrap or "", topic=where.topic or "", security=dict(where.security or {})
    )
    sent: list[Event] = []
    positions: list[Position] = []
    started = time.monotonic()
    with Publisher(settings) as publisher, _bar(progress) as bar:
        for chunk in _chunks(events):
            try:
                positions += publisher.publish(chunk)
            except LteError as error:
                raise type(error)(f"{error}{_already_published(sent)}{_broker_hint(error)}") from error
            sent += chunk
            bar.advance(len(chunk))
    return Sent(sent, positions, time.monotonic() - started)


def wait(where: Where, sent: Sent, timeout_s: float) -> Waited:
    """Wait until questions can see all of it, and look up what became of it."""
    started = time.monotonic()
    with connect.client(where) as daemon:
        at_least = _last_of_each_partition(sent.positions)
        daemon.retrieve("?", at_least=at_least, timeout_s=timeout_s)
        seconds = time.monotonic() - started
        edits = _edits_of(daemon, sent)
    refused = [event for event, edit in edits if edit is None]
    flags = Counter(flag for _, edit in edits if edit for flag in edit.get("flags", ()))
    long_texts, names = ({flag: flags[flag] for flag in of if flags[flag]} for of in (_LONG, _NAMES))
    return Waited(seconds, refused, long_texts, names)


def report(sent: Sent, waited: Waited | None, json_: bool) -> None:
    """What happened, for people or programs."""
    seconds, refused = (waited.seconds, waited.refused) if waited else (None, [])
    long_texts = waited.long_texts if waited else _surely_long(sent.events)
    doubtful_names = waited.doubtful_names if waited else {}
    if json_:
        output.as_json(
            {
                "published": len(sent.positions),
                "positions": [f"{p.topic_id}/{p.partition}/{p.offset}" for p in sent.positions],
                "published_ms": round(sent.seconds * 1000, 3),
                "answerable_ms": None if seconds is None else round(seconds * 1000, 3),
                "refused": refused,
                "long_texts": long_texts,
                "doubtful_names": doubtful_names,
            }
        )
        return
    word = "event" if len(sent.positions) == 1 else "events"
    output.note(
        f"published {len(sent.positions)} {word} in {sent.seconds * 1000:.0f} ms{_last_offsets(sent)}"
    )
    if seconds is not None:
        output.note(f"answerable after {seconds * 1000:.0f} ms more{_unchecked(sent)}")
    for flag, count in (*long_texts.items(), *doubtful_names.items()):
        output.note(f"{count} of them: {(_LONG | _NAMES)[flag]}")
    for event in refused:
        output.note(f"refused, see `lte dlq list`: {event}")


def _already_published(sent: Sequence[Event]) -> str:
    return f"; {len(sent)} events were published before it" if sent else ""


def _broker_hint(error: LteError) -> str:
    if not isinstance(error, Retry):
        return ""
    return "\nname the broker with --bootstrap, LTE_KAFKA__BOOTSTRAP or lte.toml; `make up` starts one to try"


def _unchecked(sent: Sent) -> str:
    more = len(sent.events) - _CHECKED
    return f"; {more} of them not looked up one by one, see `lte dlq list`" if more > 0 else ""


def _last_offsets(sent: Sent) -> str:
    last = [f"{at['partition']}/{at['offset']}" for at in _last_of_each_partition(sent.positions)]
    return f", up to partition/offset {', '.join(last)}" if last else ""


def _last_of_each_partition(positions: Sequence[Position]) -> list[dict[str, Any]]:
    last = {at.topic_partition: at for at in sorted(positions)}
    return [{"topic_id": at.topic_id, "partition": at.partition, "offset": at.offset} for at in last.values()]


def _edits_of(daemon: Client, sent: Sent) -> list[tuple[Event, Event | None]]:
    """Events with the edit that each became; None is what `--wait` must not call answerable.

    Looked up through the key's history, which everybody may read, for the first `_CHECKED` events.
    """
    pairs = zip(sent.events[:_CHECKED], sent.positions, strict=False)
    return [(event, _edit(daemon, event, at)) for event, at in pairs if _has_key(event)]


def _surely_long(events: Sequence[Event]) -> dict[str, int]:
    """Events by flag whose texts have more words than the default encoder reads; the daemon knows of more."""
    counts = Counter(flag for event in events for flag in _surely_long_texts(event))
    return {flag: counts[flag] for flag in _LONG if counts[flag]}


def _surely_long_texts(event: Event) -> Iterator[str]:
    key = " ".join(str(event.get(name) or "") for name in ("prompt", "relation", "subject"))
    if len(key.split()) > _READ_WORDS:
        yield LONG_KEY
    statement = str(event.get("statement") or f"{key} {event.get('target') or ''}")
    if len(statement.split()) > _READ_WORDS:
        yield LONG_STATEMENT


def _has_key(event: Event) -> bool:
    return bool(event.get("prompt") or (event.get("subject") and event.get("relation")))


def _edit(daemon: Client, event: Event, at: Position) -> Event | None:
    key = {
        "subject": event.get("prompt") or event["subject"],
        "relation": event.get("relation") or "",
        "namespace": event.get("namespace") or "default",
    }
    place = {"topic_id": at.topic_id, "partition": at.partition, "offset": at.offset}
    history = connect.paged(daemon.history_page, "edits", sys.maxsize, **key)
    try:
        return next(
            (edit for edit in history if place in edit["positions"] or edit["id"] == event.get("id")), None
        )
    except NotFound:
        return None


def _chunks(events: Iterable[Event]) -> Iterator[list[Event]]:
    iterator = iter(events)
    while chunk := list(islice(iterator, _CHUNK)):
        yield chunk


class _Silent:
    """A progress bar for pipes: none."""

    def __enter__(self) -> _Silent:
        return self

    def __exit__(self, *_: object) -> None:
        return

    def advance(self, count: int) -> None:
        """Nothing to show."""


class _Bar(_Silent):
    """Counts events on stderr."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        columns = (SpinnerColumn(), TextColumn("publishing"), MofNCompleteColumn(), TimeElapsedColumn())
        self._progress = Progress(*columns, console=Console(stderr=True), transient=True)
        self._task = self._progress.add_task("publishing", total=None)

    def __enter__(self) -> _Bar:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def advance(self, count: int) -> None:
        self._progress.advance(self._task, count)


def _bar(shown: bool) -> _Silent:
    return _Bar() if shown else _Silent()
