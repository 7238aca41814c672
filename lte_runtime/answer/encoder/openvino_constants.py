"""Constants of an OpenVINO graph, for the encoder and the language model."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from lte_runtime.answer.encoder.openvino_quiet import ops


def array(value: npt.NDArray[Any]) -> Any:
    return ops.constant(np.ascontiguousarray(value))


def integers(*values: int) -> Any:
    """A vector of int64."""
    return ops.constant(np.array(values, np.int64))


def integer(value: int) -> Any:
    """A scalar of int64."""
    return ops.constant(np.array(value, np.int64))


def real(value: float) -> Any:
    """A scalar of float32."""
    return ops.constant(np.array(value, np.float32))
