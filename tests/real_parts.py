"""The real model of fast tests; what a test does when a real part (broker, model, tool) is not there."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest

from daemon.cli.options import Arch
from ops.models import QWEN2, QWEN2_ADAPTER, model_environment

__all__ = ["QWEN2", "QWEN2_ADAPTER", "QWEN2_SETTINGS", "missing_part"]
QWEN2_SETTINGS = model_environment(Arch.QWEN2)
"""The environment of a daemon that serves it with its adapter."""


def missing_part(reason: str) -> NoReturn:
    """Skip where a real part is missing; fail where CI promises that it is there."""
    if os.environ.get("LTE_REQUIRE_ALL") == "1":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)
