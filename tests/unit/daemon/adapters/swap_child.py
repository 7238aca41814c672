"""A process that swaps adapters and kills itself at a chosen point; a fork for each point, so it is cheap.

`python swap_child.py DIRECTORY`: for point 1, 2, ... a fork does the scenario and dies by SIGKILL at that
point; another fork then starts from what is left and says what it found, one JSON object a line. The last
line is the scenario that reached its end.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from stub_adapters import save_adapter

from daemon.adapters.swap import Configured, Swapper
from lte_runtime.align.registry import Registry
from lte_runtime.answer.encoder import StubEncoder
from lte_runtime.answer.engine.stub import STUB_ADAPTER, StubEngine
from lte_runtime.memory.edit_memory import EditMemory
from lte_runtime.store.adapter_history import AdapterLedger


class Parts:
    def __init__(self, place: Path) -> None:
        self.memory = EditMemory.open(place / "state", StubEncoder())
        self.engine = StubEngine()
        self.registry = Registry(place / "adapters", self.engine.check_adapter)
        self.swapper = Swapper(self.engine, self.registry, self.memory.adapters, Configured(STUB_ADAPTER))
        self.problems = self.swapper.start()

    def close(self) -> None:
        self.engine.close()
        self.memory.close()


def scenario(place: Path, acknowledged: Callable[[str], object]) -> None:
    parts = Parts(place)
    for number in (2, 3):
        parts.registry.add(save_adapter(place / f"made-{number}", number), {"promote": True})
        parts.swapper.activate(f"align-{number:06d}", "promoted")
        acknowledged(f"align-{number:06d}")
    parts.swapper.rollback("worse")
    acknowledged("align-000002")
    parts.close()


def arm(point: int) -> None:
    """SIGKILL before and after each durable step and each switch, counted from 1."""
    passed = 0

    def count() -> None:
        nonlocal passed
        passed += 1
        if passed == point:
            os.kill(os.getpid(), signal.SIGKILL)

    def around(owner: Any, name: str) -> None:
        real = getattr(owner, name)

        def counted(*arguments: Any, **options: Any) -> Any:
            count()
            result = real(*arguments, **options)
            count()
            return result

        setattr(owner, name, counted)

    around(os, "fsync")
    around(Path, "rename")
    around(StubEngine, "switch")
    around(AdapterLedger, "_append")


def in_fork(act: Callable[[], object]) -> int:
    """The wait status of a fork that does something and exits with 0."""
    child = os.fork()
    if child == 0:
        try:
            act()
        except BaseException as error:  # noqa: BLE001 - told to the test
            print(json.dumps({"fault": repr(error)}), flush=True)
            os._exit(1)
        os._exit(0)
    return os.waitpid(child, 0)[1]


def killed_at(place: Path, point: int) -> None:
    arm(point)
    with (place / "acknowledged").open("a") as file:
        scenario(place, lambda name: print(name, file=file, flush=True))


def found(place: Path, point: int, status: int) -> None:
    """What a start after the kill finds, and whether everything goes on without help."""
    parts = Parts(place)
    serving = parts.engine.adapter
    report = {
        "point": point,
        "killed": os.WIFSIGNALED(status),
        "acknowledged": (place / "acknowledged").read_text().split(),
        "pointer": parts.memory.adapters.active().adapter,
        "serving": serving.id if serving else "none",
        "problems": parts.problems,
        "unsound": [each.ref.id for each in parts.registry.entries() if each.problem],
    }
    for entry in parts.registry.entries():
        parts.registry.verify(entry.ref.id)
    parts.registry.sweep(older_than_s=0)
    report["left"] = [path.name for path in (place / "adapters").glob("tmp-*")]
    parts.registry.add(save_adapter(place / "after", 7), {})
    parts.swapper.activate("align-000007", "goes on")
    parts.close()
    print(json.dumps(report), flush=True)


def main() -> None:
    root, point, status = Path(sys.argv[1]), 0, 1
    sys.stdout.flush()
    while status != 0:
        point += 1
        place = root / str(point)
        place.mkdir()
        (place / "acknowledged").touch()
        status = in_fork(partial(killed_at, place, point))
        if in_fork(partial(found, place, point, status)) != 0:
            return


if __name__ == "__main__":
    main()
