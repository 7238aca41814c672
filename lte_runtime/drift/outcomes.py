"""From answered probes to readings: shares by kind, retrieval hits and the gate's margin. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lte_runtime.drift import readings as r
from lte_runtime.drift.probes import DriftProbe, ProbeKind, score
from lte_runtime.drift.readings import Reading

BATCH = 16


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """A probe with what came back: the text, the ids of the cited edits, and gate score less threshold."""

    probe: DriftProbe
    text: str
    cited: frozenset[str]
    margin: float

    @property
    def hit(self) -> bool:
        """Whether every fact that the probe is made from was cited."""
        return self.cited >= set(self.probe.edit_ids)


def readings_of(results: Sequence[ProbeResult], time_ms: int, batch: int = BATCH) -> tuple[Reading, ...]:
    """Readings of at most `batch` outcomes each, in the order of asking.

    Retrieval and gate are read from verbatim probes alone: a change of the mix is not a change of quality.
    """
    shares = score([(result.probe, result.text) for result in results], time_ms, batch)
    verbatim = [result for result in results if result.probe.kind is ProbeKind.VERBATIM]
    return (*shares, *_retrieval(verbatim, time_ms, batch))


def _retrieval(verbatim: Sequence[ProbeResult], time_ms: int, batch: int) -> Iterator[Reading]:
    for start in range(0, len(verbatim), batch):
        part = verbatim[start : start + batch]
        yield r.share(r.RETRIEVAL_HITS, [result.hit for result in part], time_ms)
        margin = sum(result.margin for result in part) / len(part)
        yield Reading(r.GATE_MARGIN, margin, len(part), time_ms)


def shares_of(name: str, outcomes: Sequence[bool], time_ms: int, batch: int = BATCH) -> tuple[Reading, ...]:
    """Outcomes in order as readings of at most `batch` each."""
    return tuple(
        r.share(name, outcomes[start : start + batch], time_ms) for start in range(0, len(outcomes), batch)
    )
