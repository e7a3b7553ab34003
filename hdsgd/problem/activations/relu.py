"""The rectified linear unit."""

from __future__ import annotations

import numpy as np

from hdsgd.problem._table_types import RELU
from hdsgd.problem.activations.base import Activation, Floats


def value(x: Floats) -> Floats:
    return np.maximum(x, 0.0)


def slope(x: Floats) -> Floats:
    """With 0 at 0."""
    return (x > 0).astype(np.float64)


relu = Activation("relu", "max(x, 0)", value, slope, smooth=False, code=RELU)
