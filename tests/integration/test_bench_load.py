"""`lte bench load` on a real broker and daemon with the stub model; Ctrl-C keeps the figures."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest
from real_parts import missing_part

from daemon.settings import Settings
from ops.bench import load
from ops.bench.load import closed_loop
from ops.kafka.broker import missing_tools

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.timeout(1200)]
STUBS = Settings.model_validate({"model": {"path": "stub"}, "encoder": {"model": "stub"}})
COMMAND = ("bench", "load", "--quick", "--model", "stub", "--encoder", "stub", "--minutes", "10", "--json")


@pytest.fixture(scope="module", autouse=True)
def _tools() -> None:
    if tools := missing_tools():
        missing_part(f"missing: {', '.join(tools)}")


def test_questions_events_and_a_realignment_together() -> None:
    lines: list[tuple[str, float | None]] = []
    result = load.run(
        True,
        lambda text, done=None: lines.append((text, done)),
        STUBS,
        minutes=0.2,
        share=0.2,
        events_per_s=50.0,
        realign=True,
    )
    figures = result.to_json()
    print(json.dumps(figures))
    assert figures["n"] == pytest.approx(figures["share"] * figures["capacity_per_s"] * 12, rel=0.3)
    assert (figures["dropped"], figures["errors"], figures["wrong"]) == (0, {}, 0)
    assert (figures["lag_at_end"], figures["event_errors"], figures["interrupted"]) == (0, {}, False)
    assert figures["events"] == pytest.approx(50 * 12, rel=0.2)
    assert 0 < figures["p50_ms"] <= figures["p90_ms"] <= figures["p99_ms"] <= figures["p999_ms"]
    assert figures["first_window"]["n"] + figures["last_window"]["n"] == figures["n"]
    assert figures["realignment"]["state"] == "done", figures["realignment"]
    assert figures["beside_realignment"]["n"] > 0
    assert figures["events_visible"]["n"] >= 5
    assert figures["rss_start_mib"] > 10
    assert figures["rss_peak_mib"] >= figures["rss_end_mib"]
    assert figures["topic_bytes_per_event"] > 100
    shares = [done for _, done in lines if done is not None]
    assert shares == sorted(shares)
    assert shares[-1] <= 1


@pytest.fixture
def bench() -> Iterator[subprocess.Popen[str]]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LTE_")}
    # A shell starts what it puts into the background with SIGINT ignored, and so would the suite start this.
    as_at_a_terminal = (
        "import runpy, signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "runpy.run_module('daemon', run_name='__main__', alter_sys=True)"
    )
    started = subprocess.Popen(
        [sys.executable, "-c", as_at_a_terminal, *COMMAND],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    yield started
    started.kill()
    started.communicate()


def test_ctrl_c_gives_the_figures_so_far(bench: subprocess.Popen[str]) -> None:
    assert bench.stderr
    lines = list(until_line(bench.stderr, "of 10:00"))
    bench.send_signal(signal.SIGINT)
    out, errors = bench.communicate(timeout=300)
    assert bench.returncode == 130, (lines, errors)
    figures = json.loads(out)
    assert figures["interrupted"]
    assert figures["minutes"] < 10
    assert (figures["dropped"], figures["wrong"], figures["lag_at_end"]) == (0, 0, 0)
    assert "Traceback" not in errors


def until_line(stream: Iterator[str], text: str) -> Iterator[str]:
    for line in stream:
        yield line
        if text in line:
            return


def test_what_a_caller_of_the_closed_loop_raises_is_raised() -> None:
    def ask(number: int) -> None:
        if number == 3:
            raise RuntimeError("refused")

    with pytest.raises(RuntimeError, match="refused"):
        closed_loop(ask, 2, 0.2)
