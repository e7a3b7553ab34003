"""Types of the tables that the moment kernels read: plain arrays, numbers and nothing else."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "DELTA",
    "PLAIN",
    "SIGN",
    "ErfTables",
    "LinkTables",
    "PolynomialTables",
    "QuadraticTables",
    "QuadratureTables",
]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

# Factors K(y) of a group of functions of one field: 1, sgn(y), δ(y).
PLAIN, SIGN, DELTA = range(3)


class QuadraticTables(NamedTuple):
    """``σ = αx² + c`` and ``h* = vᵀ form v + form_constant`` as the moment kernels see them."""

    output: Floats  # (p,) a_j / p
    activation: Floats  # (3,) ascending power coefficients of σ: c, 0, α
    form: Floats  # (k, k), symmetric
    form_constant: float
    noise: float  # variance Δ of the label noise


class PolynomialTables(NamedTuple):
    """A polynomial problem as the moment kernels see it; ``h*(v) = Σ_s ridge_s(directions_s · v)``."""

    output: Floats  # (p,) a_j / p
    activation: Floats  # (n,) ascending power coefficients of σ
    functions: Floats  # (m, q), m = p + K: ascending power coefficients of (a_j/p) σ and of -ridge_s
    lift: Floats  # (m, p+k): the fields they act on are lift · x, that is λ_j and directions_s · λ*
    plain: bool  # lift is the identity
    noise: float  # variance Δ of the label noise


class LinkTables(NamedTuple):
    """A problem with links as the moment kernels see it.

    Functions of one field are sums of groups ``poly(x) K(y)``, ``y = x + ζ``, ``ζ ~ N(0, inflation)``.  The bank of
    functions holds 1, σ, xσ', σ', xσ'', σ'', xσ', x²σ', then for each ridge function u (minus the target's) u, xu', u'.
    """

    output: Floats  # (p,) a_j / p
    lift: Floats  # (m, p+k), m = p + K: the fields are lift · x, that is λ_j and directions_s · λ*
    plain: bool  # lift is the identity
    noise: float  # variance Δ of the label noise
    starts: Integers  # (functions+1,) range of groups of each function of the bank
    kinds: Integers  # (groups,) PLAIN, SIGN or DELTA
    inflations: Floats  # (groups,)
    coefs: Floats  # (groups, n) ascending power coefficients
    orders: Integers  # (groups,) number of coefficients
    parities: Integers  # (groups,) 0 even, 1 odd, 8 neither
    nodes: Floats  # (q,) quadrature on [0, 1]
    weights: Floats  # (q,)
    approximate: bool  # relu or tanh occurs


class ErfTables(NamedTuple):
    """A problem whose functions are all sums of erfs (tanh included) and constants."""

    output: Floats  # (p,) a_j / p
    lift: Floats  # (m, p+k) as in `LinkTables`
    plain: bool
    noise: float
    approximate: bool  # tanh occurs
    counts: Integers  # (m,) number of erfs of each field's function u_i
    coefs: Floats  # (m, n)
    inflations: Floats  # (m, n) 1/(2b²) of erf(b x)
    constants: Floats  # (2,) the constant of -h*, and of f - h*


class QuadratureTables(NamedTuple):
    """A problem of any loss and activations, and a weighted batch of points u (and label noise), in blocks of n."""

    problem: Any  # hdsgd.problem._table_types.Tables
    errors: Any  # ErrorRule; without an error of its own the kernels are told which of the two it is
    points: Floats  # (blocks, r n), r = p + k rows u_b
    radius: Floats  # (blocks, n) |u|² - r
    noise: Floats  # (blocks, n) minus the label noise
    weights: Floats  # (blocks, n)
    approximate: bool
