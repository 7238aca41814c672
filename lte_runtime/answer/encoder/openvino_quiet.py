"""OpenVINO without its telemetry, which would load with it and report the import to its makers.

Where `openvino_telemetry` is missing OpenVINO takes a stub that sends nothing; so the module is made missing.
"""

from __future__ import annotations

import sys

sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

import openvino as ov  # noqa: E402
from openvino import opset13 as ops  # noqa: E402

__all__ = ["ops", "ov"]
