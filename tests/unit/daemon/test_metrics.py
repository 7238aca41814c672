"""The metrics catalogue: what is fed appears, names are declared once, promtool finds no fault."""

from __future__ import annotations

import os
import shutil
import subprocess
import urllib.request

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from daemon import metrics as catalogue
from daemon.metrics import GAUGES, Metrics, MetricsServer, Readings, Spec
from lte_runtime.errors import Refused


def _full_readings() -> Readings:
    return {spec.name: {("x",) * len(spec.labels): 1.0} if spec.labels else 2.0 for spec in GAUGES}


def _fed() -> Metrics:
    metrics = Metrics()
    metrics.watch(_full_readings)
    metrics.ingested(
        events=5,
        applied=3,
        duplicates=1,
        long_texts={"long_key": 2},
        flagged={"foreign_name": 4},
        rejected={"not_json": 1},
        stages_ms={"encode": 4.0},
    )
    metrics.fresh([0.004, -1.0])
    metrics.gated(opened=True, score=0.93)
    metrics.answered(scope="edited", code="OK", seconds=0.03, stages_ms={"model": 25.0}, tokens=7)
    metrics.rebuilt(2)
    metrics.ran("snapshot", ok=True, seconds=0.2)
    return metrics


def _samples(metrics: Metrics) -> dict[tuple[str, tuple[str, ...]], float]:
    families = text_string_to_metric_families(generate_latest(metrics.registry).decode())
    return {(s.name, tuple(s.labels.values())): s.value for family in families for s in family.samples}


def test_what_is_fed_is_exported() -> None:
    samples = _samples(_fed())
    assert samples["lte_ingest_events_total", ()] == 5
    assert samples["lte_ingest_long_texts_total", ("long_key",)] == 2
    assert samples["lte_ingest_flagged_total", ("foreign_name",)] == 4
    assert samples["lte_ingest_rejected_total", ("not_json",)] == 1
    assert samples["lte_freshness_seconds_count", ()] == 2
    assert samples["lte_freshness_seconds_bucket", ("0.002",)] == 1
    assert samples["lte_gate_decisions_total", ("open",)] == 1
    assert samples["lte_answers_total", ("OK", "edited")] == 1
    assert samples["lte_answer_tokens_total", ("edited",)] == 7
    assert samples["lte_index_rebuilds_total", ()] == 2
    assert samples["lte_job_runs_total", ("snapshot", "ok")] == 1


def test_every_declared_metric_is_exported_with_its_help() -> None:
    declared = [value for value in vars(catalogue).values() if isinstance(value, Spec)] + list(GAUGES)
    text = generate_latest(_fed().registry).decode()
    for spec in declared:
        assert f"# HELP {spec.name} {spec.help}" in text


def test_names_are_declared_once() -> None:
    names = [value.name for value in vars(catalogue).values() if isinstance(value, Spec)]
    names += [spec.name for spec in GAUGES]
    assert len(names) == len(set(names))


def test_gauges_are_read_at_each_scrape() -> None:
    depth = iter([1.0, 7.0])
    metrics = Metrics()
    metrics.watch(lambda: {"lte_queue_depth": next(depth)})
    assert _samples(metrics)["lte_queue_depth", ()] == 1
    assert _samples(metrics)["lte_queue_depth", ()] == 7


def test_a_part_that_comes_later_is_read_too() -> None:
    metrics = Metrics()
    metrics.watch(lambda: {"lte_queue_depth": 1.0})
    assert ("lte_memory_edits", ()) not in _samples(metrics)
    metrics.watch(lambda: {"lte_memory_edits": 5.0})
    samples = _samples(metrics)
    assert (samples["lte_queue_depth", ()], samples["lte_memory_edits", ()]) == (1, 5)


def test_an_undeclared_reading_is_an_error() -> None:
    metrics = Metrics()
    metrics.watch(lambda: {"lte_surprise": 1.0})
    with pytest.raises(KeyError, match="lte_surprise"):
        generate_latest(metrics.registry)


def test_the_endpoint_serves_on_loopback_and_stops() -> None:
    server = MetricsServer(_fed(), "127.0.0.1:0")
    try:
        with urllib.request.urlopen(f"http://{server.address}/metrics", timeout=10) as reply:
            assert b"lte_ingest_applied_total 3.0" in reply.read()
    finally:
        server.stop()
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(f"http://{server.address}/metrics", timeout=10)


def test_an_address_in_use_is_refused_with_what_to_do() -> None:
    server = MetricsServer(Metrics(), "127.0.0.1:0")
    try:
        with pytest.raises(Refused, match=r"set metrics\.listen"):
            MetricsServer(Metrics(), server.address)
    finally:
        server.stop()


def test_promtool_finds_no_fault() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        assert os.environ.get("LTE_REQUIRE_ALL") != "1", "promtool is missing: apt-get install prometheus"
        pytest.skip("promtool is not installed: apt-get install prometheus")
    checked = subprocess.run(
        [promtool, "check", "metrics"],
        input=generate_latest(_fed().registry),
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert checked.returncode == 0, checked.stderr.decode() + checked.stdout.decode()
