"""A problem as plain arrays, the only form in which compiled kernels see it."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hdsgd.problem.functions import LINKS, Function
from hdsgd.problem.model import Problem

__all__ = ["ERF", "RELU", "TANH", "Tables", "tabulate"]

# Codes of the links in `Tables`.
RELU, ERF, TANH = (LINKS.index(name) for name in ("relu", "erf", "tanh"))

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


class Tables(NamedTuple):
    """Arrays that describe target and student.  ``σ = poly + Σ_s coef_s φ_s(scale_s x)``, and likewise ``h*``."""

    output: Floats  # (p,) a_j / p
    # Ascending power coefficients, with zeros up to a multiple of four:
    activation: Floats  # (n,) of the polynomial part of σ
    slope: Floats  # (n',) of its derivative
    activation_codes: Integers  # (s,) links of σ: RELU, ERF or TANH
    activation_scales: Floats  # (s,)
    activation_coefs: Floats  # (s,)
    # Polynomial part of h*:
    additive: Floats  # (k, n'') the terms of one variable: padded power coefficients in each direction
    cross_exponents: Integers  # (t', k) the terms of several variables
    cross_coefs: Floats  # (t',)
    target_codes: Integers  # (u,) links of h*
    target_indices: Integers  # (u,) the direction each link acts on
    target_scales: Floats  # (u,)
    target_link_coefs: Floats  # (u,)
    gram_root: Floats  # (k, k) lower triangular, L_P L_Pᵀ = P
    orthonormal: bool  # P is the identity
    noise: float  # standard deviation sqrt(Δ) of the label noise
    lean: Floats  # (2, 5) where p = k = 1 and degrees are low: coefficients of σ and h* padded to degree 4; else (0, 5)


LEAN_DEGREE = 4


def _padded(coefs: Floats) -> Floats:
    """Coefficients with zeros appended along the last axis, up to a multiple of four."""
    missing = -coefs.shape[-1] % 4
    return np.ascontiguousarray(np.pad(coefs, [(0, 0)] * (coefs.ndim - 1) + [(0, missing)]))


def _lean(problem: Problem, *polynomials: Floats) -> Floats:
    """Padded coefficients for the one-pass kernel of p = k = 1, or an empty array where it does not apply."""
    simple = problem.p == problem.k == 1 and problem.target.orthonormal
    simple &= problem.student.function.is_polynomial and problem.target.function.is_polynomial
    if not simple or max(map(len, polynomials)) > LEAN_DEGREE + 1:
        return np.zeros((0, LEAN_DEGREE + 1))
    return np.array([np.pad(coefs, (0, LEAN_DEGREE + 1 - len(coefs))) for coefs in polynomials])


def _links(function: Function) -> tuple[Integers, Integers, Floats, Floats]:
    links = function.links
    return (
        np.array([LINKS.index(link.name) for link in links], dtype=np.int64),
        np.array([link.index for link in links], dtype=np.int64),
        np.array([link.scale for link in links], dtype=np.float64),
        np.array([link.coef for link in links], dtype=np.float64),
    )


@lru_cache(maxsize=256)
def tabulate(problem: Problem) -> Tables:
    """Arrays of a `Problem` for the kernels; shared by all runs of it, and never written to."""
    sigma, h = problem.student.function, problem.target.function
    activation = sigma.power_coefficients()
    slope = activation[1:] * np.arange(1, len(activation)) if len(activation) > 1 else np.zeros(1)
    codes, _, scales, coefs = _links(sigma)
    target_codes, target_indices, target_scales, target_link_coefs = _links(h)
    terms = sorted(h.terms.items())
    cross = [(e, c) for e, c in terms if sum(n > 0 for n in e) > 1]
    additive = np.zeros((problem.k, h.degree + 1))
    for e, c in terms:
        if (e, c) not in cross:
            r = int(np.argmax(e))
            additive[r, e[r]] += float(c)
    # Columns up to the highest power used: a purely mixed target such as z1*z2*z3 has only a (zero) constant.
    used = int(np.flatnonzero(np.any(additive != 0, axis=0)).max(initial=0)) + 1
    return Tables(
        output=problem.student.a / problem.p,
        activation=_padded(activation),
        slope=_padded(slope),
        activation_codes=codes,
        activation_scales=scales,
        activation_coefs=coefs,
        additive=_padded(additive[:, :used]),
        cross_exponents=np.array([e for e, _ in cross], dtype=np.int64).reshape(len(cross), problem.k),
        cross_coefs=np.array([float(c) for _, c in cross], dtype=np.float64),
        target_codes=target_codes,
        target_indices=target_indices,
        target_scales=target_scales,
        target_link_coefs=target_link_coefs,
        gram_root=problem.target.gram_root,
        orthonormal=problem.target.orthonormal,
        noise=float(np.sqrt(problem.noise)),
        lean=_lean(problem, activation, additive[0, :used]),
    )
