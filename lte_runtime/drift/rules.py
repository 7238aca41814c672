"""The default rules: which reading becomes a reason at what value, and how sure a change must be.

The levels of the scans are an allotment of false alarms: all detectors together stay below one in 10,000
stationary cycles (`lte bench drift`), and most of it goes to edit success, which must be found fastest.
"""

from __future__ import annotations

from lte_runtime.drift import readings as r
from lte_runtime.drift.detectors import Bad, ChangeDetector, Scan, Threshold

THRESHOLDS: tuple[Threshold, ...] = (
    Threshold(r.EDIT_SUCCESS, Bad.FALL, enter=0.80, leave=0.85, min_sample=256),
    Threshold(r.GENERALITY, Bad.FALL, enter=0.60, leave=0.65, min_sample=256),
    Threshold(r.LOCALITY, Bad.FALL, enter=0.85, leave=0.90, min_sample=256),
    Threshold(r.RETRIEVAL_HITS, Bad.FALL, enter=0.80, leave=0.85, min_sample=256),
    Threshold(r.RECALL, Bad.FALL, enter=0.95, leave=0.98, min_sample=256),
    Threshold(r.GATE_MARGIN, Bad.FALL, enter=0.05, leave=0.08, min_sample=256),
    Threshold(r.UNSEEN_RELATIONS, Bad.RISE, enter=0.15, leave=0.05, min_sample=192),
    Threshold(r.EDITS_SINCE, Bad.RISE, enter=10_000, leave=0, min_sample=1),
    Threshold(r.QUESTION_SHIFT, Bad.FALL, enter=0.01, leave=0.05, min_sample=64, hold=3),
    Threshold(r.EVENT_SHIFT, Bad.FALL, enter=0.01, leave=0.05, min_sample=64, hold=3),
    Threshold(r.NEGATIVE_FEEDBACK, Bad.RISE, enter=0.30, leave=0.15, min_sample=64),
)

# 288 is the last multiple of a batch of 16 probes within 300: a fall of 0.10 has to show in it.
_MAIN = (Scan(64, 1e-6), Scan(288, 3e-5), Scan(960, 2e-6))
_OTHER = (Scan(64, 5e-7), Scan(288, 1e-6), Scan(960, 5e-7))

CHANGES: tuple[ChangeDetector, ...] = (
    ChangeDetector(r.EDIT_SUCCESS, Bad.FALL, _MAIN),
    *(
        ChangeDetector(name, Bad.FALL, _OTHER)
        for name in (r.GENERALITY, r.ALIAS, r.PORTABILITY, r.LOCALITY, r.CHOICE, r.RETRIEVAL_HITS, r.RECALL)
    ),
    ChangeDetector(r.NEGATIVE_FEEDBACK, Bad.RISE, _OTHER),
)
