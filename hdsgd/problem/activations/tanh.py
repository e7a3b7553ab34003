"""The hyperbolic tangent."""

from __future__ import annotations

import numpy as np

from hdsgd.problem._table_types import TANH
from hdsgd.problem.activations.base import Activation, Floats


def value(x: Floats) -> Floats:
    return np.tanh(x)


def slope(x: Floats) -> Floats:
    return np.asarray(1 / np.cosh(np.clip(x, -350, 350)) ** 2)  # cosh overflows beyond 710


tanh = Activation("tanh", "(eˣ - e⁻ˣ)/(eˣ + e⁻ˣ)", value, slope, code=TANH)
