"""What a test does when a real part (broker, model, tool) is not there."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest


def missing_part(reason: str) -> NoReturn:
    """Skip where a real part is missing; fail where CI promises that it is there."""
    if os.environ.get("LTE_REQUIRE_ALL") == "1":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)
