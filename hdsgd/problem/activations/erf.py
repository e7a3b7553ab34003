"""The error function."""

from __future__ import annotations

import math

import numpy as np

from hdsgd.problem._table_types import ERF
from hdsgd.problem.activations.base import Activation, Floats


def value(x: Floats) -> Floats:
    from scipy.special import erf  # a slow import that polynomials do without

    return np.asarray(erf(x))


def slope(x: Floats) -> Floats:
    return np.asarray(2 / math.sqrt(math.pi) * np.exp(-(x**2)))


erf = Activation("erf", "2/√π ∫₀ˣ exp(-t²) dt", value, slope, code=ERF)
