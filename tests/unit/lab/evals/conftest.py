from __future__ import annotations

from tests.unit.lab.baselines.conftest import make_base

__all__ = ["make_base"]
