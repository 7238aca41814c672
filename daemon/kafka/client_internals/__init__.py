"""The one place that uses or replaces private parts of kafka-python.

They differ between versions, and a part that has changed could show only as a record that is read wrongly:
with a version that this was not written for, importing the package raises `Refused`.
"""

from __future__ import annotations

import re

import kafka

from lte_runtime.errors import Refused

# The range of pyproject.toml.
FIRST_VERSION, END_VERSION = (3, 0, 12), (3, 1)


def check_version(version: str) -> None:
    """Raises `Refused` for a version of kafka-python that these modules were not written for."""
    numbers = tuple(int(number) for number in re.findall(r"\d+", version)[:3])
    if not FIRST_VERSION <= numbers < END_VERSION:
        raise Refused(
            f"kafka-python {version} is installed, and the daemon uses private parts of 3.0.12 to 3.0.x: "
            "install it again with 'pip install \"kafka-python>=3.0.12,<3.1\"'"
        )


check_version(kafka.__version__)
