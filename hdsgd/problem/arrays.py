"""A problem as plain arrays, the only form in which compiled kernels see it."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

from hdsgd.errors import SpecificationError
from hdsgd.problem._table_types import OWN, ErrorRule, Floats, Integers, Tables
from hdsgd.problem.activations import ACTIVATIONS
from hdsgd.problem.functions import Function
from hdsgd.problem.losses import Loss
from hdsgd.problem.model import Problem

__all__ = ["error_rule", "tabulate"]

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


def _handle(function: Callable[..., float], on_arrays: Callable[..., Any], variables: int, what: str) -> int:
    from hdsgd import _callbacks  # imports Numba

    try:
        return _callbacks.handle_of(function, on_arrays, variables)
    except _callbacks.NotCompiled as error:
        raise SpecificationError(
            f"{what} must be a function of {'one number' if variables == 1 else 'two numbers'} in plain arithmetic and "
            f"functions of math, which Numba can compile: {error}"
        ) from error


def error_rule(loss: Loss) -> ErrorRule:
    """What kernels are told of a loss.

    Raises
    ------
    SpecificationError
        If it has an error of its own that cannot be compiled.
    """
    if loss.error is None:
        return ErrorRule(bool(loss.kappa), 0)
    return ErrorRule(True, _handle(loss.error, loss.errors, 2, f"the error of loss {loss.name!r}"))


def _functions(name: str) -> tuple[int, int]:
    """Handles of value and slope of an activation of one's own."""
    known = ACTIVATIONS[name]
    if known.code != OWN:
        return 0, 0
    return (
        _handle(known.value, known.values, 1, f"the value of activation {name!r}"),
        _handle(known.slope, known.slopes, 1, f"the slope of activation {name!r}"),
    )


def _links(function: Function) -> tuple[Integers, Integers, Integers, Floats, Floats]:
    links = function.links
    return (
        np.array([ACTIVATIONS[link.name].code for link in links], dtype=np.int64),
        np.array([_functions(link.name) for link in links], dtype=np.int64).reshape(len(links), 2),
        np.array([link.index for link in links], dtype=np.int64),
        np.array([link.scale for link in links], dtype=np.float64),
        np.array([link.coef for link in links], dtype=np.float64),
    )


@lru_cache(maxsize=256)
def tabulate(problem: Problem) -> Tables:
    """Arrays of a `Problem` for the kernels; shared by all runs of it, and never written to.

    Raises
    ------
    SpecificationError
        If an activation of one's own cannot be compiled.
    """
    sigma, h = problem.student.function, problem.target.function
    activation = sigma.power_coefficients()
    slope = activation[1:] * np.arange(1, len(activation)) if len(activation) > 1 else np.zeros(1)
    codes, functions, _, scales, coefs = _links(sigma)
    target_codes, target_functions, target_indices, target_scales, target_link_coefs = _links(h)
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
        activation_functions=functions,
        activation_scales=scales,
        activation_coefs=coefs,
        additive=_padded(additive[:, :used]),
        cross_exponents=np.array([e for e, _ in cross], dtype=np.int64).reshape(len(cross), problem.k),
        cross_coefs=np.array([float(c) for _, c in cross], dtype=np.float64),
        target_codes=target_codes,
        target_functions=target_functions,
        target_indices=target_indices,
        target_scales=target_scales,
        target_link_coefs=target_link_coefs,
        gram_root=problem.target.gram_root,
        orthonormal=problem.target.orthonormal,
        noise=float(np.sqrt(problem.noise)),
        lean=_lean(problem, activation, additive[0, :used]),
    )
