"""Scalar functions of a user, evaluated on arrays."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["on_arrays"]


def on_arrays(function: Callable[..., Any], *arrays: Any) -> NDArray[np.float64]:
    """``function`` of numbers at each entry of arrays of one shape; nan where it raises an arithmetic error.

    Compiled arithmetic has an infinity or a nan there, where Python's `math` raises.
    """

    def number(*values: float) -> float:
        try:
            return float(function(*values))
        except (ArithmeticError, ValueError):
            return math.nan

    first, *others = (np.asarray(array, dtype=np.float64) for array in arrays)
    columns = (first.ravel().tolist(), *(other.ravel().tolist() for other in others))
    return np.array([number(*values) for values in zip(*columns, strict=True)]).reshape(first.shape)
