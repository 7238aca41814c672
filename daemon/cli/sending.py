"""Events to Kafka, and the wait until questions can see them."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from daemon.cli import connect, output
from daemon.cli.connect import Where
from daemon.cli.event_input import Event
from lte_runtime.errors import LteError, NotFound, Retry

if TYPE_CHECKING:
    from daemon.client import Client
    from lte_runtime.types import Position

_CHUNK = 500
_CHECKED = 1000


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
                raise type(error)(f"{error}{_before(sent)}{_broker_hint(error)}") from error
            sent += chunk
            bar.advance(len(chunk))
    return Sent(sent, positions, time.monotonic() - started)


def wait(where: Where, sent: Sent, timeout_s: float) -> tuple[float, list[Event]]:
    """Seconds until questions can see all of it, and the events that the daemon refused as no edits."""
    started = time.monotonic()
    with connect.client(where) as daemon:
        at_least = _last_of_each_partition(sent.positions)
        daemon.retrieve("?", at_least=at_least, timeout_s=timeout_s)
        seconds = time.monotonic() - started
        refused = _refused(daemon, sent)
    return seconds, refused


def report(sent: Sent, waited: tuple[float, list[Event]] | None, json_: bool) -> None:
    """What happened, for people or programs."""
    seconds, refused = waited or (None, [])
    if json_:
        output.as_json(
            {
                "published": len(sent.positions),
                "positions": [f"{p.topic_id}/{p.partition}/{p.offset}" for p in sent.positions],
                "published_ms": round(sent.seconds * 1000, 3),
                "answerable_ms": None if seconds is None else round(seconds * 1000, 3),
                "refused": refused,
            }
        )
        return
    word = "event" if len(sent.positions) == 1 else "events"
    output.note(f"published {len(sent.positions)} {word} in {sent.seconds * 1000:.0f} ms{_ends(sent)}")
    if seconds is not None:
        output.note(f"answerable after {seconds * 1000:.0f} ms more{_unchecked(sent)}")
    for event in refused:
        output.note(f"refused, see `lte dlq list`: {event}")


def _before(sent: Sequence[Event]) -> str:
    return f"; {len(sent)} events were published before it" if sent else ""


def _broker_hint(error: LteError) -> str:
    if not isinstance(error, Retry):
        return ""
    return "\nname the broker with --bootstrap, LTE_KAFKA__BOOTSTRAP or lte.toml; `make up` starts one to try"


def _unchecked(sent: Sent) -> str:
    more = len(sent.events) - _CHECKED
    return f"; {more} of them not looked up one by one, see `lte dlq list`" if more > 0 else ""


def _ends(sent: Sent) -> str:
    last = [f"{at['partition']}/{at['offset']}" for at in _last_of_each_partition(sent.positions)]
    return f", up to partition/offset {', '.join(last)}" if last else ""


def _last_of_each_partition(positions: Sequence[Position]) -> list[dict[str, Any]]:
    last = {at.topic_partition: at for at in sorted(positions)}
    return [{"topic_id": at.topic_id, "partition": at.partition, "offset": at.offset} for at in last.values()]


def _refused(daemon: Client, sent: Sent) -> list[Event]:
    """Events that became no edit of their key: what `--wait` must not call answerable.

    Looked up through the key's history, which everybody may read, for the first `_CHECKED` events.
    """
    pairs = zip(sent.events[:_CHECKED], sent.positions, strict=False)
    return [event for event, at in pairs if _has_key(event) and not _known(daemon, event, at)]


def _has_key(event: Event) -> bool:
    return bool(event.get("prompt") or (event.get("subject") and event.get("relation")))


def _known(daemon: Client, event: Event, at: Position) -> bool:
    key = {
        "subject": event.get("prompt") or event["subject"],
        "relation": event.get("relation") or "",
        "namespace": event.get("namespace") or "default",
    }
    place = {"topic_id": at.topic_id, "partition": at.partition, "offset": at.offset}
    history = connect.paged(daemon.history_page, "edits", sys.maxsize, **key)
    try:
        return any(place in edit["positions"] or edit["id"] == event.get("id") for edit in history)
    except NotFound:
        return False


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
