"""Who sends bad records: a sliding window per publisher. Pure; `now` is monotonic seconds."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from lte_runtime.types import RawRecord

UNKNOWN = "unknown"
OTHER = "other"
# A minute: long enough to tell a faulty publisher from one bad record, short enough that the alert ends soon
# after the fault.
WINDOW_S = 60.0
# Both must be met: fewer bad records are dealt with one by one in the quarantine, and a publisher of
# thousands has some bad ones without being at fault.
MIN_BAD, BAD_SHARE = 20, 0.2
# A publisher names itself, so names are bounded: made-up ones must not fill the memory.
MAX_PUBLISHERS = 1000


@dataclass(frozen=True)
class GuardSettings:
    """A publisher is suspect with at least `min_bad` bad records in `window_s`, being `share` of its own."""

    window_s: float = WINDOW_S
    min_bad: int = MIN_BAD
    share: float = BAD_SHARE
    max_publishers: int = MAX_PUBLISHERS


@dataclass(slots=True)
class _Window:
    """Counts per second: (second, good, bad)."""

    seconds: deque[tuple[int, int, int]] = field(default_factory=deque)
    good: int = 0
    bad: int = 0

    def add(self, second: int, good: int, bad: int) -> None:
        if self.seconds and self.seconds[-1][0] == second:
            _, old_good, old_bad = self.seconds.pop()
            self.seconds.append((second, old_good + good, old_bad + bad))
        else:
            self.seconds.append((second, good, bad))
        self.good, self.bad = self.good + good, self.bad + bad

    def forget(self, before: int) -> None:
        while self.seconds and self.seconds[0][0] < before:
            _, good, bad = self.seconds.popleft()
            self.good, self.bad = self.good - good, self.bad - bad


class PublisherGuard:
    """Counts good and bad records per publisher; names beyond `max_publishers` share one window."""

    def __init__(self, settings: GuardSettings) -> None:
        self._settings = settings
        self._windows: dict[str, _Window] = {}

    def note(self, publisher: str, now: float, *, good: int = 0, bad: int = 0) -> None:
        has_window = publisher in self._windows or len(self._windows) < self._settings.max_publishers
        window = self._windows.setdefault(publisher if has_window else OTHER, _Window())
        window.add(int(now), good, bad)

    def suspects(self, now: float) -> tuple[str, ...]:
        """Publishers over the limit; forgets what lies before the window."""
        self._forget(now)
        return tuple(sorted(name for name, window in self._windows.items() if self._is_suspect(window)))

    def bad_counts(self) -> dict[str, int]:
        """Bad records per publisher within the window."""
        return {name: window.bad for name, window in self._windows.items() if window.bad}

    def _is_suspect(self, window: _Window) -> bool:
        total = window.good + window.bad
        return window.bad >= self._settings.min_bad and window.bad >= self._settings.share * total

    def _forget(self, now: float) -> None:
        for name, window in list(self._windows.items()):
            window.forget(int(now - self._settings.window_s))
            if not window.seconds:
                del self._windows[name]


def publisher_of(record: RawRecord) -> str:
    """Best guess at who sent a record that could not be decoded: a header, else the body's own word."""
    headers = dict(record.headers)
    return next(_claims(headers, record.value), UNKNOWN)


def _claims(headers: dict[str, bytes], value: bytes | None) -> Iterator[str]:
    for name in ("publisher", "ce_source"):
        if text := headers.get(name, b"").decode("utf-8", "replace")[:200]:
            yield text
    source = _source_of(value)
    if isinstance(source, dict) and isinstance(source.get("publisher"), str):
        yield source["publisher"][:200] or UNKNOWN


def _source_of(value: bytes | None) -> object:
    # A body that is large or nested is not worth a parser: its publisher stays unknown.
    if not value or len(value) > 64 * 1024 or value.count(b"{") + value.count(b"[") > 200:
        return None
    try:
        body = json.loads(value)
    except (ValueError, RecursionError):
        return None
    return body.get("source") if isinstance(body, dict) else None
