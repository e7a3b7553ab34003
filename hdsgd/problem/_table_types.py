"""Types of what kernels read of a problem, and codes in them.

Kernel files import nothing of a problem but this, and the digest of compiled kernels covers it (`hdsgd._compile`): it
holds types and constants, no logic.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["ERF", "OWN", "RELU", "TANH", "ErrorRule", "Tables"]

# Which link a kernel computes: one that it knows, or a function of one's own, called by its handle.
OWN, RELU, ERF, TANH = range(4)

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


class ErrorRule(NamedTuple):
    """The error e of a sample in the gradient, ``c_j = (a_j/p) σ'(λ_j) e``."""

    with_output: bool  # e = f - y, else e = -y
    function: int  # handle of an error e(f, y) of one's own (`hdsgd._callbacks`), 0: none


class Tables(NamedTuple):
    """Arrays that describe target and student.  ``σ = poly + Σ_s coef_s φ_s(scale_s x)``, and likewise ``h*``."""

    output: Floats  # (p,) a_j / p
    # Ascending power coefficients, with zeros up to a multiple of four:
    activation: Floats  # (n,) of the polynomial part of σ
    slope: Floats  # (n',) of its derivative
    activation_codes: Integers  # (s,) links of σ: RELU, ERF, TANH or OWN
    activation_functions: Integers  # (s, 2) handles of value and slope of those of one's own
    activation_scales: Floats  # (s,)
    activation_coefs: Floats  # (s,)
    # Polynomial part of h*:
    additive: Floats  # (k, n'') the terms of one variable: padded power coefficients in each direction
    cross_exponents: Integers  # (t', k) the terms of several variables
    cross_coefs: Floats  # (t',)
    target_codes: Integers  # (u,) links of h*
    target_functions: Integers  # (u, 2) handles, as of σ
    target_indices: Integers  # (u,) the direction each link acts on
    target_scales: Floats  # (u,)
    target_link_coefs: Floats  # (u,)
    gram_root: Floats  # (k, k) lower triangular, L_P L_Pᵀ = P
    orthonormal: bool  # P is the identity
    noise: float  # standard deviation sqrt(Δ) of the label noise
    lean: Floats  # (2, 5) where p = k = 1 and degrees are low: coefficients of σ and h* padded to degree 4; else (0, 5)
