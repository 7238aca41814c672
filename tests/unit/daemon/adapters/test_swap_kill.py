"""P2 and P10: SIGKILL at every durable step of adding, activating and rolling back an adapter."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

CHILD = Path(__file__).with_name("swap_child.py")
ROOT = Path(__file__).parents[4]
# The pointer after each acknowledged step; the one behind it may have been under way.
STEPS = ["configured", "align-000002", "align-000003", "align-000002"]


def test_a_kill_at_any_point_leaves_the_old_or_the_new_adapter(tmp_path: Path) -> None:
    paths = os.pathsep.join((str(ROOT), str(ROOT / "tests")))
    done = subprocess.run(
        [sys.executable, str(CHILD), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
        env={**os.environ, "PYTHONPATH": paths},
    )
    reports = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert reports, done.stderr
    assert not [each["fault"] for each in reports if "fault" in each], done.stderr
    assert [each["killed"] for each in reports] == [True] * (len(reports) - 1) + [False]
    assert len(reports) > 30
    for each in reports:
        at = len(each["acknowledged"])
        assert each["pointer"] in STEPS[at : at + 2], each
        wanted = "align-000000" if each["pointer"] == "configured" else each["pointer"]
        assert (each["serving"], each["problems"]) == (wanted, []), each
        assert (each["unsound"], each["left"]) == ([], []), each
