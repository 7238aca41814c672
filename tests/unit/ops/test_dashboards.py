"""Dashboards, rules and runbook: generated as committed, with names that exist, clean for promtool."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from real_parts import missing_part

from daemon import metrics as catalogue
from daemon.metrics import GATEWAY, GAUGES, Spec
from lte_runtime.drift import readings
from ops.monitoring import dashboards
from ops.monitoring.panels import BOARDS, SWAPS

ROOT = Path(__file__).resolve().parents[3]
RULES = ROOT / "ops/prometheus/lte.rules.yaml"
DECLARED = {spec.name for spec in (*vars(catalogue).values(), *GAUGES, *GATEWAY) if isinstance(spec, Spec)}
HISTOGRAMS = {name for name in DECLARED if name.endswith("_seconds") or name == "lte_gate_score"}
EXPORTED = DECLARED | {f"{name}{end}" for name in HISTOGRAMS for end in ("_bucket", "_sum", "_count")}


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(RULES.read_text("utf-8"))["groups"] for rule in group["rules"]]


ALERTS = {rule["alert"]: rule for rule in rules() if "alert" in rule}
RECORDED = {rule["record"] for rule in rules() if "record" in rule}
BOARD_QUERIES = [query.expr for board in BOARDS for panel in board.panels for query in panel.queries]


def named(expressions: list[str]) -> set[str]:
    return {name for text in expressions for name in re.findall(r"\blte[_:][\w:]+", text)}


def test_the_committed_files_are_those_that_the_tables_give() -> None:
    for path, text in dashboards.files().items():
        assert path.read_text("utf-8") == text, f"{path.name}: make dashboards"
    committed = set((ROOT / "ops/grafana/dashboards").iterdir())
    assert committed <= set(dashboards.files())


def test_every_name_in_dashboards_and_rules_is_declared() -> None:
    assert named([*BOARD_QUERIES, SWAPS.expr]) <= EXPORTED | RECORDED
    assert named([rule["expr"] for rule in rules()]) <= EXPORTED | RECORDED


def test_every_declared_metric_is_shown_or_alerted_on() -> None:
    """A new metric gets a panel, or is listed here with the reason."""
    without_a_panel: set[str] = set()
    queried = named([*BOARD_QUERIES, *(rule["expr"] for rule in rules())])
    bare = queried | {re.sub(r"_(bucket|sum|count)$", "", name) for name in queried}
    assert DECLARED - bare == without_a_panel


def test_enough_and_described() -> None:
    panels = [panel for board in BOARDS for panel in board.panels]
    assert len(BOARDS) >= 5
    assert len(BOARD_QUERIES) >= 40
    assert all(panel.description.endswith(".") for panel in panels)
    assert {panel.alert for panel in panels} - {""} <= ALERTS.keys()
    assert len({board.uid for board in BOARDS}) == len(BOARDS)
    assert all(panel.width <= 24 for panel in panels)


def test_queries_choose_the_source_the_daemon_and_the_range_by_variables() -> None:
    for path in (ROOT / "ops/grafana/dashboards").glob("*.json"):
        board = json.loads(path.read_text("utf-8"))
        assert [v["name"] for v in board["templating"]["list"]] == ["datasource", "instance", "runbook"]
        targets = [target for panel in board["panels"] for target in panel.get("targets", ())]
        assert {target["datasource"]["uid"] for target in targets} == {"${datasource}"}
        for target in targets:
            assert "instance=~" in target["expr"] or not re.search(
                r"lte_|lte:slo_[^a]", target["expr"].replace("lte_.*", "")
            )
            ranges = set(re.findall(r"\[([^\]]+)\]", target["expr"]))
            assert ranges <= {"$__rate_interval", "6h"}, target["expr"]


def test_every_reading_of_drift_has_a_panel() -> None:
    shown = set(re.findall(r'lte_drift_reading\{reading="(\w+)"', " ".join(BOARD_QUERIES)))
    assert shown == set(readings.NAMES)


def test_every_alert_says_what_it_is_and_has_an_entry_in_the_runbook() -> None:
    headings = re.findall(r"^## (\w+)$", dashboards.RUNBOOK.read_text("utf-8"), re.M)
    assert headings == list(dict.fromkeys(headings))
    assert set(headings) == set(ALERTS)
    for name, rule in ALERTS.items():
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}
        assert rule["annotations"]["runbook_url"].endswith(f"/user/runbook.html#{name.lower()}")
        assert f'id="{name.lower()}"' in dashboards.RUNBOOK_PAGE.read_text("utf-8")


def test_every_entry_of_the_runbook_has_symptom_check_remedy_and_command() -> None:
    entries = re.split(r"^## ", dashboards.RUNBOOK.read_text("utf-8"), flags=re.M)[1:]
    for entry in entries:
        for part in ("- Symptom: ", "- Check: ", "- Remedy: ", "\n```\nlte "):
            assert part in entry, entry


def test_every_alert_is_provoked_in_the_unit_tests_of_the_rules() -> None:
    text = (ROOT / "ops/prometheus/lte.rules.test.yaml").read_text("utf-8")
    assert {name for name in ALERTS if name not in text} == set()


@pytest.mark.parametrize(
    "command",
    [
        "check rules lte.rules.yaml",
        "check config prometheus.yaml",
        "test rules lte.rules.test.yaml",
    ],
)
@pytest.mark.timeout(1200)
def test_promtool_finds_no_fault(command: str) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        missing_part("promtool is not installed: apt-get install prometheus")
    done = subprocess.run(
        [promtool, *command.split()], cwd=RULES.parent, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
